"""Noise ceiling: another sample of the data is at 0, the average over conditions at the baseline, noise beyond."""

from __future__ import annotations

import numpy as np
import pytest

from bpgen.errors import BpgenError
from bpgen.similarity import DISTANCES, procrustes, sampled

C, T = 12, 15


def population(neurons, seed, own=0.0):
    """Neurons that mix four latent courses, the first of them without condition, and a part `own` of each neuron."""
    latent = np.random.default_rng(1).standard_normal((C, T, 4)).cumsum(1)
    latent[..., 0] = latent[:1, :, 0]
    r = np.random.default_rng(seed)
    return latent @ r.standard_normal((4, neurons)) + own * r.standard_normal((C, T, neurons))


DATA = population(60, 2, own=0.5)


def test_a_model_of_the_same_kind_is_at_the_ceiling_and_noise_beyond_the_baseline():
    same, other = sampled(DATA, population(50, 3, own=0.5)), np.random.default_rng(4).standard_normal((C, T, 50))
    noise = sampled(DATA, other)
    assert abs(same.normalised) < 0.05
    assert 0.3 < same.baseline < 1
    assert noise.normalised > same.baseline
    assert noise.baseline == same.baseline
    assert 0.05 < same.ceiling.mean() < same.average.mean()


@pytest.mark.parametrize("distance", DISTANCES)
def test_every_draw_is_that_of_a_loop_written_out(distance):
    model, n = population(33, 5, own=0.2), 6
    found = sampled(DATA, model, distance, n, draws=4, seed=9)
    r, average = np.random.default_rng(9), np.stack([DATA.mean(0)] * C)
    for k in range(4):
        order = list(r.permutation(60))
        units = list(r.permutation(33))[:n]
        A, B = order[:n], order[n : 2 * n]
        assert not set(A) & set(B)
        d = [DISTANCES[distance](DATA[..., A], x) for x in (DATA[..., B], model[..., units], average[..., B])]
        np.testing.assert_allclose([found.ceiling[k], found.model[k], found.average[k]], d, atol=1e-12)
    np.testing.assert_allclose(found.normalised, np.mean((found.model - found.ceiling) / (1 - found.ceiling)))
    if distance == "procrustes":
        assert d[0] == pytest.approx(procrustes(DATA[..., A], DATA[..., B]) / (np.pi / 2))


@pytest.mark.parametrize(
    ("data", "model", "options", "message"),
    [
        (DATA, DATA[..., :8], {}, "which have 60 and 8: take fewer neurons"),
        (DATA[..., :15], DATA, {}, "need 20 in the data and 10 in the model"),
        (DATA[0], DATA, {}, "conditions, time, neurons"),
        (DATA[:1], DATA[:1], {}, "one condition"),
        (DATA, DATA, {"distance": "cca2"}, "Did you mean 'cca'"),
        (DATA, DATA, {"draws": 0}, "must be positive"),
    ],
)
def test_bad_input_is_said(data, model, options, message):
    with pytest.raises(BpgenError, match=message):
        sampled(data, model, **options)
