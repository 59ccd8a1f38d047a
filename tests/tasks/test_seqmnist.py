"""Sequential MNIST: how images become sequences, a folder of the user's, and what is refused.

Most tests use random bytes in the format of MNIST; those on the real files look for them in the folder named by
BPGEN_MNIST, else in ../shared/data/mnist beside the repository.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bpgen.errors import BpgenError
from bpgen.tasks import seqmnist
from bpgen.tasks.base import SPLITS
from bpgen.tasks.seqmnist import SHAPES, SeqMNIST

REAL = Path(os.environ.get("BPGEN_MNIST", Path(__file__).parents[3] / "shared" / "data" / "mnist"))
needs_mnist = pytest.mark.skipif(not REAL.is_dir(), reason=f"no MNIST in {REAL}; set BPGEN_MNIST")
LABELS = "train-labels-idx1-ubyte"


def write_idx(path, values):
    path.write_bytes(bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes())


@pytest.fixture(scope="module")
def fake():
    rng = np.random.default_rng(0)
    return {n: rng.integers(0, 10 if len(s) == 1 else 256, s, dtype=np.uint8) for n, s in SHAPES.items()}


@pytest.fixture(scope="module")
def folder(fake, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnist")
    for name, values in fake.items():
        write_idx(folder / name, values)
    return folder


@pytest.fixture
def changed(folder, tmp_path):
    """A function that gives the fake folder with one file replaced by other values."""

    def change(name, values):
        for other in SHAPES:
            if other != name:
                (tmp_path / other).symlink_to(folder / other)
        write_idx(tmp_path / name, values)
        return str(tmp_path)

    return change


# From images to sequences


@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize(("order", "n_steps", "n_in"), [("rows", 28, 28), ("pixels", 784, 1)])
def test_sequences_and_splits(folder, fake, order, n_steps, n_in, permuted):
    task = SeqMNIST(str(folder), order=order, permuted=permuted, n_train=300)
    assert (task.n_steps, task.n_in, task.n_out) == (n_steps, n_in, 10)
    train, val, test = (task.split(name) for name in SPLITS)
    for split, part, first in ((val, "train", 0), (train, "train", 5000), (test, "t10k", 0)):
        assert split.x.shape == (n_steps, split.size, n_in)
        assert split.x.dtype == torch.float32
        assert split.x.is_contiguous()
        assert (split.x.min(), split.x.max()) == task.input_range
        images = fake[f"{part}-images-idx3-ubyte"][first : first + split.size].reshape(-1, 784)
        if permuted:
            images = images[:, task.permutation]
        shown = split.x.transpose(0, 1).reshape(-1, 784)  # step after step, the pixels of an image
        np.testing.assert_array_equal(shown, images.astype(np.float32) / 255)
        assert split.target.dtype == torch.int64
        labels = fake[f"{part}-labels-idx1-ubyte"][first : first + split.size]
        np.testing.assert_array_equal(split.target, labels)
    assert (train.size, val.size, test.size) == (300, 5000, 10000)


def test_all_training_images_by_default(folder, fake):
    target = SeqMNIST(str(folder)).split("train").target
    np.testing.assert_array_equal(target, fake[LABELS][5000:])


def test_permutation_is_fixed_by_its_own_seed():
    first, again, other = (SeqMNIST(permuted=True, permutation_seed=s).permutation for s in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()
    assert sorted(first.tolist()) == list(range(784)) != first.tolist()
    assert first[:5].tolist() == [327, 391, 297, 575, 59]  # published runs depend on it


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_train": 0}, "n_train must be 1 to 55000, got 0"),
        ({"n_train": 55001}, "n_train must be 1 to 55000, got 55001"),
        ({"order": "columns"}, "order must be rows or pixels, got 'columns'"),
        ({"data_dir": ""}, "data_dir is empty"),
        ({"noise_sd": -1.0}, "noise_sd"),
    ],
)
def test_bad_options_are_refused_at_once(options, message):
    with pytest.raises(BpgenError, match=message):
        SeqMNIST(**options)


# A folder of the user's


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_both_spellings_with_or_without_gz_below_the_home_folder(tmp_path, monkeypatch, end, dot):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    paths = {name: tmp_path / "data" / (name.replace("-idx", f"{dot}idx") + end) for name in SHAPES}
    for path in paths.values():
        path.touch()
    assert seqmnist._find("~/data") == paths


@pytest.mark.parametrize("below", ["", "raw", "MNIST", "MNIST/raw"])
def test_also_where_torchvision_puts_them(tmp_path, below):
    """Its root, `MNIST` in it, and `MNIST/raw`, each as data_dir."""
    place = tmp_path / below
    place.mkdir(parents=True, exist_ok=True)
    for name in SHAPES:
        (place / f"{name}.gz").touch()
    assert seqmnist._find(str(tmp_path)) == {name: place / f"{name}.gz" for name in SHAPES}
    assert seqmnist._find(str(place)) == {name: place / f"{name}.gz" for name in SHAPES}


def test_the_folder_named_comes_before_those_below_it(tmp_path):
    for place in (tmp_path, tmp_path / "MNIST" / "raw"):
        place.mkdir(parents=True, exist_ok=True)
        for name in SHAPES:
            (place / name).touch()
    assert seqmnist._find(str(tmp_path))[LABELS] == tmp_path / LABELS


def test_the_folder_that_lacks_least_is_the_one_that_is_named(tmp_path, folder):
    below = tmp_path / "MNIST" / "raw"
    below.mkdir(parents=True)
    for name in SHAPES:
        if name != LABELS:
            (below / name).touch()
    with pytest.raises(BpgenError, match=f"raw lacks {LABELS}[.] Expected"):
        SeqMNIST(str(tmp_path)).load()


def test_a_folder_with_the_name_of_a_file_is_passed_over(tmp_path):
    for name in SHAPES:
        (tmp_path / name).mkdir()  # as some archives unpack
        (tmp_path / name.replace("-idx", ".idx")).touch()
    assert all(path.is_file() for path in seqmnist._find(str(tmp_path)).values())


def test_folder_is_looked_at_only_by_load(tmp_path):
    task = SeqMNIST(str(tmp_path / "nowhere"))
    with pytest.raises(BpgenError, match=r"nowhere: No such file.*train-images-idx3-ubyte"):
        task.load()


def test_a_file_is_not_a_folder(folder):
    with pytest.raises(BpgenError, match="Not a directory"):
        SeqMNIST(str(folder / LABELS)).load()


def test_missing_files_are_named(tmp_path, folder):
    (tmp_path / LABELS).symlink_to(folder / LABELS)
    with pytest.raises(BpgenError, match="lacks train-images-idx3-ubyte, t10k-images-idx3-ubyte, t10k-labels"):
        SeqMNIST(str(tmp_path)).load()


def test_labels_beyond_nine_are_refused(changed, fake):
    labels = fake[LABELS].copy()
    labels[7] = 10
    with pytest.raises(BpgenError, match=f"{LABELS} holds the label 10, expected 0 to 9"):
        SeqMNIST(changed(LABELS, labels)).load()


def test_test_labels_in_place_of_training_labels_are_refused(changed, fake):
    with pytest.raises(BpgenError, match="holds 10000 values, expected 60000"):
        SeqMNIST(changed(LABELS, fake["t10k-labels-idx1-ubyte"])).load()


# The real files


@needs_mnist
def test_real_mnist():
    task = SeqMNIST(str(REAL))
    train, val, test = (task.split(name) for name in SPLITS)
    assert val.target[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # the first of the 60,000
    assert test.target[:5].tolist() == [7, 2, 1, 0, 4]
    assert (train.size, val.size, test.size) == (55000, 5000, 10000)
    mean = (train.x.double().mean() * 55000 + val.x.double().mean() * 5000) / 60000
    assert mean.item() == pytest.approx(0.1307, abs=5e-5)  # torchvision's customary normalisation
    assert (train.x[:3].mean() + train.x[-1:].mean()).item() < 0.01  # rows run down: top and bottom are empty
