"""Measures of similarity between the activities of two populations that have no neuron in common.

X [..., N] and Y [..., M] hold m = conditions x steps rows in the same order, centred over them before anything else;
‖·‖ is Frobenius' norm and ‖·‖_* the sum of singular values.
    (1) Procrustes    d = arccos(‖XᵀY‖_* / (‖X‖ ‖Y‖)), in [0, π/2]     Williams et al. 2021 (NeurIPS), rotations only
    (2) linear CKA    ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖), in [0, 1]                Kornblith et al. 2019
    (3) CCA           mean canonical correlation of the first principal components, in [0, 1]   Raghu et al. 2017
(1) is a distance: it is symmetric, zero only between rotated and scaled copies, and obeys the triangle inequality. None
changes under rotations, shifts or a factor on all of X or all of Y. Where N and M differ, the smaller one counts as
filled up with silent neurons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bpgen.errors import require

Array = NDArray[np.float64]
COMPONENTS = 20  # of CCA, as Liu, Yang and Cueva 2025 keep
_RANK = 1e-7  # a principal component whose standard deviation is below this part of the largest is rounding


def procrustes(X: ArrayLike, Y: ArrayLike) -> float:
    """Equation (1), the angle in radians that the best rotation of one onto the other leaves.

    By the arctangent of ½ (the same angle; Kahan), which keeps small angles that an arccosine would round to 1e-8.

    Raises:
        BpgenError: the arrays are not two activities of the same conditions and steps.
    """
    x, y = _pair(X, Y)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    if x.shape[1] > y.shape[1]:
        x, y = y, x
    U, _, Vt = np.linalg.svd(x.T @ y, full_matrices=False)  # [N,N], [N,M], N <= M
    turned = (x @ U) @ Vt  # onto y, in its dimensions
    return 2 * math.atan2(float(np.linalg.norm(turned - y)), float(np.linalg.norm(turned + y)))


def cka(X: ArrayLike, Y: ArrayLike) -> float:
    """Equation (2), a similarity.

    Raises:
        BpgenError: as for `procrustes`.
    """
    x, y = _pair(X, Y)
    return float(np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def cca(X: ArrayLike, Y: ArrayLike, components: int = COMPONENTS) -> float:
    """Equation (3), a similarity: of min(components, rank) principal components each, without a ridge.

    The source adds 1e-3 to the diagonal of the covariances, which depends on the unit of the activity.

    Raises:
        BpgenError: as for `procrustes`, or no component is asked for, or there are as many as rows.
    """
    x, y = _pair(X, Y)
    require(components >= 1, f"CCA needs at least one component, got {components}.")
    bases = [_principal(a, components) for a in (x, y)]
    most = max(b.shape[1] for b in bases)
    require(
        most < len(x) - 1,
        f"{most} components of {len(x)} conditions x steps correlate whatever they are: take fewer components.",
    )
    correlations = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return float(np.clip(correlations, 0, 1).mean())


def _procrustes_share(X: ArrayLike, Y: ArrayLike) -> float:
    return procrustes(X, Y) / (math.pi / 2)


def _cka_distance(X: ArrayLike, Y: ArrayLike) -> float:
    return 1 - cka(X, Y)


def _cca_distance(X: ArrayLike, Y: ArrayLike) -> float:
    return 1 - cca(X, Y)


DISTANCES: Mapping[str, Callable[[Any, Any], float]] = {  # each from 0, alike, to 1, as the source scales them
    "procrustes": _procrustes_share,
    "cka": _cka_distance,
    "cca": _cca_distance,
}


def _principal(x: Array, components: int) -> Array:
    """An orthonormal basis [m,k] of what the first principal components do over the rows."""
    U, s, _ = np.linalg.svd(x, full_matrices=False)
    return np.asarray(U[:, : min(components, int((s > _RANK * s[0]).sum()))], dtype=np.float64)


def _pair(X: ArrayLike, Y: ArrayLike) -> tuple[Array, Array]:
    """Two activities as centred matrices of the same rows."""
    x, y = _rows(X), _rows(Y)
    require(
        np.shape(X)[:-1] == np.shape(Y)[:-1],
        f"activities to be compared share conditions and steps, got shapes {np.shape(X)} and {np.shape(Y)}.",
    )
    return x, y


def _rows(X: ArrayLike) -> Array:
    """An activity as rows [m,N], centred over them."""
    a = np.asarray(X)
    plain = a.ndim >= 2 and a.size > 0 and a.dtype.kind in "fiub"
    require(plain, f"an activity is an array of numbers [..., neurons], got {a.dtype} of shape {a.shape}.")
    rows = a.reshape(-1, a.shape[-1]).astype(np.float64)
    require(bool(np.isfinite(rows).all()), "an activity holds numbers that are not finite: leave out those neurons.")
    centred: Array = rows - rows.mean(0)
    moved = np.linalg.norm(centred) > _RANK * np.linalg.norm(rows)
    require(bool(moved), "an activity is the same in all conditions and steps: there is nothing to compare.")
    return centred
