"""Accuracy of tasks with continuous targets: within the task's tolerance in every output, or not defined."""

import math

import pytest
import torch

import bpgen
from bpgen.callbacks import Evaluation, GeneralizationGap
from bpgen.callbacks.performance import performance
from bpgen.losses import Loss
from bpgen.registry import find
from bpgen.streams import generator
from bpgen.tasks import Split, Task
from bpgen.tasks.base import SPLITS
from bpgen.training.module import RuleTraining
from bpgen.training.splits import TaskSplits


def always(answer, task):
    """A network that gives the same answer whatever it sees, and the accuracy it is said to have."""
    network = bpgen.Network(bpgen.neurons.Leaky(0.5), task.n_in, 4, task.n_out)
    with torch.no_grad():
        network.W_out.zero_()
        network.b_out.fill_(answer)
    module = RuleTraining(network, bpgen.load_rule("bptt"), Loss("mse", task.when))
    evaluation = Evaluation(module, TaskSplits(task, module.loss))
    split = evaluation.subset("test", None)
    return split.target, performance(evaluation, split).accuracy


@pytest.mark.parametrize("answer", [1.0, 0.7])
def test_one_output_at_the_end(answer):
    target, accuracy = always(answer, find("task", "adding").load()())
    right = [abs(float(y) - answer) <= 0.04 for y in target]
    assert 0 < sum(right) < len(right)
    assert accuracy == pytest.approx(sum(right) / len(right))


def test_all_outputs_have_to_be_right_at_a_step():
    target, accuracy = always(1.0, find("task", "flip_flop").load()(n_test=50))
    right = [all(float(y) == 1 for y in step) for step in target.flatten(0, 1)]
    assert 0 < sum(right) < len(right)
    assert accuracy == pytest.approx(sum(right) / len(right))


def test_without_a_tolerance_there_is_none():
    assert math.isnan(always(0.0, find("task", "pattern_generation").load()())[1])


# What stands for it with values, or with uneven classes: against scikit-learn


metrics = pytest.importorskip("sklearn.metrics")


class Data(Task):
    """Sequences of uneven classes or of values, at the last step or at every one, with or without weights."""

    n_in, n_steps = 3, 5

    def __init__(self, values=False, timed=False, weighted=False, even=False):
        super().__init__()
        self.values, self.timed, self.weighted, self.even = values, timed, weighted, even
        self.n_out = 2 if values else 4
        self.loss, self.when = ("mse" if values else "cross_entropy"), ("all" if timed else "last")

    def load(self):
        return {name: self.drawn(generator(0, name)) for name in SPLITS}

    def drawn(self, random):
        steps = (5, 60) if self.timed else (60,)
        if self.values:
            target = torch.randn(*steps, 2, generator=random) * torch.tensor([1.0, 3.0]) + 5
        else:
            share = torch.tensor([0.25, 0.25, 0.25, 0.25] if self.even else [0.6, 0.25, 0.1, 0.05])
            whole = (share * 60).round().long()
            target = torch.arange(4).repeat_interleave(whole).expand(steps).contiguous()
        mask = torch.rand(5, 60, generator=random).round() if self.weighted else None
        return Split(torch.randn(5, 60, 3, generator=random), target, mask)


def measured(task):
    network = bpgen.Network(bpgen.neurons.Leaky(0.5), 3, 8, task.n_out, bias="both", seed=2)
    module = RuleTraining(network, bpgen.load_rule("bptt"), Loss(task.loss, task.when))
    row = GeneralizationGap().measure(Evaluation(module, TaskSplits(task, module.loss)))
    split = task.split("test")
    mask = torch.ones(5, 60) if split.mask is None else split.mask
    with torch.no_grad():
        outputs = network(split.x, when=task.when) if task.timed else network(split.x)
    seen = mask > 0 if task.timed else slice(None)
    return row, outputs[seen], split.target[seen]


@pytest.mark.parametrize(("timed", "weighted"), [(False, False), (True, False), (True, True)])
def test_values_have_an_r2(timed, weighted):
    row, outputs, target = measured(Data(True, timed, weighted))
    outputs, target = (t.flatten(0, -2).numpy() for t in (outputs, target))
    expected = metrics.r2_score(target, outputs, multioutput="variance_weighted")
    assert row["test/r2"] == pytest.approx(expected, abs=1e-5)
    assert expected < 0  # nothing was learned
    assert not any("balanced" in name for name in row)


@pytest.mark.parametrize(("timed", "weighted"), [(False, False), (True, False), (True, True)])
def test_uneven_classes_have_a_balanced_accuracy(timed, weighted):
    row, outputs, target = measured(Data(False, timed, weighted))
    predicted = outputs.argmax(-1).flatten()
    expected = metrics.balanced_accuracy_score(target.flatten(), predicted)
    assert row["test/balanced_accuracy"] == pytest.approx(expected)
    assert row["test/accuracy"] != pytest.approx(expected, abs=0.01)
    assert not any("r2" in name for name in row)


def test_even_classes_have_none():
    row, _, _ = measured(Data(even=True))
    assert not any("balanced" in name or "r2" in name for name in row)
