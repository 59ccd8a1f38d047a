"""The generalization gap: training against test performance of the same frozen weights.

    gap/loss = L_test - L_train        gap/accuracy = accuracy_train - accuracy_test        (positive is worse)
Both without regulariser, on clean test inputs, and as `gap_noisy` on test inputs perturbed by the task's noise
(Liu et al. 2022). Accuracy is the fraction of (unmasked) outputs that are right: their largest component is the
target's, or, for continuous targets, all components are within the task's tolerance; of several labels at once it is
the fraction of labels whose output has the right sign; nan where a task has none, and
where outputs are not finite. For values there is R² besides, 1 - Σ error²/Σ (target - mean)², of which 0 is to answer
the mean; where training has some class half again as often as another, there is the balanced accuracy, the mean over
classes of the share that is right: chance is one over their number.
What has no validation or test sequences has no such numbers: nan. Nor has a task whose clean test cannot differ from
training a clean gap. Under noise even an ideal observer, who knows how the trials are made, answers less well: what
remains of the noisy gap once its own gap on the same sequences is taken off is gap_noisy/beyond_ideal, there where a
task knows its ideal observer.
The noisy gap is the sum of two that are not the same thing: gap_robustness, what noise costs on the very sequences of
training, and gap_generalization, from noisy training to noisy test sequences.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from bpgen.callbacks.evaluation import Evaluation, Metrics
from bpgen.callbacks.measurement import Measurement
from bpgen.callbacks.performance import Performance, confusion, performance, share_right
from bpgen.columns import Column
from bpgen.errors import require
from bpgen.tasks import Split

_MOST = 300  # classes of which there is a table of confusions: one of more is no reading matter
_LOSS, _ACCURACY = "nats or ½·error²", "fraction"
_SPLITS = {"train": "training", "val": "validation", "test": "test", "test_noisy": "test, noisy inputs"}


def _optional(split: str, name: str, label: str, unit: str, shown: str) -> Column:
    """A column of one split, there where it says something."""
    brief = f"val {label}" if split == "val" else ""
    shown = "" if split == "val" else shown
    return Column(f"{split}/{name}", f"{label}, {_SPLITS[split]}", unit, "", shown, brief=brief, optional=True)


class GeneralizationGap(Measurement):
    """Loss and accuracy on training, validation, test and noisy test data, and the gaps between them.

    Args:
        train_samples: size of the fixed random subset of the training data; null takes all.
        test_samples: the same for validation and test data.
    """

    name = "gap"
    columns = (
        Column("train/objective", "training loss with its regularisers", _LOSS),
        Column("train/loss", "training loss", _LOSS, "loss", "{:.4g}", brief="loss"),
        Column("train/accuracy", "training accuracy", _ACCURACY, "performance", "{:.1%}"),
        Column("val/loss", "validation loss", _LOSS, "loss"),
        Column("val/accuracy", "validation accuracy", _ACCURACY, "performance", brief="val accuracy"),
        Column("test/loss", "test loss", _LOSS, "loss", "{:.4g}", "test/accuracy"),
        Column("test/accuracy", "test accuracy", _ACCURACY, "performance", "{:.1%}"),
        Column("test_noisy/loss", "test loss, noisy inputs", _LOSS, "loss", "{:.4g}", "test_noisy/accuracy"),
        Column("test_noisy/accuracy", "test accuracy, noisy inputs", _ACCURACY, "performance", "{:.1%}"),
        Column("gap/loss", "gap (test - train loss)", _LOSS, "gap", "{:+.3g}", "gap/accuracy"),
        Column("gap/accuracy", "gap (train - test accuracy)", _ACCURACY, "gap", "{:+.1%}"),
        Column("gap_noisy/loss", "gap in loss, noisy inputs", _LOSS, "gap", "{:+.3g}", "gap_noisy/accuracy"),
        Column("gap_noisy/accuracy", "gap, noisy inputs", _ACCURACY, "gap", "{:+.1%}"),
        Column(
            "gap_noisy/beyond_ideal",
            "gap, noisy inputs, beyond an ideal observer's",
            _ACCURACY,
            "",
            "{:+.1%}",
            optional=True,
        ),
        *(
            Column(f"gap_{part}/{of}", f"{label}, {of}", unit, optional=True)
            for part, label in (
                ("robustness", "noisy against clean training"),
                ("generalization", "noisy test against training"),
            )
            for of, unit in (("loss", _LOSS), ("accuracy", _ACCURACY))
        ),
        *(_optional(split, "balanced_accuracy", "balanced accuracy", "fraction", "{:.1%}") for split in _SPLITS),
        *(_optional(split, "r2", "R²", "1", "{:.3f}") for split in _SPLITS),
    )

    def __init__(self, train_samples: int | None = 5000, test_samples: int | None = None) -> None:
        for option, n in (("train_samples", train_samples), ("test_samples", test_samples)):
            require(
                n is None or n >= 1, f"gap.{option} must be a positive number of samples, or null for all, got {n}."
            )
        self.train_samples, self.test_samples = train_samples, test_samples

    def describe(self, evaluation: Evaluation) -> str:
        """Which subsets."""
        splits = evaluation.splits
        parts = [splits.described("train", self.train_samples)]
        parts += [splits.described(name, self.test_samples) for name in ("val", "test")]
        noise = splits.noise_sd
        said = [f"gap: {', '.join(parts)} samples"] + ([] if noise is None else [f"test noise sd {noise:g}"])
        if splits.clean_gap is not True:
            said.append(f"clean gap not defined: {splits.clean_gap}")
        ideal = self._ideal(evaluation)
        if ideal is not None:
            said.append(f"an ideal observer is right on {ideal[0]:.1%} of training, {ideal[1]:.1%} of the noisy test")
        return "; ".join(said)

    def measure(self, evaluation: Evaluation) -> Metrics:
        """Twelve numbers and the objective; see the module's docstring."""
        found = {name: performance(evaluation, split) for name, split in self._sequences(evaluation).items()}
        train, regulariser = found["train"], evaluation.module.loss.regulariser
        row: Metrics = {"train/objective": train.loss + train.activity}
        if regulariser is not None:
            row["train/objective"] += float(regulariser.value(evaluation.network.params()))
        for name, measured in found.items():
            row |= {f"{name}/loss": measured.loss, f"{name}/accuracy": measured.accuracy}
            if train.uneven and not math.isnan(measured.balanced):
                row[f"{name}/balanced_accuracy"] = measured.balanced
            if not math.isnan(measured.r2):
                row[f"{name}/r2"] = measured.r2
        for gap, other in (("gap", found["test"]), ("gap_noisy", found["test_noisy"])):
            row |= {f"{gap}/loss": other.loss - train.loss, f"{gap}/accuracy": train.accuracy - other.accuracy}
        if evaluation.splits.clean_gap is not True:
            row |= {"gap/loss": math.nan, "gap/accuracy": math.nan}
        row |= self._parts(evaluation, train, found["test_noisy"])
        ideal = self._ideal(evaluation)
        if ideal is not None:
            row["gap_noisy/beyond_ideal"] = row["gap_noisy/accuracy"] - (ideal[0] - ideal[1])
        return row

    def about(self, evaluation: Evaluation) -> dict[str, Any]:
        """Of how many sequences of each split the numbers are means, and the chance level (`Splits.chance`)."""
        found = self._sequences(evaluation).items()
        sizes = {name: split.size for name, split in found if split is not None}
        return {"sequences": sizes, "chance": evaluation.splits.chance}

    def tables(self, evaluation: Evaluation) -> dict[str, Any]:
        """How often each class of the test, with and without noise, was answered as each: split, target, answer, n."""
        from pandas import DataFrame

        rows = []
        for name, split in self._sequences(evaluation).items():
            if split is None or not name.startswith("test") or evaluation.network.n_out > _MOST:
                continue
            counts = confusion(evaluation, split)
            if counts is not None:
                pairs = itertools.product(range(len(counts)), repeat=2)
                rows += [(name, target, answer, int(counts[target, answer])) for target, answer in pairs]
        return {"confusion": DataFrame(rows, columns=["split", "target", "answer", "n"])} if rows else {}

    def _sequences(self, evaluation: Evaluation) -> dict[str, Split | None]:
        """What it measures on."""
        return {
            "train": evaluation.training(self.train_samples),
            "val": evaluation.subset("val", self.test_samples),
            "test": evaluation.subset("test", self.test_samples),
            "test_noisy": evaluation.noisy("test", self.test_samples),
        }

    def _parts(self, evaluation: Evaluation, train: Performance, test_noisy: Performance) -> Metrics:
        """The noisy gap taken apart; nothing where there is no noise."""
        noisy = evaluation.noisy("train", self.train_samples)
        if noisy is None:
            return {}
        own = performance(evaluation, noisy)
        return {
            "gap_robustness/loss": own.loss - train.loss,
            "gap_robustness/accuracy": train.accuracy - own.accuracy,
            "gap_generalization/loss": test_noisy.loss - own.loss,
            "gap_generalization/accuracy": own.accuracy - test_noisy.accuracy,
        }

    def _ideal(self, evaluation: Evaluation) -> tuple[float, float] | None:
        """The accuracies of the ideal observer on training and on noisy test sequences; None where none is known."""
        splits = evaluation.splits
        noisy = evaluation.noisy("test", self.test_samples)
        if noisy is None or (splits.continuous and splits.tolerance is None):
            return None
        found = []
        for split, perturbed in ((evaluation.training(self.train_samples), False), (noisy, True)):
            answers = splits.ideal(split, perturbed)
            if answers is None:
                return None
            found.append(share_right(answers.target, split, splits))
        return found[0], found[1]
