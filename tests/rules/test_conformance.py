"""The conformance suite: it passes good rules, names what is wrong with bad ones, and holds every registered rule."""

from __future__ import annotations

import re
import textwrap
from dataclasses import replace

import pytest
import torch

import bpgen
import bpgen.rules
from bpgen.conformance import Check, checks, plan
from bpgen.errors import BpgenError
from bpgen.rules import OfflineRule, Traits
from tests.oracles import assert_equal, problem
from tests.rules import mutants

torch.set_num_threads(1)

# row: the deliberately wrong rule, the check that fails first, and what its message says
WRONG = {
    "SignOfTheLeak": ("the leak carries credit back with the right factor and sign", "own path through the leak"),
    "ForgottenLeak": ("the leak carries credit back with the right factor and sign", "own path through the leak"),
    "MissingSlope": ("the slope φ' of the activation is there", "slope of the activation is missing"),
    "ShiftedByOneStep": ("pre- and postsynaptic factors are of the right steps", "of the wrong steps"),
    "FeedbackTransposed": ("feedback takes the output error to the right neurons", "learning signal q_t is wrong"),
    "UnfilteredError": ("the error comes back through a leaky readout", "not filtered back"),
    "FutureLeak": ("the future does not leak back", "inputs after step 4"),
    "TraceNotReset": ("nothing is carried from one sequence to the next", "something is kept"),
    "ChangesWeightsInPlace": ("nothing is changed in place", r"overwrote params\['W_rec'\]"),
    "ChangesTheBatchInPlace": ("nothing is changed in place", "overwrote initial_state"),
    "ReadsTheModule": ("weights are read from params, not from the module", "gradient of W_rec, W_in, b_rec is not a"),
    "BPTTInDisguise": ("it is not BPTT in disguise", "points exactly along BPTT's"),
    "DrawsInside": ("random numbers come from draws only", "drew from torch's global random stream"),
    "HiddenWeightTransport": ("the error needs no weight transport", "rescaling W_out changes the gradient"),
    "CreditCrossesOneSynapse": ("credit does not cross the recurrent weights", "scrambling W_rec changes"),
    "NormalisedOverTheBatch": ("split batches add up", "not the mean over its samples"),
    "PlainFeedback": ("state_dict restores the rule", "restored from its state_dict differs"),
    "BranchesOnData": ("stacked seeds equal seeds alone", "vmap"),
    "DoublePrecisionInside": ("float32 agrees with float64", "torch.float64"),
    "ForgetsTheRegulariser": ("the regulariser's gradient is added exactly", "is not c·w"),
    "LossOfItsOwn": ("loss and outputs are the network's own", "the network's is"),
    "FillsTheDiagonal": ("no gradient where a weight cannot act", "entries that are masked"),
    "RoughReadout": ("the readout has its exact gradient", "not the exact gradient"),
    "TakesEveryNeuron": ("runs on the neurons it is defined for, and refuses others", "`bind` takes LIF"),
    "Misshapen": ("one gradient per parameter, of its shape and dtype", "the gradient of initial_state must be"),
    "SilentRecurrence": ("the gradient follows the data", "the gradient of W_rec is zero"),
    "TraceInAnAttribute": ("chunks carried across equal the whole sequence", "do not add up"),
    "RemembersEverything": ("its memory does not grow with the sequence", "after 1, 3 and 7 steps"),
    "ForgetsTheActivity": (
        "equals BPTT under a cost of the activity and with output feedback, or refuses them",
        "with a cost of the activity",
    ),
    "AlphaOfItsOwn": ("the credit of a current has the right size", "size of the credit is wrong"),
    "SilentAboutFeedback": ("its limit says that the feedback is symmetric there", "W_rec = 0 with symmetric feedback"),
    "LearnsInSilence": ("what it learns is declared", "`learn` changes feedback.weight"),
    "ForgetsWhatCameIn": ("many steps at once equal step after step", "steps 1 to 3 at once differ"),
    "LeavesTimeConstantsAlone": (
        "trains what neurons learn of their own, or refuses it",
        "the gradient of alpha_logit is zero",
    ),
    "BiasedPerturbation": ("its mean over draws is the true gradient", "along the true gradient"),
}
# mistakes in what a whole limit rests on: checks before the one that names them may see them, too
LATER = {"FutureLeak", "ChangesWeightsInPlace", "HiddenWeightTransport", "ForgetsWhatCameIn"}
# checks that take the longest: in the default suite for the rules that most users meet
LONG = (
    "on every neuron",
    "in the limit it claims",
    "runs on the neurons",
    "mean over draws",
    "stacked seeds",
    "output",
)
QUICK = ("bptt", "three_factor", "rflo")


def failures(rule) -> list[tuple[Check, str]]:
    return [(c, o.message) for c in plan(rule) for o in [c.run()] if o.status == "fail"]


@pytest.mark.parametrize("name", WRONG)
def test_a_planted_bug_is_caught_by_the_check_that_names_it(name):
    expected, message = WRONG[name]
    plans = plan(getattr(mutants, name))
    if name in LATER:
        plans = [check for check in plans if check.name == expected]
    first = next(check for check in plans if check.run().status == "fail")
    assert first.name == expected
    with pytest.raises(AssertionError, match=message):
        first()


@pytest.mark.parametrize("rule", [mutants.Local, mutants.Trace, mutants.Perturbation])
def test_good_rules_pass(rule):
    assert failures(rule) == []
    assert len(checks(rule)) >= 16


def test_every_wrong_rule_is_in_the_table():
    good = {"Local", "Trace", "Perturbation"}
    wrong = {n for n, c in vars(mutants).items() if isinstance(c, type) and c.__module__ == mutants.__name__}
    assert wrong - good == set(WRONG)


def test_every_check_is_one_that_a_planted_bug_fails():
    named = {name for name, _ in WRONG.values()}
    silent = {c.name for c in plan("bptt")} - named
    assert silent == {  # seen to fail below, or whole comparisons whose parts are in the table
        "stochastic if and only if it says so",
        "one seed, one rule",
        "equals BPTT at W_rec = 0, on every neuron",
        "equals BPTT at T = 1, on every neuron",
        "equals BPTT with recurrent weights, in the limit it claims",
    }


@pytest.mark.parametrize(
    ("traits", "check"),
    [
        ({"exact_when": "always"}, "equals BPTT with recurrent weights, in the limit it claims"),
        ({"stochastic": True}, "stochastic if and only if it says so"),
        ({"neurons": ()}, "equals BPTT at W_rec = 0, on every neuron"),
        ({"neurons": ("Leaky", "Sine")}, "runs on the neurons it is defined for, and refuses others"),
    ],
)
def test_traits_that_claim_too_much(traits, check):
    class TooMuch(mutants.TakesEveryNeuron):
        pass

    TooMuch.traits = replace(mutants.Local.traits, **traits)
    assert check in [c.name for c, _ in failures(TooMuch)]


def test_draws_that_nobody_announced_and_seeds_that_nobody_follows():
    class Draws(mutants.Perturbation):
        traits = Traits(signal_origin="perturbation", exact_readout=False)

    class OwnSeed(mutants.Local):
        def bind(self, network, seed=0):
            super().bind(network, 0)
            return self

    assert next(c.name for c, _ in failures(Draws)) == "stochastic if and only if it says so"
    assert [c.name for c, _ in failures(OwnSeed)] == ["one seed, one rule"]


class Declared(mutants.NormalisedOverTheBatch):
    traits = Traits(
        signal_origin="random feedback",
        signal_scope="broadcast",
        recurrence="diagonal",
        weight_transport=False,
        neurons=("Leaky",),
    )
    conformance_exceptions = {"split batches add up": "the error is normalised over the batch"}  # noqa: RUF012


def test_a_declared_failure_is_reported_with_its_reason_and_a_void_declaration_fails():
    (outcome,) = [c() for c in checks(Declared) if c.declared]
    assert outcome[:2] == ("declared", "the error is normalised over the batch")
    assert failures(Declared) == []

    class Void(Declared):
        conformance_exceptions = {**Declared.conformance_exceptions, "one seed, one rule": "no reason"}  # noqa: RUF012

    ((check, message),) = failures(Void)
    assert check.name == "one seed, one rule"
    assert "remove the declaration" in message

    class Misspelt(Declared):
        conformance_exceptions = {"split bathes": "?"}  # noqa: RUF012

    with pytest.raises(BpgenError, match=r"'split bathes'; the checks are: .*split batches add up"):
        plan(Misspelt)


def test_it_leaves_the_random_stream_and_says_what_it_does_not_know():
    before = torch.get_rng_state()
    failures(mutants.DrawsInside)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(BpgenError, match="Did you mean 'rflo'"):
        bpgen.conformance.checks("rflow")
    with pytest.raises(BpgenError, match="window must be"):
        bpgen.conformance.checks("tbptt", window=0)


def test_a_rule_that_raises_fails_with_its_own_words():
    class Raises(OfflineRule):
        def credit(self, trajectory, error):
            raise ValueError("three trunks")

    assert all("ValueError: three trunks" in message for _, message in failures(Raises))


def _registered():
    for name in bpgen.list_rules():
        for check in checks(name):
            slow = name not in QUICK and any(part in check.name for part in LONG)
            yield pytest.param(check, id=f"{name}-{check}", marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("check", list(_registered()))
def test_every_registered_rule_conforms(check):
    check()


def documented():
    """The worked examples in the docstring of `bpgen.rules`."""
    blocks = re.findall(r"^    class (\w+).*?(?=^\S)", bpgen.rules.__doc__, re.MULTILINE | re.DOTALL)
    source = re.findall(r"^    class \w+.*?(?=^\S)", bpgen.rules.__doc__, re.MULTILINE | re.DOTALL)
    space = {**vars(bpgen.rules), "torch": torch}
    exec(textwrap.dedent("".join(source)), space)
    return {name: space[name] for name in blocks}


@pytest.mark.parametrize("name", ["SignFeedback", "Trace", "WeightPerturbation", "KolenPollack"])
def test_the_examples_in_the_documentation_work(name):
    p = problem()
    rule = documented()[name]()
    if name == "WeightPerturbation":  # it leaves a given initial state out, for brevity
        p = replace(p, s_0=None)
    result, exact = p.rule(rule), p.rule("bptt")
    assert torch.allclose(result.outputs, exact.outputs)
    assert result.loss == pytest.approx(float(exact.loss))
    if name == "Trace":
        assert_equal(result.grads, p.rule("eprop").grads)
    for weight in ("W_rec", "W_in"):
        assert result.grads[weight].norm() > 1e-6
    assert set(result.grads) == set(p.network.params())
