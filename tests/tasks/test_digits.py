"""The embedded digits: what they hold, and that the test set is held out."""

from importlib.resources import files

import numpy as np
import pytest
import torch

from bpgen.errors import BpgenError
from bpgen.tasks.base import SPLITS
from bpgen.tasks.digits import Digits

SIZES = {"train": 1197, "val": 300, "test": 300}
# First image of each run by one writer: scikit-learn MOOC, "Sample grouping".
RUNS = np.array([0, 130, 256, 386, 516, 646, 776, 915, 1029, 1157, 1287, 1415, 1545, 1667])


@pytest.fixture(scope="module")
def embedded():
    with np.load(str(files("bpgen.tasks") / "data" / "digits.npz")) as data:
        return data["images"], data["labels"]


@pytest.fixture(scope="module", params=["images", "writers"])
def splits(request):
    return Digits(request.param).load()


@pytest.fixture(scope="module")
def by_writer():
    return Digits("writers").load()


def indices(split, images):
    """Where in the file each image of a split stands: images are unique, so their bytes name them."""
    where = {image.tobytes(): k for k, image in enumerate(images)}
    return np.array([where[image.numpy().tobytes()] for image in (split.x * 16).byte().permute(1, 0, 2)])


def test_embedded_images_are_those_of_scikit_learn(embedded):
    original = pytest.importorskip("sklearn.datasets").load_digits()
    np.testing.assert_array_equal(embedded[0], original.images)
    np.testing.assert_array_equal(embedded[1], original.target)


@pytest.mark.parametrize("name", SPLITS)
def test_format(splits, name):
    x, target, mask = splits[name]
    assert x.shape == (Digits.n_steps, SIZES[name], Digits.n_in)
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    assert (x.min(), x.max()) == Digits.input_range
    assert target.shape == (SIZES[name],)
    assert target.dtype == torch.int64
    assert mask is None


def test_step_t_is_row_t_of_the_image_with_its_label(splits, embedded):
    images, labels = embedded
    for split in splits.values():
        for k, index in enumerate(indices(split, images)):
            np.testing.assert_array_equal(split.x[:, k], images[index] / 16)
            assert split.target[k] == labels[index]


def test_splits_share_no_image_and_leave_none_out(splits, embedded):
    images = embedded[0]
    assert len({image.tobytes() for image in images}) == 1797  # no duplicate could leak from one to another
    together = np.concatenate([indices(splits[name], images) for name in SPLITS])
    np.testing.assert_array_equal(np.sort(together), np.arange(1797))


@pytest.mark.parametrize("name", SPLITS)
def test_classes_are_stratified(splits, embedded, name):
    share = np.bincount(embedded[1]) * SIZES[name] / 1797
    assert np.abs(splits[name].target.bincount().numpy() - share).max() <= 1


def test_no_run_of_a_writer_is_both_in_training_and_test(by_writer, embedded):
    train, val, test = (set(_runs(by_writer[name], embedded)) for name in SPLITS)
    assert not train & test
    assert len(train & val) == 1
    assert len(val & test) == 1


def test_by_default_every_writer_is_in_every_split(embedded):
    splits = Digits().load()
    assert all(len(set(_runs(splits[name], embedded))) == len(RUNS) for name in SPLITS)


def _runs(split, embedded):
    return np.searchsorted(RUNS, indices(split, embedded[0]), side="right")


def test_the_first_training_images_come_from_all_runs(by_writer, embedded):
    first = by_writer["train"].take(torch.arange(256))
    assert len(set(np.searchsorted(RUNS, indices(first, embedded[0]), side="right"))) == 10


def test_splits_do_not_depend_on_the_seed(by_writer):
    torch.manual_seed(1)
    again, splits = Digits("writers").load(), by_writer
    for name in SPLITS:
        torch.testing.assert_close(again[name].x, splits[name].x, rtol=0, atol=0)
        torch.testing.assert_close(again[name].target, splits[name].target, rtol=0, atol=0)


@pytest.mark.parametrize("held_out", ["images", "writers"])
def test_fewer_training_images_are_some_of_them_in_the_same_shares(held_out, embedded):
    whole, few = Digits(held_out).load(), Digits(held_out, n_train=150).load()
    assert np.isin(indices(few["train"], embedded[0]), indices(whole["train"], embedded[0])).all()
    assert few["train"].x.shape[1] == 150
    share = np.bincount(embedded[1]) * 150 / 1797
    assert np.abs(few["train"].target.bincount().numpy() - share).max() <= 1
    for name in ("val", "test"):
        torch.testing.assert_close(few[name].x, whole[name].x, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{"noise_sd": -0.1}, {"held_out": "pens"}, {"n_train": 9}, {"n_train": 1198}])
def test_bad_options_are_refused(options):
    with pytest.raises(BpgenError, match=next(iter(options))):
        Digits(**options)
