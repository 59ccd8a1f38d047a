"""How alike a model and recorded neurons are, measured by what another sample of the same neurons would give.

Of data with few neurons even a second sample from the same area is not at distance zero. So samples of n neurons are
compared: A and B of the data, without a neuron in common, and C of the model, with one distance D from 0 to 1:
    d1 = D(B, A)    the noise ceiling          d3 = D(B averaged over conditions, A)    the baseline
    d2 = D(C, A)    the model                  normalised: (d2 - d1)/(1 - d1) and (d3 - d1)/(1 - d1)
0 is as near as another sample of the data, 1 has nothing in common with it, and a model that knows no more than when
things happen is where the baseline is. Source: Liu, Yang and Cueva 2025 and their code (n = 10, 100 draws).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bpgen.errors import choice, require
from bpgen.similarity.distances import DISTANCES

Array = NDArray[np.float64]
NEURONS, DRAWS = 10, 100


class Sampled(NamedTuple):
    """Distances of every draw [draws], from 0 to 1; see the module."""

    ceiling: Array
    model: Array
    average: Array

    @property
    def normalised(self) -> float:
        """The model's place between another sample of the data, 0, and nothing in common, 1: the mean over draws."""
        return float(((self.model - self.ceiling) / (1 - self.ceiling)).mean())

    @property
    def baseline(self) -> float:
        """The place of the data's average over conditions."""
        return float(((self.average - self.ceiling) / (1 - self.ceiling)).mean())


def sampled(
    data: ArrayLike,
    model: ArrayLike,
    distance: str = "procrustes",
    neurons: int = NEURONS,
    draws: int = DRAWS,
    seed: int = 1,
) -> Sampled:
    """Distances between samples of neurons.

    Args:
        data: recorded activity [C,T,N] of C conditions.
        model: its activity [C,T,M].
        distance: a name of `DISTANCES`.
        neurons: n of every sample.
        draws: how many times A, B and C are drawn.
        seed: of the draws.

    Raises:
        BpgenError: too few neurons for two samples, one condition, or no activities of the same conditions and steps.
    """
    D = DISTANCES[choice("distance", distance, DISTANCES)]
    X, Y = np.asarray(data), np.asarray(model)
    require(X.ndim == Y.ndim == 3, f"activities are [conditions, time, neurons], got {X.shape} and {Y.shape}.")
    N, M = X.shape[-1], Y.shape[-1]
    require(draws >= 1 and neurons >= 1, f"neurons and draws must be positive, got {neurons} and {draws}.")
    require(
        2 * neurons <= N and neurons <= M,
        f"two samples of {neurons} neurons need {2 * neurons} in the data and {neurons} in the model, "
        f"which have {N} and {M}: take fewer neurons a sample.",
    )
    require(len(X) >= 2, "the data have one condition: there is no average over conditions to compare with.")
    average = np.broadcast_to(X.mean(0), X.shape)
    rng = np.random.default_rng(seed)
    return Sampled(*np.array([_draw(D, X, Y, average, neurons, rng) for _ in range(draws)]).T)


def _draw(
    D: Callable[[Any, Any], float], X: Array, Y: Array, average: Array, n: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    order = rng.permutation(X.shape[-1])
    A, B, C = order[:n], order[n : 2 * n], rng.permutation(Y.shape[-1])[:n]
    here = X[..., A]
    return D(X[..., B], here), D(Y[..., C], here), D(average[..., B], here)
