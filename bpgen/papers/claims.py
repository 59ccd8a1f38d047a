"""A paper's claims in words and numbers: the verdicts of one study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from bpgen.analysis.markdown import markdown_table
from bpgen.analysis.matching import Level
from bpgen.analysis.sequential import judge_study
from bpgen.analysis.settings import BLOCK
from bpgen.analysis.verdicts import Check, Verdict
from bpgen.papers.base import Paper
from bpgen.papers.side_by_side import number, write_verdicts
from bpgen.study.runs import Run

OTHER_LEVELS = {
    "half way there": Level(way=0.5),
    "where all get": Level(share=1.0),
    "at the first touch": Level(curve="as it is"),
    "at the same accuracy": Level(on="error"),
}
_HEADER = (
    *("claim", "setting", "statement", "verdict", "effect", "95 % interval", "of the verdict", "n", "of interest"),
    *("p for, against", "same elsewhere"),
)
_VERDICTS = """\
Supported: the data exclude the statement's negation; not supported: they exclude the statement, given the smallest \
effect of interest; undecided: neither; not testable: it could not fail here; described: no verdict is meant; n/a: \
the effect is not defined, or not measured. One-sided tests over seeds at 2.5 %, after Holm over the checks of a \
claim in a setting (`bpgen.analysis.verdicts`). Beside Student's 95 % interval stands that of the verdict: \
simultaneous over the claim in the setting, without the outer fifths of the seeds, and with those that did not get \
to the matched loss at their worst. "Assumes normality": so few seeds that flips of signs could not have agreed. \
With an outlier in ten seeds, always in one direction, errors are up to 6 % at 20 seeds and 11 % at 40; what \
collapses in one seed of twenty is mostly not seen among 10: of a mean it makes errors of up to 37 %, so that a \
verdict is on seeds that do not collapse. Spreads and correlations are shown of the seeds that reach the loss, and \
judged with the others at their worst as well: a spread without the outer fifth of its deviations, what is missing \
at the median or beyond all others; a correlation by ranks, what is missing sharpest with the smallest gap (against \
one: with the largest). Power: the probability that so many seeds support the statement if the effect is the smallest \
of interest (of "as ... as" and "no ... than": if there is none). Same elsewhere: at how many of the other matched \
losses below the verdict is the same. Ratios are of curvatures or spreads. More seeds: how many to add for a decision \
with 80 % probability if the present estimate were the truth, and as many were lost; a rough guide, not to be followed \
again and again: errors of 1.5 % at the first look became 3 % after one addition and 3.5 \
% after three (simulated)."""
_LEVELS = """\
Above, losses are matched at the lowest that 80 % of all planned seeds reach under each rule, on the monotone curve \
closest to a run's loss. Half way there: in log loss, from the start of training. Where all get: the lowest that every \
seed reaches whose runs finish. At the first touch: where the loss as it is, with its jumps, first comes down to it. \
At the same accuracy: matched on training accuracy in place of the loss, as "comparable training accuracy" has it; on \
the loss in tasks without one."""


def claims_section(paper: Paper, table: pd.DataFrame, folder: Path | None, runs: Sequence[Run] = ()) -> list[str]:
    """Judge the claims of a paper: lines of the report.

    Args:
        paper: whose claims.
        table: of the study, a row per run and evaluation.
        folder: where verdicts.csv is written, if anywhere.
        runs: of the study, where they are at hand.
    """
    verdicts = judge_study(paper.checks, table)
    elsewhere = at_other_levels(paper, verdicts, table)
    if folder is not None:
        write_verdicts(verdicts, folder, {i: _agreeing(row) for i, row in elsewhere.items()})
    notes = f"{_curvature_measured(table, runs)} {paper.remark}".strip()
    said = claims_said(paper, verdicts)
    return [
        *(*said, "", verdict_table(verdicts, elsewhere), "", _VERDICTS, "", notes, ""),
        *_other_levels_section(elsewhere),
    ]


def claims_said(paper: Paper, verdicts: Sequence[Verdict]) -> list[str]:
    """The claims that were judged, as the paper makes and reports them."""
    judged = {v.check.claim for v in verdicts}
    claims = [
        f"- ({letter}) {claim.text}" + (f"; reported: {claim.reported}" if claim.reported else "")
        for letter, claim in paper.claims.items()
        if letter in judged
    ]
    return ["## Claims", "", f"Of {paper.citation}:", "", *claims]


def at_other_levels(paper: Paper, verdicts: Sequence[Verdict], table: pd.DataFrame) -> dict[int, tuple[Verdict, ...]]:
    """The verdicts that come from matched losses, by their place, each with those on the same check at `OTHER_LEVELS`.

    A verdict that hangs on the level is a weak one.

    Args:
        paper: whose checks.
        verdicts: on all of `paper.checks(table)`, in their order.
        table: of the study.
    """
    others = [judge_study(partial(paper.checks, level=level), table) for level in OTHER_LEVELS.values()]
    rows = enumerate(zip(verdicts, *others, strict=True))
    return {i: row for i, row in rows if len({_effect(v) for v in row}) > 1}


def _agreeing(row: tuple[Verdict, ...]) -> str:
    """At how many of the other levels the verdict is the same."""
    return f"{sum(v.decision == row[0].decision for v in row[1:])} of {len(row) - 1}"


def _effect(verdict: Verdict) -> tuple[int, str]:
    effect = verdict.check.effect
    return effect.n, repr(effect.estimate)  # nan is equal to nan


def _other_levels_section(elsewhere: Mapping[int, tuple[Verdict, ...]]) -> list[str]:
    rows = []
    for here, *others in elsewhere.values():
        c = here.check
        rows.append((f"({c.claim})", c.setting, _statement(c), here.decision, *map(_in_short, others)))
    if not rows:
        return []
    title = "## Would the verdicts be others, had the rules been matched at another loss?"
    header = ("claim", "setting", "statement", "verdict", *OTHER_LEVELS)
    return [title, "", markdown_table(header, rows), "", _LEVELS, ""]


def verdict_table(verdicts: Sequence[Verdict], elsewhere: Mapping[int, tuple[Verdict, ...]] | None = None) -> str:
    """A row per verdict; without a column of those at other matched losses where nothing is matched (None)."""
    rows, columns = [], slice(None if elsewhere is not None else -1)
    for i, v in enumerate(verdicts):
        c, e = v.check, v.check.effect
        statement = c.text + (f" [{'; '.join(notes)}]" if (notes := _notes(c)) else "")
        intervals = (f"{_number(c, low, False)} to {_number(c, high, False)}" for low, high in (e.interval(), v.bounds))
        p = "" if c.kind == "description" else f"{v.p_support:.2g}, {v.p_refute:.2g}"
        same = _agreeing(elsewhere[i]) if elsewhere and i in elsewhere else ""
        found = (_number(c, e.estimate), *intervals, _n(v), _interest(c), p, same)
        rows.append((f"({c.claim})", c.setting, statement, _decision(v), *found)[columns])
    return markdown_table(_HEADER[columns], rows)


def _decision(v: Verdict) -> str:
    more = f"about {v.more_seeds} more seeds" if v.more_seeds else ""
    more += f"{', ' * bool(more)}power {v.power:.0%}" if v.decision == "undecided" and math.isfinite(v.power) else ""
    reason = v.check.untestable if v.decision == "not testable" else ""
    details = ", ".join(part for part in (more, reason, v.remark) if part)
    return v.decision + (f" ({details})" if details else "")


def _notes(check: Check) -> list[str]:
    """What a reader of the effect has to know."""
    effect, typical = check.effect, check.effect.trimmed_mean
    outliers = abs(typical - effect.estimate) > effect.se
    return [*([effect.note] if effect.note else []), *([f"trimmed mean {_number(check, typical)}"] if outliers else [])]


def in_cells(verdict: Verdict) -> tuple[str, str, str]:
    """Effect, interval (in brackets that of the verdict) and n of a verdict, as its tables write them."""
    check = verdict.check
    low, high = check.effect.interval()
    interval = f"{_number(check, low, False)} to {_number(check, high, False)}"
    if check.kind != "description":
        interval += " [{} to {}]".format(*(_number(check, end, False) for end in verdict.bounds))
    return _number(check, check.effect.estimate), interval, _n(verdict)


def _curvature_measured(table: pd.DataFrame, runs: Sequence[Run]) -> str:
    """Of which weights, and where runs are at hand on how many samples."""
    options = [run.config.measurements["sharpness"] for run in runs]
    sizes = [run.config.make_task().split("train").size for run in runs]
    measured = {
        f"{o['block']} on {min(int(o['samples']), n)} training samples" for o, n in zip(options, sizes, strict=True)
    }
    blocks = measured or set(table[BLOCK].dropna().astype(str) if BLOCK in table else ())
    of = " or ".join(sorted(blocks)).replace("all on", "all weights on")
    surrogate = BLOCK in table and table[BLOCK].astype(str).str.contains("surrogate").any()
    loss = "the surrogate network's loss (the true one is piecewise constant)" if surrogate else "the true loss"
    return f"λ_max is the largest eigenvalue of the Hessian of {loss}{f' for {of}' if of else ''}."


def _statement(check: Check) -> str:
    """Without the loss at which it was looked at."""
    return check.text.split(", at training loss")[0]


def _in_short(v: Verdict) -> str:
    effect = f"{_number(v.check, v.check.effect.estimate)}, n = {_n(v)}"
    return v.decision if v.decision == "n/a" else f"{v.decision}: {effect}"


def _n(v: Verdict) -> str:
    effect = v.check.effect
    return f"{effect.n}" if effect.n == effect.planned else f"{effect.n} of {effect.planned}"


def _number(check: Check, value: float, unit: bool = True) -> str:
    return number(check.unit, check.shown(value), unit) if math.isfinite(value) else "?"


def _interest(check: Check) -> str:
    sign = {"larger": "≥", "at most": "<", "same": "within"}.get(check.kind)
    return f"{sign} {_number(check, check.smallest)}" if sign else ""
