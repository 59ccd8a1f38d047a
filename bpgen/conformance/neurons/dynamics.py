"""Checks of f and g themselves: shapes, each neuron for itself, nothing kept and nothing drawn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bpgen.conformance.neurons.case import SUITE, Case
from bpgen.conformance.problem import randn
from bpgen.neurons import Neuron


@SUITE.prop(
    "f and g give states and activities of their shape and dtype",
    "states are [...,d,N], currents [...,K,N] and activities [...,N], with any axes in front: time, batch, seeds.",
)
def _form(case: Case) -> None:
    N, d, K = 5, case.d, case.K
    for dtype in (torch.float64, torch.float32):
        neuron = case.population(N, dtype=dtype)
        for front in ((), (3, 2)):
            s, I = randn(32, *front, d, N).to(dtype), randn(33, *front, K, N).to(dtype)
            for name, got, shape in (("f", neuron.f(s, I), (*front, d, N)), ("g", neuron.g(s), (*front, N))):
                assert list(got.shape) == list(shape), f"{name} gives {list(got.shape)}, not {list(shape)}."
                assert got.dtype == dtype, f"{name} gives {got.dtype} from {dtype}."
    for name in ("recurrent_currents", "input_currents"):
        reached = getattr(neuron, name)
        assert reached is None or set(reached) <= set(range(K)), f"{name} = {reached} names currents beyond K = {K}."
    scale = torch.as_tensor(neuron.noise_scale)
    positive = bool((scale > 0).all() & scale.isfinite().all())
    assert positive, f"noise_scale must be a positive number or [N], it is {scale.tolist()}."


@SUITE.prop(
    "f and g are functions of their arguments",
    "a neuron that draws, remembers or overwrites gives other numbers the second time: derivatives, curvature and a "
    "repeated run are then of something else.",
)
def _pure(case: Case) -> None:
    neuron, s, I = case.states_and_currents()
    before_s, before_I, kept = s.clone(), I.clone(), _attributes(neuron)
    stream = torch.get_rng_state()
    neuron.f(s, I)
    neuron.g(s)
    assert torch.equal(s, before_s), "f or g overwrote the state that it was handed."
    assert torch.equal(I, before_I), "f overwrote the currents that it was handed."
    for name, ask in (("f", lambda: neuron.f(s, I)), ("g", lambda: neuron.g(s))):
        _same_twice(name, ask)
    assert torch.equal(torch.get_rng_state(), stream), "f or g draws random numbers: noise is the network's business."
    changed = [name for name, value in _attributes(neuron).items() if name not in kept or not _equal(kept[name], value)]
    assert not changed, (
        f"f or g changed the neuron's own {', '.join(changed)}: what it remembers belongs into its state."
    )


def _same_twice(name: str, ask: Callable[[], Tensor]) -> None:
    first = ask().clone()
    assert torch.equal(ask(), first), f"{name} gives other values for the same arguments when it is asked again."


def _attributes(neuron: Neuron) -> dict[str, object]:
    """What a neuron has in itself, buffers included."""
    own = {name: value for name, value in vars(neuron).items() if not name.startswith("_")}
    own |= {name: value for name, value in vars(neuron).items() if isinstance(value, (Tensor, int, float, list))}
    return {n: v.clone() if isinstance(v, Tensor) else v for n, v in {**own, **dict(neuron.named_buffers())}.items()}


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return one is other or bool(one == other)


@SUITE.prop(
    "it follows its state and its currents",
    "a neuron that a current cannot move learns nothing, and a state that nobody reads is none.",
)
def _follows(case: Case) -> None:
    neuron, s, I = case.states_and_currents()
    other = torch.roll(torch.arange(len(s)), 3)
    assert not torch.equal(neuron.f(s, I[other]), neuron.f(s, I)), "other currents give the same next state."
    assert not torch.equal(neuron.g(s[other]), neuron.g(s)), "other states give the same activity."


@SUITE.prop(
    "each neuron follows itself alone",
    "only W_rec lets one neuron drive another: a sum or a norm over neurons inside f or g is a path that no rule sees.",
)
def _alone(case: Case) -> None:
    neuron, s, I = case.states_and_currents()
    shift = torch.roll(torch.arange(len(s)), 3)
    for i in range(s.shape[-1]):
        changed_s, changed_I = s.clone(), I.clone()
        changed_s[..., i], changed_I[..., i] = s[shift][..., i], I[shift][..., i]
        others = [n for n in range(s.shape[-1]) if n != i]
        for name, got, before in (
            ("f", neuron.f(changed_s, changed_I), neuron.f(s, I)),
            ("g", neuron.g(changed_s), neuron.g(s)),
        ):
            same = torch.allclose(got[..., others], before[..., others], rtol=0, atol=1e-12)
            assert same, f"changing state and currents of neuron {i} changes {name} of other neurons."


@SUITE.prop(
    "each sample follows itself alone",
    "batch statistics inside a neuron mix sequences: a batch of one then gives other dynamics.",
)
def _samples(case: Case) -> None:
    neuron, s, I = case.states_and_currents()
    for part in (slice(0, 1), slice(1, 4)):
        for name, got, whole in (
            ("f", neuron.f(s[part], I[part]), neuron.f(s, I)),
            ("g", neuron.g(s[part]), neuron.g(s)),
        ):
            assert torch.allclose(got, whole[part], rtol=0, atol=1e-12), f"{name} of a sample depends on its batch."


@SUITE.prop(
    "the zero state is a start",
    "a sequence starts from s_0 = 0 and h_0 = g(0) unless a state is given: values and derivatives have to be finite "
    "there, and no neuron may spike before it got any input.",
)
def _rest(case: Case) -> None:
    neuron, s, I = case.states_and_currents()
    zero, silent = torch.zeros_like(s[:1]), torch.zeros_like(I[:1])
    h = neuron.g(zero)
    assert bool(h.isfinite().all()), f"g(0) is {h.flatten().tolist()}."
    assert bool(neuron.f(zero, silent).isfinite().all()), "f(0, 0) is not finite."
    assert not (neuron.spiking and h.any()), f"a spiking neuron fires at rest: g(0) is {h.flatten().tolist()}."
    tangents = torch.ones_like(zero), torch.ones_like(silent)
    slopes = {
        "f": torch.func.jvp(neuron.f, (zero, silent), tangents)[1],
        "g": torch.func.jvp(neuron.g, (zero,), tangents[:1])[1],
    }
    for name, slope in slopes.items():
        assert bool(slope.isfinite().all()), f"the derivative of {name} at the zero state is not finite."
