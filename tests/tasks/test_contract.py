"""Where a task hands over a split it is held to the contract: converted, or refused by the names of task and split."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.registry import find, plugins
from bpgen.tasks import Split, Task
from bpgen.tasks.base import SPLITS
from bpgen.tasks.contract import repeated

T, N, I, O = 5, 4, 3, 2
RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(T, N, I, generator=RANDOM)
LAST, ALL = torch.tensor([0, 1, 1, 0]), torch.randint(0, O, (T, N), generator=RANDOM)
VALUES, WEIGHTS = torch.randn(T, N, O, generator=RANDOM), torch.rand(T, N, generator=RANDOM) + 0.1
END = slice(3, None), 0  # of the first sequence
PADDED = WEIGHTS.clone()
PADDED[END] = 0


class Given(Task):
    """A task that hands over what it was given, as its test split."""

    n_in, n_out, n_steps = I, O, T

    def __init__(self, *split, **facts):
        super().__init__()
        self.given = split
        for name, value in facts.items():
            setattr(self, name, value)

    def load(self):
        return {"train": Split(X, LAST), "test": self.given if len(self.given) != 1 else self.given[0]}


def put(values, at, value):
    values = values.clone()
    values[at] = value
    return values


# What is converted, and what comes of it: x, target, mask
SAME = Split(X, LAST, None)
CONVERTED = {
    "a tuple": ((X, LAST), SAME),
    "a tuple with a mask": ((X, LAST, None), SAME),
    "float64": ((X.double(), LAST), SAME),
    "float16": ((X.half(), LAST), Split(X.half().float(), LAST)),
    "bfloat16": ((X.bfloat16(), LAST), Split(X.bfloat16().float(), LAST)),
    "int8 inputs": (((X > 0).to(torch.int8), LAST), Split((X > 0).float(), LAST)),
    "boolean inputs": ((X > 0, LAST), Split((X > 0).float(), LAST)),
    "numpy": ((X.numpy(), LAST.numpy()), SAME),
    "numpy float64 with a mask": (
        (X.double().numpy(), ALL.numpy(), WEIGHTS.double().numpy()),
        Split(X, ALL, WEIGHTS),
    ),
    "numpy with negative strides": ((X.flip(0).numpy()[::-1], LAST), SAME),
    "numpy in big-endian order": ((X.numpy().astype(">f4"), LAST.numpy().astype(">i8")), SAME),
    "numpy that may not be written": (
        (np.broadcast_to(X[:, :1], X.shape), LAST),
        Split(X[:, :1].expand(X.shape), LAST),
    ),
    "lists": ((X.tolist(), LAST.tolist()), SAME),
    "lists of arrays": ((list(X.numpy()), [np.int8(k) for k in LAST]), SAME),
    "lists of tensors": ((list(X), list(LAST)), SAME),
    "int32 classes": ((X, LAST.int()), SAME),
    "uint8 classes": ((X, LAST.byte()), SAME),
    "boolean classes": ((X, LAST.bool()), SAME),
    "float64 values": ((X, VALUES.double()), Split(X, VALUES)),
    "values at the end": ((X, VALUES[-1]), Split(X, VALUES[-1])),
    "a boolean mask": ((X, ALL, WEIGHTS > 0.5), Split(X, ALL, (WEIGHTS > 0.5).float())),
    "an integer mask": ((X, ALL, (WEIGHTS > 0.5).int()), Split(X, ALL, (WEIGHTS > 0.5).float())),
    "inputs that need a gradient": ((X.clone().requires_grad_(), LAST), SAME),
    "NaN inputs as padding": ((put(X, END, math.nan), ALL, PADDED), Split(put(X, END, 0), ALL, PADDED)),
    "NaN values as padding": (
        (X, put(VALUES, END, math.nan), PADDED),
        Split(X, put(VALUES, END, 0), PADDED),
    ),
    "class -1 as padding": ((X, put(ALL, END, -1), PADDED), Split(X, put(ALL, END, 0), PADDED)),
    "class -100 as padding": ((X, put(ALL, (3, 0), -100), PADDED), Split(X, put(ALL, (3, 0), 0), PADDED)),
}  # fmt: skip


@pytest.mark.parametrize("case", CONVERTED)
def test_what_torch_takes_is_converted(case):
    given, expected = CONVERTED[case]
    kept = [value.clone() if isinstance(value, torch.Tensor) else value for value in given]
    found = Given(*given).split("test")
    assert isinstance(found, Split)
    for name, value, want in zip(Split._fields, found, expected, strict=True):
        assert (value is None) == (want is None), name
        if want is not None:
            assert value.dtype == want.dtype, name
            torch.testing.assert_close(value, want, rtol=0, atol=0)
            assert not value.requires_grad
    for value, before in zip(given, kept, strict=True):  # what was handed over is left as it was
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, before, rtol=0, atol=0, equal_nan=True)


def test_what_fits_is_handed_on_itself():
    split = Split(X, ALL, WEIGHTS)
    assert Given(split).split("test") is split


@pytest.mark.parametrize("name", [n for n in plugins("task") if n not in ("npz", "seqmnist", "spike_events")])
def test_no_built_in_task_has_anything_to_convert(name):
    task = find("task", name).load()()
    raw = task.load()
    for split in SPLITS:
        assert all(a is b or torch.equal(a, b) for a, b in zip(task.split(split), raw[split], strict=True))
        assert task.split(split).x.data_ptr() == task._found[split].x.data_ptr()  # no copy of the data


X_SHAPE, FINITE = r"x must be \[T,n,I\], time first, with I = n_in = 3", "nan or infinite"
REFUSED = {
    "no split": ((None,), "must be a Split"),
    "a dictionary": (({"x": X},), "must be a Split"),
    "four parts": ((X, LAST, None, None), "must be a Split"),
    "x missing": ((None, LAST), "x must be"),
    "two axes": ((X[0], LAST), X_SHAPE),
    "four axes": ((X.unsqueeze(0), LAST), X_SHAPE),
    "too few inputs": ((X[..., :2], LAST), X_SHAPE),
    "no sequence": ((X[:, :0], LAST[:0]), "holds no sequence"),
    "no step": ((X[:0], LAST), "holds no step"),
    "text": ((X.numpy().astype(str), LAST), "x must be numbers"),
    "objects": ((np.array([[["a"]]], dtype=object), LAST), "x must be numbers"),
    "dates": ((X.numpy().astype("datetime64[s]"), LAST), "x must be numbers"),
    "ragged lists": (([[[1.0, 2.0, 3.0]], [[1.0]]], LAST), "x must be numbers"),
    "complex inputs": ((X.to(torch.complex64), LAST), "real numbers"),
    "complex numpy": ((X.numpy().astype(complex), LAST), "real numbers"),
    "sparse inputs": ((X.to_sparse(), LAST), "sparse tensor"),
    "beyond float32": ((put(X.double(), 0, 1e300), LAST), "x holds numbers beyond float32"),
    "NaN": ((put(X, (0, 0, 0), math.nan), LAST), r"x holds 1 nan or infinite values, the first at \[0, 0, 0\]"),
    "infinite": ((put(X, 0, math.inf), LAST), FINITE),
    "minus infinity": ((put(X, 0, -math.inf), LAST), FINITE),
    "NaN where steps count": ((put(X, (2, 0), math.nan), ALL, PADDED), r"x holds 3 nan .* the first at \[2, 0, 0\]"),
    "infinite padding": ((put(X, (3, 0), math.inf), ALL, PADDED), FINITE),
    "NaN values": ((X, put(VALUES, 0, math.nan)), f"target holds 8 {FINITE}"),
    "NaN values at the end": ((X, put(VALUES[-1], 0, math.nan)), FINITE),
    "infinite values": ((X, put(VALUES, 0, math.inf)), FINITE),
    "class too large": ((X, put(LAST, 0, 2)), r"classes must be 0\.\.1 for n_out = 2, got 2"),
    "class below 0": ((X, put(LAST, 0, -1)), r"classes must be 0\.\.1 for n_out = 2, got -1"),
    "class too large where steps count": ((X, put(ALL, (0, 0), 7), PADDED), "got 7"),
    "too few classes": ((X, LAST[:-1]), r"classes must be \[n\] or \[T,n\]"),
    "classes by batch and time": ((X, ALL.T), r"classes must be \[n\] or \[T,n\]"),
    "one-hot integers": ((X, torch.eye(2, dtype=torch.long)[LAST]), r"Values are floating-point numbers"),
    "other values": ((X, VALUES[..., :1]), r"values must be \[n,O\] or \[T,n,O\]"),
    "classes as floats": ((X, LAST.float()), "Classes are whole numbers"),
    "target missing": ((X, None), "the target must be"),
    "complex values": ((X, VALUES.to(torch.complex64)), "real numbers"),
    "mask by batch and time": ((X, ALL, WEIGHTS.T), r"mask must be \[T,n\]"),
    "mask of the steps": ((X, ALL, WEIGHTS[:, 0]), r"mask must be \[T,n\]"),
    "mask below 0": ((X, ALL, -WEIGHTS), "finite numbers >= 0"),
    "mask NaN": ((X, ALL, put(WEIGHTS, (0, 0), math.nan)), "finite numbers >= 0"),
    "mask infinite": ((X, ALL, put(WEIGHTS, (0, 0), math.inf)), "finite numbers >= 0"),
    "mask zero": ((X, ALL, 0 * WEIGHTS), "no step counts"),
    "mask complex": ((X, ALL, WEIGHTS.to(torch.complex64)), "real numbers"),
    "mask of text": ((X, ALL, WEIGHTS.numpy().astype(str)), "mask must be numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_its_name(case):
    given, message = REFUSED[case]
    with pytest.raises(BpgenError, match=message) as caught:
        Given(*given).split("test")
    assert str(caught.value).startswith("task Given, split test: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("fact", "value"), [("n_in", 0), ("n_in", 2.5), ("n_in", None), ("n_out", -1), ("n_out", "2")])
def test_a_task_says_its_sizes(fact, value):
    with pytest.raises(BpgenError, match=f"must say its {fact}, got {value!r}"):
        Given(X, LAST, **{fact: value}).split("test")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "splits by their names .* got NoneType"),
        ([], "got list"),
        ({"training": 1}, "got 'training'"),
        ({}, "no split train: nothing can be learned. It has nothing"),
        ({"val": Split(X, LAST)}, "no split train"),
    ],
)
def test_what_load_returns_are_splits_by_their_names(found, message):
    task = Given()
    task.load = lambda: found
    with pytest.raises(BpgenError, match=f"task Given.*{message}"):
        task.split("train")


def test_a_split_that_is_not_there_is_said_and_not_a_KeyError():
    task = Given(X, LAST)
    assert [name for name in SPLITS if task.has(name)] == ["train", "test"]
    with pytest.raises(BpgenError, match="task Given has no split val"):
        task.split("val")
    with pytest.raises(BpgenError, match=r"unknown split 'tset'\. Did you mean 'test'"):
        task.split("tset")


def test_data_are_loaded_once_also_without_the_constructor_of_the_base():
    class Bare(Given):
        loads = 0

        def __init__(self):
            self.given = (X, LAST)

        def load(self):
            type(self).loads += 1
            return super().load()

    task, other = Bare(), Bare()
    assert task.split("train") is task.split("train")
    assert task.has("test")
    assert other.has("test")
    assert Bare.loads == 2
    assert task.perturb(X, RANDOM).shape == X.shape


def test_sequences_that_are_repeated_are_counted():
    other = X.clone()
    other[:, 2] += 1
    assert repeated(Split(X, LAST), Split(other, LAST)) == 3
    assert repeated(Split(X[:, :2], LAST[:2]), Split(X[:, 2:], LAST[2:])) == 0


STRANGER = """
import torch
from bpgen.tasks import Split, Task

class Stranger(Task):
    '''Which of two inputs is larger; without some of its splits.'''
    n_in, n_out, n_steps = 2, 2, 4
    names = {names}
    def load(self):
        splits = {{}}
        for k, name in enumerate(self.names):
            x = torch.randn(4, 64, 2, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
            splits[name] = ({x}, (x[..., 0].sum(0) > x[..., 1].sum(0)).long())
        return splits
"""
QUICK = ("--rule", "bptt", "--trainer.max_epochs", "1", "--wandb", "off", "--threads", "1", "--sharpness.samples", "16")


@pytest.mark.parametrize("names", [("train",), ("train", "val"), ("train", "test"), SPLITS], ids="+".join)
def test_a_run_without_some_splits_measures_the_others(tmp_path, names):
    import pandas as pd

    file = tmp_path / "stranger.py"
    file.write_text(STRANGER.format(names=names, x="x.numpy()"))
    assert main(["fit", "--task", f"{file}:Stranger", *QUICK, "--out", str(tmp_path / "runs")]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    table = pd.read_csv(run / "metrics.csv")
    for name in SPLITS:
        assert bool(table[f"{name}/accuracy"].notna().all()) == (name in names)
    assert bool(table["gap/accuracy"].notna().all()) == ("test" in names)
    assert table["sharpness/lambda_max"].notna().all()


@pytest.mark.parametrize(
    ("x", "message"),
    [("x[..., :1]", r"I = n_in = 2"), ("x / 0", "nan or infinite"), ("None", "x must be"), ("x[:, :0]", "no sequence")],
)
def test_a_run_refuses_what_breaks_the_contract_before_it_writes(tmp_path, capsys, x, message):
    file = tmp_path / "stranger.py"
    file.write_text(STRANGER.format(names=("train",), x=x))
    assert main(["fit", "--task", f"{file}:Stranger", *QUICK, "--out", str(tmp_path / "runs")]) == 2
    err = capsys.readouterr().err
    assert "task Stranger, split train: " in err
    assert "Traceback" not in err
    import re

    assert re.search(message, err)
    assert not (tmp_path / "runs").exists()
