"""The suite for neurons: it passes the good ones, and names what is wrong with bad ones."""

from __future__ import annotations

import pytest

from bpgen.conformance import checks, plan
from bpgen.registry import plugins
from tests.neurons import strangers, wrong

SHAPES = "f and g give states and activities of their shape and dtype"
POPULATION = "a population is fixed by its seed and saved with the network"
IN_PLACE = "the path in place gives the same numbers"
OPTIONS = "its options come back from a saved run"
# row: the deliberately wrong neuron, the check that fails first, and what its message says
WRONG = {
    "GivesTheWrongShape": (SHAPES, "g gives"),
    "OfOnePrecision": (SHAPES, "f gives torch.float64 from torch.float32"),
    "DeafToItsCurrents": ("it follows its state and its currents", "other currents give the same"),
    "InhibitsItsNeighbours": ("each neuron follows itself alone", "neuron 0 changes f of other neurons"),
    "NormalisedOverTheBatch": ("each sample follows itself alone", "g of a sample depends on its batch"),
    "KinkAtRest": ("the zero state is a start", "derivative of g at the zero state is not finite"),
    "FiresAtRest": ("the zero state is a start", "fires at rest"),
    "CountsItsCalls": ("f and g are functions of their arguments", "changed the neuron's own calls"),
    "NoiseOfItsOwn": ("f and g are functions of their arguments", "other values for the same arguments"),
    "OverwritesItsState": ("f and g are functions of their arguments", "overwrote the state"),
    "PlainTensor": (POPULATION, "tau is a tensor and no buffer"),
    "DrawsGlobally": (POPULATION, "one seed gives two populations"),
    "PopulatesItself": (POPULATION, "changed the neuron itself"),
    "OptionWithoutType": (OPTIONS, "alpha of its constructor has no type"),
    "OptionThatIsAFunction": (OPTIONS, "cannot be written as YAML"),
    "LosesDigits": ("float32 agrees with float64", "f in float32 differs"),
    "StraightThrough": ("f and g have the derivatives that autograd takes of them", "set spiking = True"),
    "DeadSurrogate": ("a spike's surrogate is active", "there is no surrogate"),
    "KeepsWhatItLoses": ("A, C and D are the derivatives of f and g", "A = ∂s_t/∂s_{t-1} of `local` differs"),
    "LearnsAnotherLeak": ("what it learns does what the current does that it names", "does not do what alpha_logit"),
    "HalfTheWayBack": ("credit along its gains equals autograd through the whole run", "is not autograd's"),
    "CallsItselfLinear": ("piecewise linear if it says so", "f has a second derivative"),
    "CutsTheSecondDerivative": ("Hessian products are the slope of the gradient", "from differences of the gradient"),
    "ForgetsTheLeakInPlace": (IN_PLACE, "h of the path in place"),
    "FoldsHalfTheReset": (IN_PLACE, "h of the path in place"),
    "ForgetsTheResetGateOnTheWayBack": (
        "the path in place gives the same numbers",
        "gradients along the path in place",
    ),
    "KeepsTheCellOnTheWayBack": (IN_PLACE, "gradients along the path in place"),
    "BranchesOnData": ("stacked seeds equal seeds alone", "vmap"),
}


def failures(neuron, **options):
    return [(c.name, o.message) for c in plan(neuron, **options) for o in [c.run()] if o.status == "fail"]


@pytest.mark.parametrize("name", WRONG)
def test_a_planted_mistake_is_caught_by_the_check_that_names_it(name):
    expected, message = WRONG[name]
    first = next(check for check in plan(getattr(wrong, name)) if check.run().status == "fail")
    assert first.name == expected, first.run().message
    with pytest.raises(AssertionError, match=message):
        first()


def test_every_wrong_neuron_is_in_the_table_and_every_check_is_failed_by_one():
    planted = {n for n, c in vars(wrong).items() if isinstance(c, type) and c.__module__ == wrong.__name__}
    assert planted - {"Good", "_Cube", "_CubeOnce"} == set(WRONG)
    products = "Hessian products by the R-operator equal double backward"  # whose parts are in the table
    assert {check.name for check in plan("leaky")} - {products} == {name for name, _ in WRONG.values()}
    assert products in [name for name, _ in failures(wrong.KeepsWhatItLoses)]


@pytest.mark.parametrize("neuron", [wrong.Good, strangers.Adaptive, strangers.Sine])
def test_good_neurons_of_strangers_pass(neuron):
    assert failures(neuron) == []
    assert len(checks(neuron)) >= 12


OTHERS = {
    "leaky": [
        {"leak": "rate", "activation": "softplus"},
        {"leak": "inside", "alpha": [0.2, 0.9]},
        {"alpha": [0.2, 0.9], "activation": "tanh", "learn_alpha": True},
        {"leak": "inside", "activation": "softplus", "learn_alpha": True},
    ],
    "lif": [
        {"learn_alpha": True, "surrogate": "fast_sigmoid"},
        {"learn_alpha": True, "drive": "plain", "reset": "attached", "n_refractory": 2, "surrogate": "gaussian"},
        {"threshold": [0.3, 0.6]},
        {"alpha": [0.2, 0.9], "reset": "attached", "n_refractory": 2, "surrogate": "gaussian"},
    ],
    "alif": [
        {"learn_alpha": True, "alpha": [0.2, 0.6], "surrogate": "fast_sigmoid"},
        {"drive": "plain", "surrogate": "fast_sigmoid"},
        {"adaptive": 0.6, "threshold": [0.3, 0.6], "beta": [0.2, 0.5], "rho": [0.7, 0.9]},
    ],
}


def _registered():
    for name in plugins("neuron"):
        for options in ({}, *OTHERS.get(name, [])):
            for check in checks(f"neuron:{name}", **options):
                label = "-".join([name, *map(str, options.values()), check.name])
                yield pytest.param(check, id=label)


@pytest.mark.parametrize("check", list(_registered()))
def test_every_registered_neuron_conforms(check):
    check()
