"""A task from a user's own file."""

import numpy as np
import pytest
import torch

from bpgen.errors import BpgenError
from bpgen.tasks.npz import Npz

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
    task = Npz(write(tmp_path, x=X, y=np.tile(CLASSES, (T, 1)), mask=mask, split=names))
    assert torch.equal(task.split("test").x, torch.tensor(X[:, 12:17], dtype=torch.float32))
    assert torch.equal(task.split("val").mask, torch.tensor(mask[:, 17:], dtype=torch.float32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "lacks y; it holds x"),
        ({"x": X[0], "y": CLASSES}, r"must be \[T, n, I\]"),
        ({"x": X, "y": CLASSES[:-1]}, "must be whole numbers"),
        ({"x": X, "y": CLASSES - 1}, "must count from 0"),
        ({"x": np.full_like(X, np.nan), "y": CLASSES}, "nan or infinite"),
        ({"x": X, "y": CLASSES, "mask": np.ones((T, N))}, "beside a y at every step"),
        ({"x": X, "y": CLASSES, "split": np.array(["train"] * N)}, "each at least once"),
        ({"x": X[:, :3], "y": CLASSES[:3]}, "too few"),
        ({"x": X, "y": np.array(["a"] * N)}, "must be whole numbers"),
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
