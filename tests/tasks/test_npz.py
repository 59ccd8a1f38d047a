"""A task from a user's own file."""

import re

import numpy as np
import pytest
import torch

from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.tasks.npz import Npz
from bpgen.training.loaders import with_targets_for

T, N, I = 5, 20, 3
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(T, N, I))
CLASSES = np.arange(N) % 4


def write(folder, **arrays):
    file = folder / "data.npz"
    np.savez(file, **arrays)
    return str(file)


@pytest.mark.parametrize(
    ("y", "loss", "when", "n_out"),
    [
        (CLASSES, "cross_entropy", "last", 4),
        (np.tile(CLASSES, (T, 1)).astype(np.uint8), "cross_entropy", "all", 4),
        (RANDOM.normal(size=(N, 2)), "mse", "last", 2),
        (RANDOM.normal(size=(T, N, 2)).astype(np.float32), "mse", "all", 2),
        (CLASSES > 1, "cross_entropy", "last", 2),
    ],
)
def test_what_is_asked_follows_from_y(tmp_path, y, loss, when, n_out):
    task = Npz(write(tmp_path, x=X, y=y))
    assert (task.loss, task.when, task.n_out, task.n_in, task.n_steps) == (loss, when, n_out, I, T)
    sizes = [task.split(name).size for name in ("train", "val", "test")]
    assert sizes == [14, 3, 3]
    found = torch.cat([task.split(name).x for name in ("train", "val", "test")], 1)
    assert sorted(found[0, :, 0].tolist()) == sorted(X[0, :, 0].astype(np.float32).tolist())


def test_own_splits_and_mask_are_kept(tmp_path):
    names = np.array(["train"] * 12 + ["test"] * 5 + ["val"] * 3)
    mask = RANDOM.random((T, N))
    task = Npz(write(tmp_path, x=X, y=np.tile(CLASSES, (T, 1)), mask=mask, split=names), mask_weights="given")
    assert torch.equal(task.split("test").x, torch.tensor(X[:, 12:17], dtype=torch.float32))
    assert torch.equal(task.split("val").mask, torch.tensor(mask[:, 17:], dtype=torch.float32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "lacks y; it holds x"),
        ({"x": X[0], "y": CLASSES}, r"must be \[T, n, I\]"),
        ({"x": X, "y": CLASSES[:-1]}, "classes are whole numbers"),
        ({"x": X, "y": CLASSES - 1}, "must count from 0"),
        ({"x": np.full_like(X, np.nan), "y": CLASSES}, "nan or infinite"),
        ({"x": X, "y": CLASSES, "mask": np.full((T, N), 0.5)}, "must be 1 at the steps"),
        ({"x": X, "y": CLASSES, "split": np.array(["test"] * N)}, "nothing can be learned"),
        ({"x": X[:, :3], "y": CLASSES[:3]}, "too few"),
        ({"x": X, "y": np.array(["a"] * N)}, "numpy.unique"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, arrays, message):
    with pytest.raises(BpgenError, match=message):
        Npz(write(tmp_path, **arrays))


def test_unreadable_files(tmp_path):
    with pytest.raises(BpgenError, match="No such file"):
        Npz(str(tmp_path / "none.npz"))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(BpgenError, match="not an"):
        Npz(str(tmp_path / "text.npz"))
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(BpgenError, match="not an"):
        Npz(str(tmp_path / "empty.npz"))
    np.save(tmp_path / "array.npy", X)
    with pytest.raises(BpgenError, match="holds one array"):
        Npz(str(tmp_path / "array.npy"))


# Which steps count

TIMED = np.tile(CLASSES, (T, 1))
LENGTHS = 1 + np.arange(N) % T
PADDING = np.arange(T)[:, None] >= LENGTHS
ALL = np.array(["train"] * N)


def split_of(folder, name="train", **arrays):
    return Npz(write(folder, **{"x": X, "y": CLASSES, "split": ALL, **arrays})).split(name)


def padded(values):
    return np.where(PADDING.reshape(T, N, *[1] * (values.ndim - 2)), np.nan, values)


@pytest.mark.parametrize("given", ["lengths", "mask"])
def test_each_sequence_is_asked_at_its_own_last_step(tmp_path, given):
    steps = {"lengths": LENGTHS, "mask": ~PADDING}[given]
    x, target, mask = split_of(tmp_path, x=padded(X), **{given: steps})
    assert mask.sum(0).tolist() == [1] * N
    assert mask.argmax(0).tolist() == (LENGTHS - 1).tolist()
    assert torch.equal(target, torch.tensor(TIMED))
    assert torch.equal(x, torch.tensor(np.where(PADDING[..., None], 0, X), dtype=torch.float32))


def test_values_of_sequences_of_different_lengths(tmp_path):
    y = RANDOM.normal(size=(N, 2))
    _, target, mask = split_of(tmp_path, y=y, lengths=LENGTHS)
    assert torch.equal(target[2], torch.tensor(y, dtype=torch.float32))
    assert mask.argmax(0).tolist() == (LENGTHS - 1).tolist()


def test_a_nan_among_the_steps_of_a_sequence_is_no_padding(tmp_path):
    x = padded(X)
    x[0, 3] = np.nan  # before its last step, which alone is asked
    with pytest.raises(BpgenError, match=r"holds 3 nan or infinite values, the first at \[0, 3, 0\]"):
        split_of(tmp_path, x=x, lengths=LENGTHS)


@pytest.mark.parametrize(("options", "weight"), [({}, 1 / LENGTHS), ({"step_weights": "sum"}, np.ones(N))])
def test_values_at_every_step_up_to_each_length(tmp_path, options, weight):
    y = RANDOM.normal(size=(T, N, 2))
    task = Npz(write(tmp_path, x=X, y=padded(y), lengths=LENGTHS, split=ALL), **options)
    torch.testing.assert_close(task.split("train").mask, torch.tensor(np.where(PADDING, 0, weight)).float())


def test_classes_at_every_step_up_to_each_length(tmp_path):
    y = np.where(PADDING, -100, TIMED)
    _, target, mask = split_of(tmp_path, y=y, lengths=LENGTHS)
    torch.testing.assert_close(mask, torch.tensor(np.where(PADDING, 0, 1 / LENGTHS)).float())
    assert (target[torch.tensor(PADDING)] == 0).all()


def test_weights_and_lengths(tmp_path):
    weights = RANDOM.random((T, N))
    _, _, mask = split_of(tmp_path, y=TIMED, mask=weights, lengths=LENGTHS)
    there = np.where(PADDING, 0, weights)
    torch.testing.assert_close(mask, torch.tensor(there / there.sum(0)).float())


@pytest.mark.parametrize("values", [False, True])
def test_a_mask_of_ones_is_no_mask_unless_its_weights_are_taken_as_given(tmp_path, values):
    """Version 0.1 took them as given, and configs that it wrote still do: see `Younger`."""
    y = RANDOM.normal(size=(T, N, 2)) if values else TIMED
    file = write(tmp_path, x=X, y=y, mask=np.ones((T, N)), split=ALL)
    given = Npz(file, mask_weights="given")
    assert (given.split("train").mask == 1).all()  # T times no mask
    assert "mask are 5 a sequence" in " ".join(given.notes())
    assert "mask" not in " ".join(Npz(file).notes())
    mean = Npz(file).split("train").mask
    without = Npz(write(tmp_path, x=X, y=y, split=ALL)).split("train").mask
    torch.testing.assert_close(mean, torch.full((T, N), 1 / T) if without is None else without)
    uneven = RANDOM.random((T, N)) * ~PADDING
    uneven[:, 0] = 0  # a sequence of which nothing is asked
    mask = Npz(write(tmp_path, x=X, y=y, mask=uneven, split=ALL)).split("train").mask
    expected = torch.tensor(uneven / np.maximum(uneven.sum(0), 1e-30)).float()
    torch.testing.assert_close(mask, expected)
    assert mask[:, 0].sum() == 0


@pytest.mark.parametrize(("options", "weight"), [({}, 1 / T), ({"step_weights": "sum"}, None)])
def test_the_loss_of_values_at_every_step_is_that_of_a_step_on_average(tmp_path, options, weight):
    y = RANDOM.normal(size=(T, N))  # one value: its axis may be left out
    task = Npz(write(tmp_path, x=X, y=y, split=ALL), **options)
    split = task.split("train")
    assert split.target.shape == (T, N, 1)
    assert (split.mask is None) if weight is None else torch.allclose(split.mask, torch.tensor(weight))


def test_one_value_a_sequence(tmp_path):
    y = RANDOM.normal(size=N)
    _, target, mask = split_of(tmp_path, y=y)
    assert torch.equal(target, torch.tensor(y, dtype=torch.float32).unsqueeze(1))
    assert mask is None


def test_last_steps_that_do_not_count_are_not_asked(tmp_path):
    split = split_of(tmp_path, lengths=LENGTHS)
    with pytest.raises(BpgenError, match=r"use --loss\.when all"):
        with_targets_for(Loss("cross_entropy", "last"), split, 4)
    same = split_of(tmp_path, lengths=np.full(N, T))
    assert torch.equal(with_targets_for(Loss("cross_entropy", "last"), same, 4).target, torch.tensor(CLASSES))


@pytest.mark.parametrize("timed", [False, True])
def test_classes_may_count_equally_however_frequent(tmp_path, timed):
    classes = np.array([0] * 12 + [1] * 5 + [3] * 3)
    y = np.tile(classes, (T, 1)) if timed else classes
    names = np.array((["train"] * 3 + ["test"]) * 5)
    task = Npz(write(tmp_path, x=X, y=y, split=names), class_weights="balanced")
    train = task.split("train")
    total = torch.zeros(4).index_add(0, train.target.flatten(), train.mask.flatten())
    assert total.tolist() == pytest.approx([5, 5, 0, 5])  # 15 sequences
    test = task.split("test")
    ratio = test.mask[-1, test.target[-1] == 1][0] / test.mask[-1, test.target[-1] == 0][0]
    each = [int((classes[names == "train"] == k).sum()) for k in (0, 1)]
    assert float(ratio) == pytest.approx(each[0] / each[1])  # the weights of training


# What is said


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (1 + np.arange(N) % 3, "3 classes, 1 to 3; class 0 never occurs, and has an output"),
        (np.array([0, 1, 7, 1] * 5), "3 classes, 0, 1, 7; classes 2 to 6 never occur"),
        (np.array([0] * 13 + [1] * 5 + [2] * 2), "class 2 of test is not in train"),
        (CLASSES, None),
    ],
)
def test_odd_labels_are_named(tmp_path, y, says):
    names = np.array(["train"] * 15 + ["test"] * 5)
    task = Npz(write(tmp_path, x=X, y=y, split=names))
    first, _, *notes = task.describe().splitlines()
    assert "T = 5 steps, I = 3 inputs" in first
    assert "sequences: 15 train, 5 test" in first
    assert says is None or any(says in note for note in notes)
    assert any("never occur" in note or "not in train" in note for note in notes) == (says is not None)


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_any_labels_have_the_outputs_they_need_or_are_refused(tmp_path, timed, seed):
    """Random sets of numbers from a few to far apart: outputs, gaps and refusals as their definition says."""
    random = np.random.default_rng(seed)
    top = int(random.choice([2, 5, 40, 999, 1000, 5000, 10**6]))
    known = random.choice(np.arange(-1 if seed % 7 == 0 else 0, top), size=min(top, int(random.integers(1, 6))))
    known[0] = top - 1
    y = random.choice(known, size=(T, N) if timed else N)
    found = np.unique(y)
    file = write(tmp_path, x=X, y=y, split=ALL)
    if len(found) == 1 or found[0] < 0 or found[-1] >= max(1000, 10 * len(found)):
        with pytest.raises(BpgenError, match=r"with one class|must count from 0|different numbers up to"):
            Npz(file)
        return
    task = Npz(file)
    assert task.n_out == found[-1] + 1
    missing = sorted(set(range(task.n_out)) - set(found.tolist()))
    said = " ".join(task.notes())
    assert ("never occur" in said) == bool(missing)
    assert all(str(label) in said for label in missing[:1])


def test_numbers_far_from_1_are_named(tmp_path):
    task = Npz(write(tmp_path, x=X / 100, y=20 * RANDOM.normal(size=(N, 2)), split=ALL))
    said = task.describe()
    assert "x is about 0.01: learning rates" in said
    assert "y is about 2" in said
    assert "learning rates" not in Npz(write(tmp_path, x=X, y=CLASSES, split=ALL)).describe()


def test_values_too_large_for_the_learning_rate_are_told_one_that_works(tmp_path, capsys):
    file = write(tmp_path, x=20 * X, y=300 * np.cumsum(X[..., :1], 0))
    options = ["--task.file", file, "--trainer.max_epochs", "2", "--network.n_rec", "16", "--rule", "bptt"]
    options += ["--out", str(tmp_path), "--wandb", "off", "--alignment.samples", "0"]
    assert main(["fit", "--task", "npz", *options]) == 3
    out, err = capsys.readouterr()
    assert "val R² -" in out
    assert "nan" not in out
    advised = re.search(r"inputs and targets scaled to about 1, a smaller --optimizer.lr [(]e[.]g[.] (.*?):", err)[1]
    assert main(["fit", "--task", "npz", *options, "--optimizer.lr", advised]) == 0


@pytest.mark.parametrize(
    ("arrays", "cure"),
    [
        (
            {"y": np.array([0, 10**6, 2 * 10**6] * 6 + [0, 0])},
            r"2000001 outputs. Number them: classes, y = numpy.unique",
        ),
        ({"y": np.array([10**7] + [0] * (N - 1))}, "10000001 outputs"),
        ({"y": np.full(N, 2**63, np.uint64)}, "with one class there is nothing to learn"),
        ({"y": np.where(CLASSES == 0, -100, CLASSES)}, "weight 0 in a mask"),
        ({"x": X.swapaxes(0, 1)}, r"swap the axes: x\.swapaxes\(0, 1\)"),
        ({"x": X[..., 0]}, r"x\[\.\.\., None\]"),
        ({"x": X + 1j}, "x.real, x.imag"),
        ({"x": np.zeros((T, N, I), "M8[s]")}, "timedelta64"),
        ({"y": CLASSES.astype(float)}, r"y\.astype\(int\)"),
        ({"y": CLASSES.astype(str)}, "numpy.unique"),
        ({"y": np.eye(4, dtype=int)[CLASSES]}, r"one-hot .* y\.argmax\(-1\)"),
        ({"y": CLASSES[:, None]}, r"classes are y\[\.\.\., 0\]"),
        ({"y": np.stack([CLASSES, CLASSES], 1)}, r"y\.astype\(float\)"),
        ({"mask": np.ones((T, N)), "lengths": LENGTHS}, "give one of them"),
        ({"lengths": LENGTHS + 1}, "from 1 to T = 5, .* up to 6"),
        ({"lengths": LENGTHS - 1}, "from 1 to T = 5"),
        ({"split": np.array(["training"] * N)}, "got 'training'"),
        ({"y": TIMED, "mask": np.full((T, N), np.nan)}, "finite numbers >= 0"),
        ({"y": TIMED, "mask": -np.ones((T, N))}, "finite numbers >= 0"),
        ({"y": TIMED, "mask": np.zeros((T, N))}, "zero everywhere"),
        ({"x": X * 1e300}, "beyond float32"),
    ],
)
def test_every_message_has_its_cure(tmp_path, arrays, cure):
    with pytest.raises(BpgenError, match=cure):
        Npz(write(tmp_path, **{"x": X, "y": CLASSES, **arrays}))


def test_further_arrays_come_with_their_sequences(tmp_path):
    """Subject and coherence of each sequence, whatever split it fell into; what fits no sequence is left out."""
    further = {"subject": np.array([f"s{i}" for i in range(N)]), "coherence": X[0, :, 0], "note": np.arange(3)}
    task = Npz(write(tmp_path, x=X, y=CLASSES, **further))
    places = []
    for name in ("train", "val", "test"):
        info, split = task.trial_info(name), task.split(name)
        assert sorted(info) == ["coherence", "place", "subject"]
        np.testing.assert_array_equal(split.x[0, :, 0].numpy(), info["coherence"].astype(np.float32))
        assert list(info["subject"]) == [f"s{i}" for i in info["place"]]
        places += info["place"].tolist()
    assert sorted(places) == list(range(N))


@pytest.mark.parametrize(
    ("arrays", "note"),
    [
        ({"x": X.swapaxes(0, 1), "y": np.tile(CLASSES, (T, 1)).T}, r"20 steps of only 5 sequences.*x.swapaxes\(0, 1\)"),
        ({"x": X, "y": (np.tile(CLASSES, (T, 1)).T > 1) * 1}, "read as 5 labels of each sequence.*y.T"),
        (
            {"x": X, "y": CLASSES, "split": np.where(CLASSES == 3, "test", "train")},
            "class 3 of test is not in train, and can only be answered wrongly: move some sequences of it to train",
        ),
    ],
)
def test_what_looks_like_a_slip_is_said_with_its_cure(tmp_path, arrays, note):
    if "split" not in arrays:
        arrays["split"] = np.array(["train"] * arrays["x"].shape[1])
    assert re.search(note, Npz(write(tmp_path, **arrays)).describe())


def test_nothing_is_said_of_sound_data(tmp_path):
    assert Npz(write(tmp_path, x=X, y=CLASSES)).notes() == []
