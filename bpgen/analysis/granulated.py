"""Granulated rank correlation: Kendall's τ over pairs of runs that differ in one thing only.

    (1) τ = Σ_g Σ_{i<j} sign(x_i - x_j) sign(y_i - y_j) / number of pairs,      i, j in the same granule g
A pair that agrees counts 1, one that disagrees -1, a tie 0. A granule holds what is equal in everything but one axis:
the seed (same rule, same training loss: "within rule"), the rule (same seed: "across rules") or the time in training
(same run: "along training"). Jiang et al. 2020 average the τ of such granules; here pairs are averaged, which is the
same where none is missing, and needs no rule for granules that have lost runs. What the granules hold fixed cannot make
a measure look good: a difference between rules makes no pair within a rule.

Units are seeds, all runs of which are resampled together (bootstrap). A seed that was drawn twice makes no pair with
itself. The interval is Student's on the scale of Fisher's z with the standard deviation of the bootstrap. Beside it
stands a permutation test, exact where the gap does not depend on the measure: gaps are moved between seeds (within
rules), or between rules, where K rules have no more than K! orders and say accordingly little.

References: M. G. Kendall, Biometrika 30 (1938) 81; Y. Jiang et al., Fantastic generalization measures and where to find
them, ICLR 2020, section 3; G. K. Dziugaite et al., In search of robust measures of generalization, NeurIPS 2020.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bpgen.analysis.statistics import RNG, Array, Effect, not_measured

RESAMPLES = 1000
PERMUTATIONS = 2000
FEWEST = 4  # seeds


class View(NamedTuple):
    """Which pairs are compared: they differ in `unit` and agree in everything of `granule`."""

    name: str
    unit: str
    granule: tuple[str, ...]


WITHIN = View("within rule", "seed", ("setting", "condition", "at"))
ACROSS = View("across rules", "condition", ("setting", "seed", "at"))
ALONG = View("along training", "at", ("setting", "condition", "seed"))


@dataclass(frozen=True)
class Granules:
    """A table of networks taken apart by a view.

    table: a row per network: setting, condition, seed, at (a step, or the number of a matched loss), and columns.
    view: which pairs are compared.
    """

    table: pd.DataFrame
    view: View

    @cached_property
    def seeds(self) -> list[int]:
        """All of them."""
        return sorted(self.table["seed"].unique())

    @cached_property
    def _wide(self) -> pd.DataFrame:
        keys = [*self.view.granule, self.view.unit]
        columns = [c for c in self.table if c not in keys]
        wide = self.table.set_index(keys)[columns].unstack(self.view.unit)
        units = self.seeds if self.view.unit == "seed" else sorted(self.table[self.view.unit].unique())
        return wide.reindex(columns=pd.MultiIndex.from_product([columns, units]))

    def values(self, column: str) -> Array:
        """Values [granules, units]; nan where there is no such network."""
        return self._wide[column].to_numpy(float)

    @cached_property
    def _known(self) -> dict[str, tuple[Array, Array]]:
        return {}

    def _signs(self, column: str) -> tuple[Array, Array]:
        """As the function, of a column; worked out once."""
        if column not in self._known:
            self._known[column] = _signs(self.values(column))
        return self._known[column]

    @cached_property
    def _seed_of(self) -> NDArray[np.intp] | None:
        """The seed of each granule, numbered; None where seeds are the units."""
        if self.view.unit == "seed":
            return None
        return np.searchsorted(self.seeds, self._wide.index.get_level_values("seed"))

    def tau(self, x: str, y: str) -> Tau:
        """τ of two columns as a function of how often each seed counts."""
        (a, known_a), (b, known_b) = self._signs(x), self._signs(y)
        agree, pairs = a * b, known_a * known_b
        if self._seed_of is None:
            return Tau(agree.sum(0), pairs.sum(0))
        per_seed = np.zeros((2, len(self.seeds)))
        for i, sums in enumerate((agree.sum((1, 2)), pairs.sum((1, 2)))):
            np.add.at(per_seed[i], self._seed_of, sums)
        return Tau(*per_seed)

    def permuted(self, xs: Sequence[str], ys: Sequence[str]) -> Array:
        """τ of every x and y with y moved between units, all columns and granules alike [permutations, xs, ys]."""
        sign_x, known_x = (np.stack(v).reshape(len(xs), -1) for v in zip(*map(self._signs, xs), strict=True))
        sign_y, known_y = (np.stack(v) for v in zip(*map(self._signs, ys), strict=True))
        orders = _orders(sign_y.shape[-1])
        results = np.empty((len(orders), len(xs), len(ys)))
        for i, order in enumerate(orders):
            sign, known = (v[..., order, :][..., order].reshape(len(ys), -1) for v in (sign_y, known_y))
            results[i] = _ratio(sign_x @ sign.T, known_x @ known.T)
        return results


@dataclass(frozen=True)
class Tau:
    """τ as a function of how often each seed counts: sums of signs and of pairs, by seed [n] or by two seeds [n,n]."""

    agree: Array
    pairs: Array

    def __call__(self, weights: Array) -> Array:
        """τ [B] where seed s counts weights[b, s] times."""
        if self.agree.ndim == 1:
            return _ratio(weights @ self.agree, weights @ self.pairs)
        return _ratio(*(np.einsum("bi,ij,bj->b", weights, m, weights) for m in (self.agree, self.pairs)))

    @property
    def informed(self) -> int:
        """Seeds with any pair."""
        return int((self.pairs if self.pairs.ndim == 1 else self.pairs.sum(1)).astype(bool).sum())


@dataclass(frozen=True)
class Partial:
    """Partial rank correlation of x and y given z, over seeds and within granules, as a function of seeds' weights.

    Ranks are taken within a granule; covariances of ranks are added over granules (Spearman's correlation, whose
    partial is nearly zero where x and y depend on each other by way of z alone; that of Kendall's τ is not).
    x, y, z: [granules, n]; a network counts where all three are known.
    """

    x: Array
    y: Array
    z: Array

    @cached_property
    def _ranks(self) -> tuple[Array, Array]:
        """Ranks [3, granules, n], centred and zero where unknown, and what is known [granules, n]."""
        whole = np.stack([self.x, self.y, self.z])
        known = np.isfinite(whole).all(0)
        ranks = stats.rankdata(np.where(known, whole, np.nan), axis=-1, nan_policy="omit")
        return np.where(known, ranks, 0.0), known.astype(float)

    @property
    def informed(self) -> int:
        """Seeds with any network that is known."""
        return int(self._ranks[1].any(0).sum())

    def __call__(self, weights: Array) -> Array:
        """The partial correlation [B] where seed s counts weights[b, s] times."""
        ranks, known = self._ranks
        counts = np.einsum("bn,gn->bg", weights, known)
        means = _ratio(np.einsum("bn,kgn->kbg", weights, ranks), counts)
        pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
        xx, yy, zz, xy, xz, yz = (
            np.einsum("bn,gn->b", weights, ranks[i] * ranks[j]) - np.nansum(counts * means[i] * means[j], axis=1)
            for i, j in pairs
        )
        xx, yy, zz = (v.clip(0) for v in (xx, yy, zz))
        xy, xz, yz = _ratio(xy, np.sqrt(xx * yy)), _ratio(xz, np.sqrt(xx * zz)), _ratio(yz, np.sqrt(yy * zz))
        return _ratio(xy - xz * yz, np.sqrt((1 - xz**2).clip(1e-12) * (1 - yz**2).clip(1e-12)))


def resamples(n: int, count: int = RESAMPLES) -> Array:
    """How often each of n seeds counts in each bootstrap sample [count, n]: the same ones for all measures and gaps."""
    rng = np.random.default_rng(RNG)
    return rng.multinomial(n, np.full(n, 1 / n), size=count).astype(float)


def effect(statistic: Tau | Partial, n: int) -> Effect:
    """A correlation in Fisher's z, with the standard deviation of its bootstrap over n seeds."""
    informed = statistic.informed
    if n < FEWEST or informed < FEWEST:
        return not_measured(n, informed, "too few seeds")
    z = fisher(statistic(np.ones((1, n))))[0]
    spread = fisher(statistic(resamples(n)))
    spread = spread[np.isfinite(spread)]
    if not (math.isfinite(z) and len(spread) > RESAMPLES / 2):
        return not_measured(n, informed, "no pairs")
    return Effect(float(z), float(spread.std(ddof=1)), informed - 1, informed, n)


def fisher(r: Array) -> Array:
    """Fisher's z = artanh(r)."""
    return np.arctanh(np.clip(r, -0.999999, 0.999999))


def _signs(values: Array) -> tuple[Array, Array]:
    """sign(v_i - v_j) [..., units, units], 0 where a value is unknown, and 1 where both are known and i != j."""
    with np.errstate(invalid="ignore"):
        sign = np.nan_to_num(np.sign(values[..., :, None] - values[..., None, :]))
    finite = np.isfinite(values)
    known = finite[..., :, None] & finite[..., None, :] & ~np.eye(values.shape[-1], dtype=bool)
    return sign * known, known.astype(float)


def _orders(n: int) -> list[NDArray[np.intp]]:
    """All orders of n units where they are few, else random ones."""
    if math.factorial(n) <= PERMUTATIONS:
        return [np.array(order) for order in itertools.permutations(range(n))]
    rng = np.random.default_rng(RNG)
    return [np.arange(n), *(rng.permutation(n) for _ in range(PERMUTATIONS))]  # the present order is one of them


def _ratio(a: Array, b: Array) -> Array:
    """a/b, nan where b is zero."""
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)
