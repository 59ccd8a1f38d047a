"""Levels of repeated tests: a group-sequential design by error spending.

Seeds are added in looks that are planned beforehand. Let t_k be the share that the seeds at look k are of the largest
number planned. At look k a test has the level a_k, such that without an effect the first success comes at look k with
probability f(t_k) - f(t_{k-1}) (Lan and DeMets 1983, eq. 2), where

    f(t) = α t^ρ                              is spent by then (Kim and DeMets 1987), ρ = 3 here

so that over all looks an error has probability α. ρ = 3 is close to the boundaries of O'Brien and Fleming (1979): it
spends little on few seeds, where t-tests hold their levels worst, and the last look is almost one without the others.
The levels are those of normal means, whose increments over looks are independent: exact by numerical integration from
look to look (Armitage, McPherson and Rowe 1969; Jennison and Turnbull 2000, ch. 19). Other tests take the same levels
(Pocock 1977); what errors they then make is simulated in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Array = NDArray[np.float64]
RHO = 3.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(201)
_ALPHAS = np.geomspace(1e-9, 0.5, 150)
_FAR = 9.0  # standard deviations


def planned_looks(most: int) -> list[int]:
    """Seeds at every look: 5, 10, 20, 40, ... and the most at last."""
    looks = [5 * 2**k for k in range(20)]
    return [*(n for n in looks if n < most), most]


def spent(looks: Sequence[int], alpha: float) -> list[float]:
    """What part of α may have been spent by each look."""
    return [alpha * (n / looks[-1]) ** RHO for n in looks]


def levels(looks: Sequence[int], alpha: float) -> list[float]:
    """The one-sided level of a test at each look."""
    return list(_levels(tuple(looks), alpha))


@lru_cache(maxsize=1000)
def _levels(looks: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    shares = [n / looks[-1] for n in looks]
    found: list[float] = []
    s, density, before, gone = np.zeros(1), np.ones(1), 0.0, 0.0  # the sum at the last look: where, how much, when
    for share, whole in zip(shares, spent(looks, alpha), strict=True):
        step = np.sqrt(share - before)
        to_spend = whole - gone

        def excess(bound: float, s: Array = s, density: Array = density, step: float = step) -> Array:
            return np.asarray(density @ special.ndtr((s - bound) / step))

        far = _FAR * np.sqrt(share)
        bound = float(optimize.brentq(lambda b: float(excess(b)) - to_spend, -far, far, xtol=1e-12))  # noqa: B023
        found.append(float(special.ndtr(-bound / np.sqrt(share))))
        nodes = (bound + far) / 2 * _NODES + (bound - far) / 2
        kernel = np.exp(-0.5 * ((nodes[:, None] - s) / step) ** 2) / (step * np.sqrt(2 * np.pi))
        s, density, before, gone = nodes, (kernel @ density) * _WEIGHTS * (bound + far) / 2, share, whole
    return tuple(found)


def p_value(looks: Sequence[int], p: Sequence[float]) -> float:
    """The p-value of a test at several looks: the smallest α at which one of them would have been a success.

    It may be corrected for other tests as any p-value (Liu and Anderson 2008; Maurer and Bretz 2013, for Holm's).

    Args:
        looks: seeds at every planned look.
        p: of the test alone at the looks so far.
    """
    table = _table(tuple(looks))
    alphas = (
        np.interp(np.log(max(one, 1e-300)), np.log(at), np.log(_ALPHAS), right=0.0)
        for one, at in zip(p, table.T, strict=False)
    )
    return float(np.exp(min(alphas, default=0.0)))


@lru_cache
@lru_cache
def _table(looks: tuple[int, ...]) -> Array:
    """Levels by α and look."""
    return np.array([levels(looks, alpha) for alpha in _ALPHAS])
