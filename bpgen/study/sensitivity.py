"""The same checks with training losses matched elsewhere: a verdict that hangs on the place is a weak one."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bpgen.study import liu2022
from bpgen.study.matched import Level
from bpgen.study.verdicts import Verdict, judge

ELSEWHERE = {"half way there": Level(way=0.5), "where all get": Level(share=1.0)}


def elsewhere(verdicts: Sequence[Verdict], table: pd.DataFrame) -> list[tuple[Verdict, ...]]:
    """For every verdict that comes from matched losses: itself, then the one at each level of `ELSEWHERE`.

    Args:
        verdicts: on all of `liu2022.checks(table)`, in their order.
        table: of the study.
    """
    others = [judge(liu2022.checks(table, level)) for level in ELSEWHERE.values()]
    return [several for several in zip(verdicts, *others, strict=True) if len({_effect(v) for v in several}) > 1]


def _effect(verdict: Verdict) -> tuple[int, str]:
    effect = verdict.check.effect
    return effect.n, repr(effect.estimate)  # nan is equal to nan
