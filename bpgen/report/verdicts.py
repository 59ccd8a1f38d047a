"""The verdicts of a section: a paper's claims where it is one of its studies, else conditions against the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bpgen.analysis.matching import LOSS, finished
from bpgen.analysis.sequential import judge_study, spending_in_words, with_looks
from bpgen.analysis.verdicts import Verdict
from bpgen.errors import BpgenError
from bpgen.papers.base import Paper
from bpgen.papers.claims import in_cells
from bpgen.registry import find, plugins
from bpgen.study.catalogue import StudyEntry
from bpgen.study.conclusions import conclusions

_CLAIMS = """\
Claims of {citation}. Supported: the data exclude the statement's negation; not supported: they exclude the statement, \
given the smallest effect of interest; undecided: neither. One-sided tests over seeds at 2.5 %, after Holm over the \
checks of a claim in a setting. 95 % intervals, each on its own; in brackets that of the verdict: simultaneous over \
the checks of the claim in the setting, without the outer fifths of the seeds, missing seeds at their worst."""
_PAIRS = """\
Differences within seeds, at the lowest training loss that both reach. Larger or smaller: a two-sided t-test over \
seeds excludes no difference at 5 %, after Holm over the comparisons of a measure in a setting. 95 % intervals, each \
on its own."""


class VerdictRow(NamedTuple):
    """One line of the verdicts. `tone`: yes, no or open, for its colour."""

    claim: str
    setting: str
    text: str
    verdict: str
    tone: str
    effect: str
    interval: str
    n: str
    note: str


def verdicts(study: StudyEntry | None, table: pd.DataFrame, paper: str | None = None) -> tuple[list[VerdictRow], str]:
    """All verdicts and what they mean.

    Raises:
        BpgenError: no such paper.
    """
    if table.empty or LOSS not in table or finished(table).empty:
        if paper is not None:
            find("paper", paper)
        return [], ""
    table = with_looks(table, [] if study is None else study.plan.get("looks") or [])
    looks = spending_in_words(table)
    looks = f" {looks}" if looks else ""
    chosen = find("paper", paper).load()() if paper is not None else _paper_of(study)
    if chosen is not None:
        try:
            rows = [_of_claim(v) for v in judge_study(chosen.checks, table)]
        except KeyError as missing:  # a measure that its checks need was not measured
            return [], f"The claims of {chosen.citation} cannot be judged: {missing} was not measured."
        return rows, _CLAIMS.format(citation=chosen.citation) + looks
    found = conclusions(table)
    return [_of_pair(c) for c in found], _PAIRS + looks if found else ""


def _of_pair(c: Any) -> VerdictRow:
    n = str(c.n) if c.n == c.planned else f"{c.n} of {c.planned}"
    return VerdictRow("", c.setting, c.statement, c.verdict, _tone(c.verdict), c.effect, c.interval, n, c.note)


def _of_claim(v: Verdict) -> VerdictRow:
    effect, interval, n = in_cells(v)
    text = v.decision + (f" (about {v.more_seeds} more seeds)" if v.more_seeds else "")
    c = v.check
    return VerdictRow(f"({c.claim})", c.setting, c.text, text, _tone(v.decision), effect, interval, n, c.effect.note)


def _tone(verdict: str) -> str:
    return {"supported": "yes", "larger": "yes", "smaller": "yes", "not supported": "no"}.get(verdict, "open")


def _paper_of(study: StudyEntry | None) -> Paper | None:
    """The installed paper of which a study is an experiment; one that is broken is passed over."""
    if study is None:
        return None
    for plugin in plugins("paper").values():
        try:
            paper = plugin.load()()
        except BpgenError:
            continue
        if study.name in set(_names(paper)):
            return paper
    return None


def _names(paper: Paper) -> Iterator[str]:
    """What the studies of a paper are called."""
    for size in paper.sizes.values():
        for experiment in size.experiments:
            plan = experiment.plan
            yield str(plan.get("name", "study")) if isinstance(plan, Mapping) else Path(plan).stem
