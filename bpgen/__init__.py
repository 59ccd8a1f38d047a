"""bpgen: how brain-like learning rules shape the solutions that recurrent networks find.

Importing this package costs nothing: every public name, and every module in it, is loaded at its first use.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from bpgen._version import __version__

_HOMES = {
    "Network": "bpgen.network",
    "fit": "bpgen.cli.python",
    "gradients": "bpgen.rules",
    "list_rules": "bpgen.rules",
    "load_rule": "bpgen.rules",
    "sharpness": "bpgen.curvature",
    "load_run": "bpgen.run.replay",
}
__all__ = [
    "Network",
    "__version__",
    "conformance",
    "curvature",
    "errors",
    "fit",
    "gradients",
    "list_rules",
    "load_rule",
    "load_run",
    "neurons",
    "rules",
    "sharpness",
    "stability",
]

if TYPE_CHECKING:
    from bpgen import conformance, curvature, errors, neurons, rules, stability
    from bpgen.cli.python import fit
    from bpgen.curvature import sharpness
    from bpgen.network import Network
    from bpgen.rules import gradients, list_rules, load_rule
    from bpgen.run.replay import load_run


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if not name.startswith("_") and find_spec(f"bpgen.{name}") is not None:
        return import_module(f"bpgen.{name}")
    raise AttributeError(f"module 'bpgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
