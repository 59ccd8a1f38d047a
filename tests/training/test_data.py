"""The loader: an order that is a function of seed and epoch, and a state that continues it."""

import pytest
import torch

from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.tasks import Split
from bpgen.training.loaders import SeededLoader, with_targets_for


def split(n=10):
    return Split(torch.arange(float(n)).reshape(1, n, 1).expand(3, n, 1).contiguous(), torch.arange(n))


def seen(loader):
    return [batch.target.tolist() for batch in loader]


def test_an_epoch_is_every_sequence_once_in_a_new_order():
    loader = SeededLoader(split(), 4, seed=0)
    first, second = seen(loader), seen(loader)
    assert [len(b) for b in first] == [4, 4, 2]
    assert len(loader) == 3
    assert sorted(target for batch in first for target in batch) == list(range(10))
    assert first != second
    assert first == seen(SeededLoader(split(), 4, seed=0))
    assert first != seen(SeededLoader(split(), 4, seed=1))


def test_x_and_target_stay_together():
    for x, target, _ in SeededLoader(split(), 4, 0):
        assert torch.equal(x[0, :, 0], target.float())
        assert x.is_contiguous()


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4, 5])
def test_a_restored_state_continues_the_same_batches(stop):
    whole = SeededLoader(split(), 4, 0)
    wanted = seen(whole) + seen(whole) + seen(whole)
    loader, taken = SeededLoader(split(), 4, 0), []
    iterator = iter(loader)
    for _ in range(stop):
        try:
            taken.append(next(iterator).target.tolist())
        except StopIteration:
            iterator = iter(loader)
            taken.append(next(iterator).target.tolist())
    again = SeededLoader(split(), 4, 0)
    again.load_state_dict(loader.state_dict())
    assert taken + seen(again) == wanted[: stop + len(again) - stop % 3]


def test_targets_are_fitted_to_the_loss():
    x, classes = torch.zeros(5, 2, 1), torch.tensor([2, 0])
    assert with_targets_for(Loss("cross_entropy", "all"), Split(x, classes), 3).target.tolist() == [[2, 0]] * 5
    one_hot = with_targets_for(Loss("mse", "last"), Split(x, classes), 3).target
    assert one_hot.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert with_targets_for(Loss("mse", "all"), Split(x, classes), 3).target.shape == (5, 2, 3)
    steps = torch.arange(10).reshape(5, 2) % 3
    assert with_targets_for(Loss("cross_entropy", "last"), Split(x, steps), 3).target.tolist() == steps[-1].tolist()


def test_targets_that_cannot_fit_are_refused():
    values = Split(torch.zeros(5, 2, 1), torch.zeros(2, 3))
    with pytest.raises(BpgenError, match="mse"):
        with_targets_for(Loss("cross_entropy", "last"), values, 3)
    with pytest.raises(BpgenError, match="last"):
        with_targets_for(Loss("mse", "all"), values, 3)
    with pytest.raises(BpgenError, match="batch_size"):
        SeededLoader(split(), 0, 0)
