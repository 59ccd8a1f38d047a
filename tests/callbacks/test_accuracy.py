"""Accuracy of tasks with continuous targets: within the task's tolerance in every output, or not defined."""

import math

import pytest
import torch

import bpgen
from bpgen.callbacks import Evaluation
from bpgen.callbacks.performance import performance
from bpgen.losses import Loss
from bpgen.registry import find
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
