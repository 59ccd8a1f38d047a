"""Checks of the second derivatives that curvature takes."""

from __future__ import annotations

import torch
from torch import Tensor

from bpgen.conformance.check import Inapplicable
from bpgen.conformance.compare import gap
from bpgen.conformance.neurons.case import SUITE, Case, bptt
from bpgen.conformance.problem import randn
from bpgen.curvature import HessianProducts
from bpgen.curvature.block import BlockProblem


@SUITE.prop(
    "piecewise linear if it says so",
    "then no second derivative is taken: one that is there after all is missing from every curvature.",
    lambda case: "" if case.fresh().piecewise_linear else "it does not say so",
)
def _piecewise(case: Case) -> None:
    neuron, s, I = case.states_and_currents()
    v, w = (
        torch.cos(torch.arange(s.numel()).double()).view_as(s),
        torch.sin(torch.arange(I.numel()).double()).view_as(I),
    )

    def slope(s: Tensor, I: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.jvp(neuron.f, (s, I), (v, w))[1], torch.func.jvp(neuron.g, (s,), (v,))[1]

    for name, second in zip("fg", torch.func.jvp(slope, (s, I), (v, w))[1], strict=True):
        assert float(second.abs().max()) < 1e-12, f"{name} has a second derivative."


@SUITE.prop(
    "Hessian products by the R-operator equal double backward",
    "curvature takes first derivatives from `local` and second ones from f and g: a path that is cut in one of them "
    "alone gives the Hessian of no function.",
)
def _products(case: Case) -> None:
    if vars(case.cls).get("derivatives_agree") is False:
        raise Inapplicable("it says derivatives_agree = False: curvature is left to autograd")
    p = case.problem()
    weights = [name for name in p.params if name not in p.network.neuron.learned]  # these are left to autograd
    fast, slow = (HessianProducts(p, weights, by=by) for by in ("roperator", "autograd"))
    v = randn(34, fast.size)
    distance = gap(fast(v), slow(v))
    assert distance < 1e-9, (
        f"they differ by {distance:.2g}: `local` and f, g do not have the same derivatives. Where that is meant, say "
        "derivatives_agree = False, and curvature is left to autograd."
    )


@SUITE.prop(
    "Hessian products are the slope of the gradient",
    "an operation whose second derivative is wrong or cut in autograd itself is wrong in every product, and only "
    "differences of gradients see it.",
    lambda case: "the gradient of a surrogate is no slope of it" if case.fresh().spiking else "",
)
def _slope(case: Case) -> None:
    p, eps = case.problem(), 1e-6
    block = BlockProblem(p, "all")
    products = HessianProducts(p, "all", by="autograd")
    v = randn(34, products.size)

    def gradient(step: float) -> Tensor:
        moved = block.at(block.theta + step * v)
        return block.free.gather(bptt(moved, moved.run(in_place=False)))

    distance = gap(products(v), (gradient(eps) - gradient(-eps)) / (2 * eps))
    assert distance < 1e-5, f"they differ by {distance:.2g} from differences of the gradient."
