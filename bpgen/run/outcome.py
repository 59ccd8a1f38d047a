"""What the end of a run adds to its rows: of how many sequences they speak, the chance level, and which classes its
last network confuses."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pandas as pd

from bpgen import durable
from bpgen.callbacks.evaluation import Evaluation
from bpgen.callbacks.generalization_gap import GeneralizationGap
from bpgen.callbacks.performance import confusion
from bpgen.figures.confusion import confusion_figure
from bpgen.figures.run import About, run_figures
from bpgen.run.experiment import Experiment
from bpgen.run.folder import RunFolder
from bpgen.tasks import Split
from bpgen.tasks.chance import chance_level

CONFUSION = "confusion.csv"
_MOST = 300  # classes: a table of more is no reading matter


def write_outcome(experiment: Experiment, folder: RunFolder, summary: dict[str, Any], draw: bool) -> None:
    """Complete the folder of a run that has ended: its summary, the classes that it confuses, and its figures.

    Args:
        experiment: as training left it.
        folder: the run's.
        summary: what there is to say besides.
        draw: whether there shall be figures.
    """
    known = facts(experiment)
    folder.write_summary({**summary, **known})
    confused = confusions(experiment) if summary["status"] == "finished" else pd.DataFrame()
    if len(confused):
        durable.write(folder.path / CONFUSION, confused.to_csv(index=False))
    if not draw or not folder.metrics_file.exists():
        return
    title, block = experiment.config.title, experiment.config.measurements.get("sharpness", {}).get("block", "W_rec")
    about = About(known["sequences"], known["chance"], block)
    figures = run_figures(pd.read_csv(folder.metrics_file), title, experiment.clock.columns, about)
    if len(confused):
        figures["confusion"] = confusion_figure(confused, title)
    folder.write_figures(figures)


def facts(experiment: Experiment) -> dict[str, Any]:
    """Sequences of each split that are measured on, and the accuracy of answering the commonest class always.

    Both are what `bpgen.figures.run.About` wants; nothing of them changes along a run.
    """
    evaluation = experiment.start
    found = {"train": evaluation.training(_gap(experiment).train_samples), **_tested(experiment, evaluation)}
    classes = not evaluation.splits.continuous or experiment.module.loss.kind == "binary_cross_entropy"
    task = experiment.data.task
    asked = task.split("test" if task.has("test") else "train")
    level = chance_level(task.loss, task.split("train"), asked) if classes else math.nan
    return {"sequences": {name: split.size for name, split in found.items()}, "chance": level}


def confusions(experiment: Experiment) -> pd.DataFrame:
    """How often the last network answered each class of the test with each class: columns split, target, answer, n.

    Test sequences as they are, and with the noise of the test. Empty where answers are no classes or none are tested.
    """
    evaluation, rows = experiment.start, []
    if experiment.module.network.n_out <= _MOST:
        for name, split in _tested(experiment, evaluation).items():
            counts = confusion(evaluation, split) if name.startswith("test") else None
            if counts is not None:
                pairs = itertools.product(range(len(counts)), repeat=2)
                rows += [(name, target, answer, int(counts[target, answer])) for target, answer in pairs]
    return pd.DataFrame(rows, columns=["split", "target", "answer", "n"])


def _tested(experiment: Experiment, evaluation: Evaluation) -> dict[str, Split]:
    """Validation and test sequences as the gap is measured on them."""
    n = _gap(experiment).test_samples
    found = {"val": evaluation.subset("val", n), "test": evaluation.subset("test", n)}
    found["test_noisy"] = evaluation.noisy("test", n)
    return {name: split for name, split in found.items() if split is not None}


def _gap(experiment: Experiment) -> GeneralizationGap:
    """The measurement of the run that tests it."""
    return next(m for m in experiment.measurements if isinstance(m, GeneralizationGap))
