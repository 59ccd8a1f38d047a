"""The trace of a Hessian by Hutch++, with a confidence interval.

With S [P,s] random signs, Q an orthonormal basis of H S, and g random signs, n of them:
    (1) tr H = tr QᵀHQ + tr (I - QQᵀ) H (I - QQᵀ) ≈ Σ_i q_iᵀ H q_i + (1/n) Σ_g g_⊥ᵀ H g_⊥,     g_⊥ = (I - QQᵀ) g
The first part is exact, the second unbiased (Hutchinson 1990), and small where few eigenvalues dominate: the error
falls as 1/products instead of its square root. The interval is Student's, from the spread of the n independent terms.
With s >= the rank of H, or P <= s, nothing is left to estimate.

References: R. A. Meyer, C. Musco, C. Musco, D. P. Woodruff, Hutch++: optimal stochastic trace estimation, SOSA 2021,
algorithm 1; M. F. Hutchinson, Commun. Stat. Simul. 19 (1990) 433-450.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from bpgen.curvature.products import Backend, Products, products_of
from bpgen.errors import choice, require
from bpgen.streams import generator


@dataclass(frozen=True)
class Trace:
    """An estimate of tr H.

    value: the estimate. low, high: the interval of that confidence. exact_part: Σ q_iᵀ H q_i.
    free: P. products, seconds, seed: what it took. products_by: how products were taken.
    """

    value: float
    low: float
    high: float
    confidence: float
    exact_part: float
    free: int
    products: int
    seconds: float
    seed: int
    products_by: str


def trace(
    operator: Products,
    products: int = 60,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    backend: Backend = "ours",
) -> Trace:
    """Equation (1) with a third of the products for each of H S, H Q and the random rest.

    Args:
        operator: products with float64 vectors.
        products: how many may be taken, at least 6; fewer are where P is small.
        confidence: of the interval, in (0, 1).
        seed: of the random signs.
        backend: "ours", or "pyhessian" as an independent check: Hutchinson's estimator on products of its own, so that
            the exact part is zero and the interval wide. Only for `HessianProducts`.

    Raises:
        BpgenError: a number outside its range, or an operator that the backend does not know.
    """
    require(products >= 6, f"products must be at least 6, got {products}.")
    require(0 < confidence < 1, f"confidence must be in (0, 1), got {confidence}.")
    from scipy.stats import t as student  # not needed for anything else

    began, P, by = time.perf_counter(), operator.size, getattr(operator, "by", "given")
    if choice("backend", backend, Backend) == "pyhessian":
        from bpgen.curvature.pyhessian import model_of, quadratic_forms

        exact, rest, taken, by = 0.0, quadratic_forms(model_of(operator), products, seed), products, "autograd"
    else:
        exact, rest, taken = _parts(operator, products, seed)
    n = len(rest)
    half = float(student.ppf(0.5 + confidence / 2, n - 1)) * rest.std().item() / n**0.5
    value, seconds = exact + rest.mean().item(), time.perf_counter() - began
    return Trace(value, value - half, value + half, confidence, exact, P, taken, seconds, seed, by)


def _parts(operator: Products, products: int, seed: int) -> tuple[float, torch.Tensor, int]:
    """The two parts of equation (1), the second as its n terms, and how many products they took."""
    random, P = generator(seed, "trace"), operator.size
    s = min(products // 3, P)
    n = products - 2 * s
    if s == P:
        Q, taken = torch.eye(P, dtype=torch.float64), 0
    else:
        HS = products_of(operator, _signs(s, P, random))
        _, sizes, V = torch.linalg.svd(HS, full_matrices=False)
        keep = sizes > 8 * operator.precision * sizes[0]
        Q, taken = V[keep], s
    exact = (Q * products_of(operator, Q)).sum().item() if len(Q) else 0.0
    rest = torch.zeros(n, dtype=torch.float64)
    if len(Q) == P:
        return exact, rest, taken + P
    g = _signs(n, P, random)
    g = g - (g @ Q.T) @ Q
    return exact, (g * products_of(operator, g)).sum(1), taken + len(Q) + n


def _signs(n: int, P: int, random: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2, (n, P), generator=random).double().mul_(2).sub_(1)
