"""Checks of a neuron's life: options, population, precision, and what a saved run brings back."""

from __future__ import annotations

import torch
import yaml
from torch import Tensor

from bpgen.conformance.compare import gap
from bpgen.conformance.neurons.case import SUITE, Case
from bpgen.neurons import Neuron
from bpgen.signatures import options_of
from bpgen.streams import generator


@SUITE.prop(
    "a population is fixed by its seed and saved with the network",
    "`populate` draws what differs between neurons, once: one seed gives one population, in the network's dtype, and a "
    "checkpoint brings it back. Tensors that are not buffers stay behind when a network is moved or saved.",
)
def _population(case: Case) -> None:
    fresh = case.fresh()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    one = fresh.populate(5, generator(0, "neuron"), torch.float64)
    assert isinstance(one, Neuron), f"`populate` gives {type(one).__name__}, which is not a Neuron."
    changed = [n for n, value in fresh.state_dict().items() if n not in before or not torch.equal(before[n], value)]
    assert not changed, f"`populate` changed the neuron itself ({', '.join(changed)}): make a copy."
    loose = [name for name, value in vars(one).items() if isinstance(value, Tensor)]
    assert not loose, f"{', '.join(loose)} is a tensor and no buffer: register_buffer it."
    for name, value in case.population(dtype=torch.float32).named_buffers():
        wrong = value.is_floating_point() and value.dtype != torch.float32
        assert not wrong, f"in a float32 network {name} is {value.dtype}: cast it to `dtype` in `populate`."
    _assert_equal(case, case.population(), one, "one seed gives two populations")
    other = case.population(seed=1)
    other.load_state_dict(one.state_dict())
    _assert_equal(case, other, one, "a population restored from its state_dict differs")


@SUITE.prop(
    "its options come back from a saved run",
    "a run keeps the neuron's options as YAML and builds it again from them: each needs a type that the command line "
    "can read, and a value that YAML can hold.",
)
def _options(case: Case) -> None:
    given = {o.name: o.default for o in options_of(case.cls) if not o.required} | dict(case.options)
    untyped = [option.name for option in options_of(case.cls) if not option.type]
    assert not untyped, f"{', '.join(untyped)} of its constructor has no type: `bpgen fit` cannot read it."
    try:
        saved = yaml.safe_load(yaml.safe_dump(given))
    except yaml.YAMLError as error:
        raise AssertionError(f"its options cannot be written as YAML: {error}") from error
    again = case.cls(**saved).populate(5, generator(0, "neuron"), torch.float64)
    _assert_equal(case, again, case.population(), "built again from its saved options, it is another neuron")


def _assert_equal(case: Case, got: Neuron, expected: Neuron, what: str) -> None:
    _, s, I = case.states_and_currents()
    sizes = [(neuron.n_states, neuron.n_currents) for neuron in (got, expected)]
    assert sizes[0] == sizes[1], f"{what}: d, K = {sizes[0]}, not {sizes[1]}."
    same = torch.equal(got.f(s, I), expected.f(s, I)) and torch.equal(got.g(s), expected.g(s))
    assert same, f"{what}: f and g give other values."


@SUITE.prop(
    "float32 agrees with float64",
    "training runs in float32: dynamics that lose their digits there were only ever right in the tests.",
)
def _precision(case: Case) -> None:
    _, s, I = case.states_and_currents()
    neuron = case.population()
    single = case.population(dtype=torch.float32)
    for name, got, expected in (
        ("f", single.f(s.float(), I.float()), neuron.f(s, I)),
        ("g", single.g(s.float()), neuron.g(s)),
    ):
        distance = gap(got.double(), expected)
        assert distance < 1e-4, f"{name} in float32 differs by {distance:.2g}."
