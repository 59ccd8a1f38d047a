"""Many runs that answer a question: plan, tune, launch, collect, statistics, verdicts, figures, report.

Every run is an ordinary `bpgen fit` run with its resolved config and its own folder; nothing here trains by itself.
`bpgen.study.load("studies/leak", "runs")` makes one typed table of all runs below some folders, for pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bpgen.study.loading import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # a plan or a launcher need no table
        from bpgen.study.loading import load

        return load
    raise AttributeError(f"module 'bpgen.study' has no attribute {name!r}")
