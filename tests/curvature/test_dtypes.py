"""Every measure under both default dtypes of torch and for networks in both precisions: the numbers are the same."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F

import bpgen
from bpgen.curvature import (
    HessianProducts,
    ModuleProducts,
    Search,
    density,
    eigenvalues,
    module_sharpness,
    participation,
    trace,
)
from bpgen.curvature.survey import survey
from bpgen.neurons import ALIF, GRU, LIF, LSTM, Leaky
from bpgen.problem import Problem
from bpgen.stability import RuleJacobian, analyse
from tests.curvature.dense import asked
from tests.neurons.strangers import Adaptive
from tests.oracles import problem

NEURONS = {
    "leaky": lambda: Leaky(0.4, "tanh"),
    "leaky, drawn": lambda: Leaky((0.2, 0.8), "tanh", "rate"),
    "lif": lambda: LIF(0.4, 0.3, surrogate="gaussian"),
    "alif": lambda: ALIF(0.4, 0.3, n_refractory=1),
    "gru": GRU,
    "lstm": LSTM,
    "stranger": Adaptive,
}


def ends(p: Problem) -> list[float]:
    return eigenvalues(p, "all", Search(2, 1e-4, definition="both")).eigenvalues.tolist()


def by_autograd(p: Problem) -> list[float]:
    operator = HessianProducts(p, "all", by="autograd", chunk_size=2)
    return [operator(torch.ones(operator.size)).norm().item()]


def pyhessian(p: Problem) -> list[float]:
    return eigenvalues(p, search=Search(1, 1e-7, max_products=500, backend="pyhessian")).eigenvalues.tolist()


def traces(p: Problem) -> list[float]:
    operator = HessianProducts(p)
    return [trace(operator, backend=backend).value for backend in ("ours", "pyhessian")]


def densities(p: Problem) -> list[float]:
    operator = HessianProducts(p)
    return [density(operator, 4, 6, backend=backend).moment(2)[0] for backend in ("ours", "pyhessian")]


def everything(p: Problem) -> list[float]:
    found = survey(p, "all", Search(2), measures=True, spectrum=True)
    shares = participation(p.network, found.sharp.vectors[0], "all")
    landscape = [*found.slopes.abs().tolist(), found.line(0, 3)[1].item(), found.plane(3)[1, 1].item()]
    measures = {name: value for name, value in found.measures.items() if "residual" not in name}
    return [found.loss, *landscape, *shares.effective, *measures.values(), found.numbers()["trace"]["value"]]


def module(p: Problem) -> list[float]:
    assert p.loss.kind == "mse"
    found = module_sharpness(p.network, lambda m: 0.5 * F.mse_loss(m(p.x, "all"), p.target, reduction="sum") / p.batch)
    operator = ModuleProducts(p.network, lambda m: m(p.x, "all").square().mean())
    return [found.eigenvalues.item(), operator(torch.ones(operator.size)).norm().item()]


def stable(p: Problem, rule: str) -> list[float]:
    bound = bpgen.load_rule(rule).bind(p.network)
    found = analyse(RuleJacobian(bound, p, {}), Search(2, 1e-5), lr=0.1, probes=3)
    return [found.rho, found.cosine, found.lambda_max, found.mu[0].abs().item(), found.asymmetry, found.max_multiplier]


MEASURES = {
    "both ends": ends,
    "by autograd": by_autograd,
    "pyhessian": pyhessian,
    "trace": traces,
    "density": densities,
    "survey": everything,
    "module": module,
    **{f"stability of {rule}": functools.partial(stable, rule=rule) for rule in ("bptt", "rflo")},
}
ONLY = {  # measures that ask a neuron for nothing that the others do not
    **dict.fromkeys(("pyhessian", "trace", "density", "survey"), ("leaky",)),
    **dict.fromkeys(("module", "stability of rflo"), ("leaky, drawn", "alif")),
    "stability of bptt": ("lstm",),
}


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32 by default", "float64 by default"])
def _default(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(before)


def rounded(neuron: str) -> Problem:
    """In single precision, so that in double precision it is the same function."""
    return asked(problem(NEURONS[neuron](), T=5, B=3, I=3, N=4, O=2, masked=True)).to(torch.float32)


@functools.lru_cache
def exact(neuron: str, measure: str) -> list[float]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        return MEASURES[measure](rounded(neuron).to(torch.float64))
    finally:
        torch.set_default_dtype(before)


@pytest.mark.usefixtures("_default")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("neuron", "measure"),
    [(n, m) for m in MEASURES for n in ONLY.get(m, tuple(NEURONS))],
)
def test_a_measure_does_not_depend_on_dtypes(neuron, measure, dtype):
    p = rounded(neuron).to(dtype)
    assert p.network.W_rec.dtype == p.x.dtype == dtype
    got, expected = MEASURES[measure](p), exact(neuron, measure)
    assert got == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert any(abs(value) > 1e-3 for value in expected)
