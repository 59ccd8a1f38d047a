"""The generalization gap: training against test performance of the same frozen weights.

    gap/loss = L_test - L_train        gap/accuracy = accuracy_train - accuracy_test        (positive is worse)
Both without regulariser, on clean test inputs, and as `gap_noisy` on test inputs perturbed by the task's noise
(Liu et al. 2022). Accuracy is the fraction of (unmasked) outputs that are right: their largest component is the
target's, or, for continuous targets, all components are within the task's tolerance; nan where a task has none, and
where outputs are not finite. What has no validation or test sequences has no such numbers: nan. Nor has a task whose
clean test cannot differ from training a clean gap. Under noise even an ideal observer, who knows how the trials are
made, answers less well: what remains of the noisy gap once its own gap on the same sequences is taken off is
gap_noisy/beyond_ideal, there where a task knows its ideal observer.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bpgen.callbacks.evaluation import Evaluation, Metrics
from bpgen.callbacks.measurement import Measurement
from bpgen.columns import Column
from bpgen.errors import require
from bpgen.problem import Problem
from bpgen.tasks import Split
from bpgen.training.splits import Splits

_CHUNK = 1024  # most sequences run at once,
_NUMBERS = 2**24  # and most numbers T·B·N·(d+K) that a run keeps: bounds of memory that change nothing
_LOSS, _ACCURACY = "nats or ½·error²", "fraction"
_SPLITS = {"train": "training", "val": "validation", "test": "test", "test_noisy": "test, noisy inputs"}


class Performance(NamedTuple):
    """Loss without regulariser, accuracy, and the cost of the activity, on one split."""

    loss: float
    accuracy: float
    activity: float


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
        found = {
            "train": performance(evaluation, evaluation.training(self.train_samples)),
            "val": performance(evaluation, evaluation.subset("val", self.test_samples)),
            "test": performance(evaluation, evaluation.subset("test", self.test_samples)),
            "test_noisy": performance(evaluation, evaluation.noisy(self.test_samples)),
        }
        train, regulariser = found["train"], evaluation.module.loss.regulariser
        row: Metrics = {"train/objective": train.loss + train.activity}
        if regulariser is not None:
            row["train/objective"] += float(regulariser.value(evaluation.network.params()))
        for name, measured in found.items():
            row |= {f"{name}/loss": measured.loss, f"{name}/accuracy": measured.accuracy}
        for gap, other in (("gap", found["test"]), ("gap_noisy", found["test_noisy"])):
            row |= {f"{gap}/loss": other.loss - train.loss, f"{gap}/accuracy": train.accuracy - other.accuracy}
        if evaluation.splits.clean_gap is not True:
            row |= {"gap/loss": math.nan, "gap/accuracy": math.nan}
        ideal = self._ideal(evaluation)
        if ideal is not None:
            row["gap_noisy/beyond_ideal"] = row["gap_noisy/accuracy"] - (ideal[0] - ideal[1])
        return row

    def _ideal(self, evaluation: Evaluation) -> tuple[float, float] | None:
        """The accuracies of the ideal observer on training and on noisy test sequences; None where none is known."""
        splits = evaluation.splits
        noisy = evaluation.noisy(self.test_samples)
        if noisy is None or (splits.continuous and splits.tolerance is None):
            return None
        found = []
        for split, perturbed in ((evaluation.training(self.train_samples), False), (noisy, True)):
            answers = splits.ideal(split, perturbed)
            if answers is None:
                return None
            found.append(_share_right(answers.target, split, splits))
        return found[0], found[1]


@torch.no_grad()
def performance(evaluation: Evaluation, split: Split | None) -> Performance:
    """Of the noise-free network on a split; nan where there is none."""
    if split is None:
        return Performance(math.nan, math.nan, math.nan)
    from torchmetrics import MeanMetric  # slow to import, and not needed by those who read the options
    from torchmetrics.classification import MulticlassAccuracy

    whole, splits = evaluation.problem(split), evaluation.splits
    loss, network, device = evaluation.module.loss, evaluation.network, split.x.device
    # a diverged loss stays nan: torchmetrics' "warn" drops it, and "disable" forgets the weights
    mean_loss, mean_activity = (
        MeanMetric(nan_strategy=float("nan")).to(device).set_dtype(torch.float64) for _ in range(2)
    )
    accuracy = MulticlassAccuracy(2 if splits.continuous else max(2, network.n_out), average="micro").to(device)
    finite = True
    for part, _ in whole.chunks(_sequences(whole)):
        run = part.run()
        mean_loss.update(part.loss.data(run.outputs, part.target).double(), part.batch)
        if loss.activity is not None:
            mean_activity.update(loss.activity.value(run.h).double(), part.batch)
        finite = finite and bool(run.outputs.isfinite().all())
        accuracy.update(*_answers(part, run.outputs, splits.tolerance, splits.continuous))
    defined = finite and (splits.tolerance is not None if splits.continuous else network.n_out > 1)
    return Performance(
        float(mean_loss.compute()),
        float(accuracy.compute()) if defined else math.nan,
        float(mean_activity.compute()) if loss.activity is not None else 0.0,
    )


def _share_right(answers: Tensor, split: Split, splits: Splits) -> float:
    """How many answers are right; both as the loss wants targets."""
    if splits.continuous:
        right = ((answers - split.target).abs() <= (splits.tolerance or 0)).all(-1)
    elif answers.is_floating_point():  # one-hot
        right = answers.argmax(-1) == split.target.argmax(-1)
    else:
        right = answers == split.target
    return float((right if split.mask is None else right[split.mask > 0]).double().mean())


def _sequences(problem: Problem) -> int:
    """How many to run at once."""
    neuron = problem.network.neuron
    each = problem.n_steps * problem.network.n_rec * (neuron.n_states + neuron.n_currents)
    return max(1, min(_CHUNK, _NUMBERS // each))


def _answers(part: Problem, outputs: Tensor, tolerance: float | None, continuous: bool) -> tuple[Tensor, Tensor]:
    """What was answered and what was wanted, as classes; of values, whether they are right, and 1."""
    target, mask = part.target, part.loss.mask
    if continuous:
        predicted = ((outputs - target).abs() <= (tolerance or 0)).all(-1).long()
        wanted = torch.ones_like(predicted)
    else:
        predicted, wanted = outputs.argmax(-1), target.argmax(-1) if part.loss.kind == "mse" else target
    seen = slice(None) if mask is None else mask > 0
    return predicted[seen].flatten(), wanted[seen].flatten()
