"""Mediation: how much of a rule's effect on the gap goes by way of a measure, from seeds run under both rules.

Per seed, with Δ the rule minus the reference and m̄ the mean of the measure over both, centred over seeds:
    (1) ΔM = a + error            (2) ΔY = c' + b ΔM + d m̄ + error
    (3) total effect c = mean ΔY = c' + a b      direct c'      indirect a b, the product of paths
which is the two-condition within-participant model of Judd, Kenny & McClelland 2001 with the product of paths of
Montoya & Hayes 2017; (3) is an identity of least squares. b is the relation of measure and gap over seeds, so that a
difference between rules alone has no indirect effect. Intervals are percentiles of a bootstrap over seeds, expanded for
its narrowness at small n (Hesterberg 2015): Φ(-√(n/(n-3)) t) on either side, t Student's with n - 3 degrees of freedom.
Simulated (tests/analysis): where nothing passes, 3 to 5 % of them leave zero out at 15 and 20 seeds and fewer at 8; of
plain percentiles 8 to 12 %.

What has to hold for an indirect effect to be a cause, and what no number here can show: the measure acts on the gap and
not the gap, or a third thing that also varies between seeds, on the measure; its slope is the same under both rules and
linear in the scale it is given on; and runs that never reached the matched loss left at random. An interval around zero
says that the seeds show no passage, not that there is none.

References: C. M. Judd, D. A. Kenny, G. H. McClelland, Psychological Methods 6 (2001) 115; A. K. Montoya, A. F. Hayes,
Psychological Methods 22 (2017) 6; D. P. MacKinnon et al., Multivariate Behavioral Research 39 (2004) 99;
T. C. Hesterberg, American Statistician 69 (2015) 371.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import special

from bpgen.analysis.statistics import RNG, Array, by_seed

RESAMPLES = 4000
FEWEST = 6  # seeds: three coefficients and as many degrees of freedom
PATHS = ("total", "direct", "indirect", "a", "b")


def mediation(matched: pd.DataFrame, mediator: str, gap: str, condition: str, reference: str) -> dict[str, float]:
    """The paths of one rule against a reference, through one measure.

    Args:
        matched: a row per network at matched training loss: condition, seed, at, and the columns.
        mediator, gap: columns; of several matched losses the means are taken.
        condition, reference: the two rules.

    Returns:
        Every path of `PATHS` with its "low" and "high" at 95 %, and n, the seeds with both; nan below 6 seeds.
    """
    own = matched[matched["condition"].isin([condition, reference])]
    means = own.groupby(["condition", "seed"], as_index=False)[[mediator, gap]].agg(lambda v: v.mean(skipna=False))
    M, Y = (by_seed(means, c).reindex(columns=[condition, reference]).to_numpy(float) for c in (mediator, gap))
    both = np.isfinite(M).all(1) & np.isfinite(Y).all(1)
    M, Y, n = M[both], Y[both], int(both.sum())
    row: dict[str, float] = {"n": n}
    if n < FEWEST:
        return row | {f"{path}{end}": np.nan for path in PATHS for end in ("", " low", " high")}
    rng = np.random.default_rng(RNG)
    drawn = rng.integers(n, size=(RESAMPLES, n))
    tail = special.ndtr(-math.sqrt(n / (n - 3)) * special.stdtrit(n - 3, 0.975))
    low, high = np.quantile(_paths(M[drawn], Y[drawn]), [tail, 1 - tail], axis=0)
    for path, value, lowest, highest in zip(PATHS, _paths(M[None], Y[None])[0], low, high, strict=True):
        row |= {path: float(value), f"{path} low": float(lowest), f"{path} high": float(highest)}
    return row


def mediations(
    matched: pd.DataFrame, mediators: Sequence[str], gaps: Sequence[str], reference: str | None = None
) -> pd.DataFrame:
    """The paths of every rule against the reference (the first one by default), in every setting."""
    rows = []
    for setting, part in matched.groupby("setting", sort=False):
        conditions = list(dict.fromkeys(part["condition"]))
        base = conditions[0] if reference not in conditions else str(reference)
        for condition in (c for c in conditions if c != base):
            for gap in gaps:
                for mediator in mediators:
                    names = {"setting": setting, "rule": condition, "reference": base, "gap": gap, "mediator": mediator}
                    rows.append(names | mediation(part, mediator, gap, condition, base))
    return pd.DataFrame(rows)


def _paths(M: Array, Y: Array) -> Array:
    """total, direct, indirect, a, b [R,5] by least squares, of M and Y [R,n,2] under the rule and the reference."""
    dM, dY, mean = M[..., 0] - M[..., 1], Y[..., 0] - Y[..., 1], M.mean(-1)
    design = np.stack([np.ones_like(dM), dM, mean - mean.mean(-1, keepdims=True)], axis=-1)
    direct, b, _ = np.moveaxis((np.linalg.pinv(design) @ dY[..., None])[..., 0], -1, 0)
    a = dM.mean(-1)
    return np.stack([dY.mean(-1), direct, a * b, a, b], axis=-1)
