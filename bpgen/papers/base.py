"""The contract of a paper: what it claims, which studies put that to the test, and what they must show.

A paper is a class in one file, announced by one line in the `pyproject.toml` of any package:

    [project.entry-points."bpgen.papers"]
    smith2030 = "my_package.smith2030:Smith2030"

`bpgen reproduce smith2030` then runs its studies and judges its claims; no file of bpgen has to know it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import pandas as pd

from bpgen.analysis.matching import LOWEST_COMMON, Level
from bpgen.analysis.verdicts import Check
from bpgen.figures.study import Panel
from bpgen.figures.style import Styles

SizeName = Literal["quick", "default", "full"]


class Claim(NamedTuple):
    """What a paper says, in a sentence, and what it reports for it."""

    text: str
    reported: str = ""


class Experiment(NamedTuple):
    """One study.

    plan: the content of a plan as its YAML file would hold it, the path of such a file, or the name of a shipped one.
    data_option: the option of a run that takes the folder given by `--data-dir`; empty if the data need none.
    """

    plan: str | Path | Mapping[str, Any]
    data_option: str = ""


class Simulation(NamedTuple):
    """What is no run of `bpgen fit`, such as a theory beside networks of its own.

    of_seed: the rows that a seed adds to the table that `Paper.checks` is given; the same in every process.
    seeds: how many, where the command line does not say. figures: of the whole table, by name.
    """

    of_seed: Callable[[int], pd.DataFrame]
    seeds: int
    figures: Mapping[str, Callable[[pd.DataFrame], Any]]


class Size(NamedTuple):
    """How much of a paper is run: its studies, the shortest first, or a simulation, and how long it takes in words."""

    experiments: Sequence[Experiment]
    time: str
    simulation: Simulation | None = None


class Paper(ABC):
    """A paper and the checks of its claims. Its constructor takes no arguments; its name is that of its entry point.

    Attributes:
        title, citation: of the paper.
        claims: by letter; every check names the letter of its claim.
        sizes: what `--quick`, no option and `--full` run; at least "default".
        headlines: rows of the table in short (`bpgen.papers.side_by_side`): the text of each, and the checks it shows,
            as `Check.text` words them without the matched loss.
        remark: what a reader of the verdicts has to know; stands below them.
        styles: colour, marker and label of conditions; those without one get theirs in the order of the study.
        figures: panels beside the ones of every study (`bpgen.figures.study.PANELS`), or instead of them; one that
            shows sharpness has an attribute `of_sharpness`, which is true.
    """

    title: ClassVar[str]
    citation: ClassVar[str]
    claims: ClassVar[Mapping[str, Claim]]
    sizes: ClassVar[Mapping[SizeName, Size]]
    headlines: ClassVar[Mapping[str, Sequence[str]]] = {}
    remark: ClassVar[str] = ""
    styles: ClassVar[Styles] = {}
    figures: ClassVar[Mapping[str, Panel]] = {}

    @abstractmethod
    def checks(self, table: pd.DataFrame, level: Level = LOWEST_COMMON) -> Iterable[Check]:
        """All checks that the table of a study, or of a simulation, allows, with training losses matched at a level.

        The same checks in the same order at every level.
        """
