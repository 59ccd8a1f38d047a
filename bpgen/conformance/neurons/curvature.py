"""Checks of the second derivatives that curvature takes."""

from __future__ import annotations

import torch
from torch import Tensor

from bpgen.conformance.check import Inapplicable
from bpgen.conformance.neurons.case import SUITE, Case
from bpgen.curvature.proof import disagreement


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
def _second(case: Case) -> None:
    network = case.problem().network
    declared = vars(case.cls).get("derivatives_agree")
    if declared is False:
        raise Inapplicable("it says derivatives_agree = False: curvature is left to autograd")
    distance = disagreement(network)
    assert distance <= 1e-9, (
        f"they differ by {distance:.2g}: `local` and f, g do not have the same derivatives. Where that is meant, say "
        "derivatives_agree = False, and curvature is left to autograd."
    )
