"""The suite for tasks: it passes the good ones, and names what is wrong with bad ones."""

from __future__ import annotations

import os

import pytest
import torch

import bpgen.conformance
from bpgen.cli import main
from bpgen.conformance import checks, plan
from bpgen.errors import BpgenError
from bpgen.registry import plugins
from tests.tasks import wrong

FORM = "its splits have the shapes and dtypes of a task"
SIZES = "n_in, n_out and n_steps are those of its data"
LOSS = "its loss and when fit its targets"
SAME = "two of it hold the same data"
# row: the deliberately wrong task, the check that fails first, and what its message says
WRONG = {
    "BatchFirst": (FORM, r"classes must be \[n\] or \[T,n\]"),
    "DoublePrecision": (FORM, "x of train must be float32"),
    "MaskOfTheBatch": (FORM, r"mask of train must be \[T,n\]"),
    "HoldsNaN": ("what counts is finite", "x of train holds 2 nan"),
    "OtherSteps": (SIZES, "5 steps, n_steps is 6"),
    "ClassesFromOne": (SIZES, "class 2, n_out is 2: classes count from 0"),
    "ValuesForClasses": (LOSS, "are for mse, the task says loss = 'cross_entropy'"),
    "SaysEveryStep": (LOSS, "train does not fit"),
    "RewardsMistakes": ("every sequence counts", "numbers >= 0"),
    "AsksNothing": ("every sequence counts", "1 sequences of train have no step"),
    "OneAnswer": ("there is something to tell apart", "every target of train is class 0"),
    "NewInTest": ("there is something to tell apart", "test asks for class 2"),
    "BeyondItsRange": ("inputs lie in the range that perturbed ones are clipped to", "input_range is"),
    "TestsWhatItTrained": ("no sequence of validation or test is one of training", "40 of 40 sequences of val"),
    "DrawsGlobally": (SAME, "global random stream"),
    "NewAtEveryCall": (SAME, "another instance holds other data"),
    "PerturbsInPlace": ("perturbing gives inputs of the same shape and leaves the given ones", "overwrote the inputs"),
    "DropsASequence": ("perturbing gives inputs of the same shape and leaves the given ones", "gives .* from"),
    "NoiseOfItsOwn": ("the perturbation follows its generator", "global random stream"),
    "SeedOfItsOwn": ("the perturbation follows its generator", "another generator gives the same noise"),
    "NoiseOfOneSize": ("without noise nothing is perturbed", "with noise_sd = 0 inputs change"),
    "OptionWithoutType": ("its options come back from a saved run", "size of its constructor has no type"),
    "StreamWithAMemory": ("its stream can go on anywhere", "continued at step 4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_planted_mistake_is_caught_by_the_check_that_names_it(name):
    expected, message = WRONG[name]
    first = next(check for check in plan(getattr(wrong, name)) if check.run().status == "fail")
    assert first.name == expected, first.run().message
    with pytest.raises(AssertionError, match=message):
        first()


def test_every_wrong_task_is_in_the_table_and_every_check_is_failed_by_one():
    planted = {n for n, c in vars(wrong).items() if isinstance(c, type) and c.__module__ == wrong.__name__}
    assert planted - {"Good", "EveryStep"} == set(WRONG)
    assert {check.name for check in plan("delayed_recall")} == {name for name, _ in WRONG.values()}


@pytest.mark.parametrize("task", [wrong.Good, wrong.EveryStep])
def test_good_tasks_of_strangers_pass(task):
    before = torch.get_rng_state()
    assert [(c.name, o.message) for c in plan(task) for o in [c.run()] if o.status == "fail"] == []
    assert torch.equal(torch.get_rng_state(), before)


def _options(name):
    """Options that a task needs, or why it cannot be examined here."""
    if name in ("npz", "spike_events"):
        return {}, "needs a file; examined elsewhere"
    if name == "seqmnist":
        folder = os.environ.get("BPGEN_MNIST")
        return {"data_dir": folder}, "" if folder else "its data would have to be downloaded"
    return {}, ""


def _registered():
    for name in plugins("task"):
        options, missing = _options(name)
        skip = [pytest.mark.skip(reason=missing)] if missing else []
        yield pytest.param(name, options, id=name, marks=skip)


@pytest.mark.parametrize(("name", "options"), list(_registered()))
def test_every_registered_task_conforms(name, options):
    outcomes = {check.name: check.run() for check in checks(f"task:{name}", **options)}
    assert {n: o.message for n, o in outcomes.items() if o.status == "fail"} == {}
    assert sum(o.status == "pass" for o in outcomes.values()) >= 10


@pytest.fixture
def file(tmp_path):
    """Writes a lab's own data."""
    import numpy as np

    def write(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return str(tmp_path / "data.npz")

    return write


def test_own_data_are_held_to_the_contract(file, capsys):
    x = torch.randn(5, 60, 3).numpy()
    good = file(x=x, y=(x[0, :, 0] > 0).astype("int64"))
    assert main(["check", "npz", f"file={good}"]) == 0
    assert "commonest class" in capsys.readouterr().out
    x[:, 30:] = x[:, :30]
    twice = file(x=x, y=(x[0, :, 0] > 0).astype("int64"))
    assert main(["check", "npz", f"file={twice}"]) == 1
    assert "are sequences of train, too" in capsys.readouterr().out


def test_a_report_says_what_chance_is_and_what_no_suite_knows(capsys):
    assert main(["check", "task:copy-memory", "symbols=2", "length=2"]) == 0
    text = capsys.readouterr().out
    assert "it says reuses_training = True" in text
    assert "The gap on clean inputs is not defined: 2 symbols make 4 sequences" in text
    assert "To answer the commonest class always is right for 50.9% of the test targets." in text
    assert "whether the target follows from the inputs" in text


def test_a_task_without_its_data_is_bad_input(tmp_path, capsys):
    assert main(["check", "seqmnist", f"data_dir={tmp_path}"]) == 2
    assert "MNIST" in capsys.readouterr().err
    assert main(["check", "npz"]) == 2
    assert "file" in capsys.readouterr().err
    with pytest.raises(BpgenError, match="Did you mean 'size'"):
        bpgen.conformance.checks(wrong.Good, sze=3)
