"""Checks of A, C and D, the derivatives inside one neuron, and of the credit that they carry."""

from __future__ import annotations

import torch
from torch import Tensor

from bpgen.conformance.compare import assert_apart, assert_same, gap
from bpgen.conformance.neurons.case import SUITE, Case, bptt
from bpgen.conformance.problem import randn
from bpgen.neurons import Neuron
from bpgen.neurons.gain import Gain, Local


def jacobians(local: Local, s: Tensor, n_currents: int) -> dict[str, Tensor]:
    """A [T,B,d,d,N], C [T,B,d,K,N] at t = 1..T and D [T+1,B,1,d,N], from the pull-backs of unit vectors.

    Args:
        local: the gains along a trajectory.
        s: its states [T+1,B,d,N].
        n_currents: K.
    """
    d, later = s.shape[-2], slice(1, len(s))

    def rows(gain: Gain, rows: int, columns: int, times: slice) -> Tensor:
        one, pulled = torch.ones_like(s[times][..., 0, :]), []
        for i in range(rows):
            unit = torch.stack([one if j == i else 0 * one for j in range(rows)], dim=-2)
            pulled.append(gain.pull(unit, times).expand(*one.shape[:-1], columns, one.shape[-1]))
        return torch.stack(pulled, dim=-3)

    return {
        "A = ∂s_t/∂s_{t-1}": rows(local.A, d, d, later),
        "C = ∂s_t/∂I_t": rows(local.C, d, n_currents, later),
        "D = ∂h_t/∂s_t": rows(local.D, 1, d, slice(0, len(s))),
    }


@SUITE.prop(
    "f and g have the derivatives that autograd takes of them",
    "forward mode is what every rule and every product falls back on: an operation with a wrong derivative of its own "
    "is seen by differences of f and g alone.",
    lambda case: "spikes jump: their derivative is a surrogate" if case.fresh().spiking else "",
)
def _differences(case: Case) -> None:
    neuron, s, I = case.states_and_currents()
    eps = 1e-6
    for name, function, point in (
        ("f by the state", lambda v: neuron.f(v, I), s),
        ("f by the currents", lambda v: neuron.f(s, v), I),
        ("g", lambda v: neuron.g(v), s),
    ):
        for k in range(point.shape[-2]):
            unit = torch.zeros_like(point)
            unit[..., k, :] = 1
            slope = (function(point + eps * unit) - function(point - eps * unit)) / (2 * eps)
            got = torch.func.jvp(function, (point,), (unit,))[1]
            distance = float((got - slope).norm()) / max(float(slope.norm()), 1e-6)
            assert distance < 1e-4, (
                f"the derivative of {name}, component {k}, is not the slope of its values (off by {distance:.2g}). If "
                "that is meant, it is a surrogate: set spiking = True."
            )


@SUITE.prop(
    "a spike's surrogate is active",
    "where ψ is zero at every state that comes by, no credit passes: comparisons of rules are of nothing with nothing.",
    lambda case: "" if case.fresh().spiking else "it does not spike",
)
def _surrogate(case: Case) -> None:
    neuron, s, _ = case.states_and_currents()
    h = neuron.g(s)
    values = sorted(set(h.flatten().tolist()))
    jumps = len(values) == 2 and values[0] == 0
    assert jumps, f"its activity takes the values {values[:5]}, not 0 and that of a spike."
    D = jacobians(neuron.local(case.trajectory), case.trajectory.states, case.K)["D = ∂h_t/∂s_t"]
    assert bool(D.any()), "∂h/∂s is zero at every state of a run: there is no surrogate, or its width is too small."


@SUITE.prop(
    "A, C and D are the derivatives of f and g",
    "`local` is what rules carry credit by: closed forms that differ from forward mode are another neuron's.",
    lambda case: "they are forward mode of f and g" if case.cls.local is Neuron.local else "",
)
def _closed_forms(case: Case) -> None:
    run, neuron = case.trajectory, case.trajectory.network.neuron
    got = jacobians(neuron.local(run), run.states, case.K)
    expected = jacobians(Neuron.local(neuron, run), run.states, case.K)
    for name, value in expected.items():
        distance = gap(got[name], value)
        assert distance < 1e-9, f"{name} of `local` differs from forward mode by {distance:.2g}."


@SUITE.prop(
    "what it learns does what the current does that it names",
    "rules know of a learned parameter by that current alone (`as_currents`): another one is another gradient.",
    lambda case: "" if case.population().learned else "it learns nothing of its own",
)
def _learned(case: Case) -> None:
    neuron, s, I = case.states_and_currents()
    start, js = neuron.learned, neuron.as_currents(s, I)
    assert set(js) == set(start), f"`as_currents` names {', '.join(js) or 'nothing'}, `learned` {', '.join(start)}."
    for i, (name, theta) in enumerate(start.items()):
        along = randn(60 + i, *theta.shape)

        def moved(value: Tensor, name: str = name) -> Tensor:
            return neuron.at({**start, name: value}).f(s, I)

        got = torch.func.jvp(lambda I: neuron.f(s, I), (I,), (js[name] * along,))[1]
        value, moves = torch.func.jvp(moved, (theta,), (along,))[:2]
        assert gap(value, neuron.f(s, I)) < 1e-9, f"`at` does not start where `learned` says, for {name}."
        assert bool(moves.any()), f"{name} does nothing: `at` leaves it out."
        assert gap(got, moves) < 1e-9, f"the current of {name} does not do what {name} does."


@SUITE.prop(
    "credit along its gains equals autograd through the whole run",
    "BPTT here never calls autograd: that both agree says that states, currents, activities and their derivatives fit.",
)
def _credit(case: Case) -> None:
    for options in ({"trainable_initial_state": True}, {"kappa": 0.3}, {"from_rest": True}):
        p = case.problem(**options)
        expected = p.gradient()
        assert_apart(case.problem(1, **options).gradient(), expected, ["W_rec", "W_in"], "another network")
        assert_same(bptt(p, p.run(in_place=False)), expected, "BPTT by the credit kernel is not autograd's")
