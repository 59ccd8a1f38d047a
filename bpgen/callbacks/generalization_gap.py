"""The generalization gap: training against test performance of the same frozen weights.

    gap/loss = L_test - L_train        gap/accuracy = accuracy_train - accuracy_test        (positive is worse)
Both without regulariser, on clean test inputs, and as `gap_noisy` on test inputs perturbed by the task's noise
(Liu et al. 2022). Accuracy is the fraction of (unmasked) outputs that are right: their largest component is the
target's, or, for continuous targets, all components are within the task's tolerance; nan where a task has none.
"""

from __future__ import annotations

import torch
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from bpgen.callbacks.measurement import Measurement, Moment
from bpgen.errors import require
from bpgen.streams import generator
from bpgen.tasks import Split, Task
from bpgen.training.module import RuleTraining

_CHUNK = 1024  # sequences run at once: bounds memory, changes nothing


class GeneralizationGap(Measurement):
    """Loss and accuracy on training, validation, test and noisy test data, and the gaps between them.

    Args:
        train_samples: size of the fixed random subset of the training data; null takes all.
        test_samples: the same for validation and test data.
    """

    name = "gap"

    def __init__(self, train_samples: int | None = 5000, test_samples: int | None = None) -> None:
        super().__init__()
        for option, n in (("train_samples", train_samples), ("test_samples", test_samples)):
            require(
                n is None or n >= 1, f"gap.{option} must be a positive number of samples, or null for all, got {n}."
            )
        self.train_samples, self.test_samples = train_samples, test_samples
        self._noisy: Split | None = None

    def describe(self, task: Task) -> str:
        """Which subsets."""
        sizes = {
            "train": self.train_samples,
            "val": self.test_samples,
            "test": self.test_samples,
        }
        parts = []
        for name, n in sizes.items():
            whole = task.split(name).size  # type: ignore[arg-type]
            parts.append(f"{min(n or whole, whole)} of {whole} {name}")
        return f"gap: {', '.join(parts)} samples; test noise sd {task.noise_sd:g}"

    def measure(self, moment: Moment) -> dict[str, float | int]:
        """Twelve numbers; see the module's docstring."""
        module = moment.module
        test = self.subset(moment, "test", self.test_samples)
        if self._noisy is None:
            noise = generator(module.seed, "test noise")
            self._noisy = test._replace(x=moment.task.perturb(test.x.cpu(), noise).to(test.x.device))
        subsets = {
            "train": self.subset(moment, "train", self.train_samples),
            "val": self.subset(moment, "val", self.test_samples),
            "test": test,
            "test_noisy": self._noisy,
        }
        row: dict[str, float | int] = {}
        for name, split in subsets.items():
            row[f"{name}/loss"], row[f"{name}/accuracy"], activity = evaluate(module, split, moment.task)
            if name == "train":
                row["train/objective"] = row["train/loss"] + activity
        if module.loss.regulariser is not None:
            row["train/objective"] += float(module.loss.regulariser.value(module.network.params()))
        for gap, against in (("gap", "test"), ("gap_noisy", "test_noisy")):
            row[f"{gap}/loss"] = row[f"{against}/loss"] - row["train/loss"]
            row[f"{gap}/accuracy"] = row["train/accuracy"] - row[f"{against}/accuracy"]
        return row


@torch.no_grad()
def evaluate(module: RuleTraining, split: Split, task: Task) -> tuple[float, float, float]:
    """Loss without regulariser, accuracy, and the activity's regulariser, of the noise-free network on a split."""
    network, loss, params = module.network, module.loss, module.network.params()
    device = network.W_rec.device
    continuous = task.split("train").target.is_floating_point()
    # a diverged loss stays nan: torchmetrics' "warn" drops it, and "disable" forgets the weights
    mean_loss, mean_activity = (
        MeanMetric(nan_strategy=float("nan")).to(device).set_dtype(torch.float64) for _ in range(2)
    )
    accuracy = MulticlassAccuracy(2 if continuous else max(2, network.n_out), average="micro").to(device)
    for index in torch.arange(split.size, device=device).split(_CHUNK):
        x, target, mask = split.take(index)
        run = network.run(params, x, when=loss.when)
        outputs = run.outputs
        if loss.activity is not None:
            mean_activity.update(loss.activity.value(run.h).double(), len(index))
        mean_loss.update(loss.with_mask(mask).data(outputs, target).double(), len(index))
        if continuous:
            predicted = ((outputs - target).abs() <= (task.tolerance or 0)).all(-1).long()
            wanted = torch.ones_like(predicted)
        else:
            predicted, wanted = outputs.argmax(-1), target.argmax(-1) if loss.kind == "mse" else target
        seen = slice(None) if mask is None else mask > 0
        accuracy.update(predicted[seen].flatten(), wanted[seen].flatten())
    defined = task.tolerance is not None if continuous else network.n_out > 1
    return (
        float(mean_loss.compute()),
        float(accuracy.compute()) if defined else float("nan"),
        float(mean_activity.compute()) if loss.activity is not None else 0.0,
    )
