"""A good task as a stranger writes it, and deliberately wrong ones, each with one mistake."""

from __future__ import annotations

import torch

from bpgen.streams import generator
from bpgen.tasks import Split, Task
from bpgen.tasks.base import SPLITS


class Good(Task):
    """Which of two inputs was larger on average; one class a sequence."""

    n_in, n_out, n_steps = 2, 2, 6
    input_range = (-float("inf"), float("inf"))

    def __init__(self, noise_sd: float = 0.2, size: int = 40) -> None:
        super().__init__(noise_sd)
        self.size = size

    def load(self):
        return {name: self.trials(generator(0, f"good {name}")) for name in SPLITS}

    def trials(self, random):
        x = torch.randn(self.n_steps, self.size, 2, generator=random)
        return Split(x, (x[..., 1].mean(0) > x[..., 0].mean(0)).long())


class EveryStep(Good):
    """The same, asked at all steps but the first."""

    when = "all"

    def trials(self, random):
        x, target = super().trials(random)[:2]
        mask = torch.ones(self.n_steps, self.size)
        mask[0] = 0
        return Split(x, target.expand(self.n_steps, -1), mask)

    def stream(self, batch, seed, start=0):
        t = start
        while True:
            x = torch.randn(batch, 2, generator=generator(seed, "stream", t))
            yield x, (x[:, 1] > x[:, 0]).long(), torch.ones(batch)
            t += 1


class BatchFirst(Good):
    def trials(self, random):
        x, target, mask = super().trials(random)
        return Split(x, target.unsqueeze(1), mask)


class DoublePrecision(Good):
    def trials(self, random):
        return super().trials(random)._replace(x=torch.ones(6, 40, 2, dtype=torch.float64))


class MaskOfTheBatch(EveryStep):
    def trials(self, random):
        split = super().trials(random)
        return split._replace(mask=split.mask[0])


class HoldsNaN(EveryStep):
    """It may under the mask of the first step, and does not only there."""

    def trials(self, random):
        split = super().trials(random)
        split.x[:2, 0] = float("nan")
        return split


class OtherSteps(Good):
    n_steps = 6

    def trials(self, random):
        split = super().trials(random)
        return split._replace(x=split.x[1:])


class ClassesFromOne(Good):
    def trials(self, random):
        split = super().trials(random)
        return split._replace(target=split.target + 1)


class ValuesForClasses(Good):
    def trials(self, random):
        split = super().trials(random)
        return split._replace(target=torch.nn.functional.one_hot(split.target, 2).float())


class SaysEveryStep(Good):
    when = "all"


class RewardsMistakes(EveryStep):
    def trials(self, random):
        split = super().trials(random)
        return split._replace(mask=split.mask - 0.5)


class AsksNothing(EveryStep):
    def trials(self, random):
        split = super().trials(random)
        return split._replace(mask=split.mask * (torch.arange(self.size) > 0))


class OneAnswer(Good):
    def trials(self, random):
        split = super().trials(random)
        return split._replace(target=0 * split.target)


class NewInTest(Good):
    n_out = 3

    def load(self):
        splits = super().load()
        splits["test"].target[0] = 2
        return splits


class BeyondItsRange(Good):
    input_range = (0.0, 1.0)


class TestsWhatItTrained(Good):
    def load(self):
        return {name: self.trials(generator(0, "good")) for name in SPLITS}


class DrawsGlobally(Good):
    def trials(self, random):
        return super().trials(torch.Generator().manual_seed(int(torch.randint(1000, ()))))


class NewAtEveryCall(Good):
    calls = 0

    def load(self):
        type(self).calls += 1
        return {name: self.trials(generator(self.calls, f"good {name}")) for name in SPLITS}


class PerturbsInPlace(Good):
    def perturb(self, x, generator):
        return x.add_(self.noise_sd * torch.randn(x.shape, generator=generator))


class DropsASequence(Good):
    def perturb(self, x, generator):
        return super().perturb(x, generator)[:, 1:]


class NoiseOfItsOwn(Good):
    def perturb(self, x, generator):
        return x + self.noise_sd * torch.randn_like(x)


class SeedOfItsOwn(Good):
    def perturb(self, x, generator):
        return super().perturb(x, torch.Generator().manual_seed(0))


class NoiseOfOneSize(Good):
    def perturb(self, x, generator):
        return x + 0.2 * torch.randn(x.shape, generator=generator)


class OptionWithoutType(Good):
    def __init__(self, noise_sd: float = 0.2, size=40) -> None:
        super().__init__(noise_sd, size)


class StreamWithAMemory(EveryStep):
    """It starts anew, wherever it is told to go on."""

    def stream(self, batch, seed, start=0):
        return super().stream(batch, seed)
