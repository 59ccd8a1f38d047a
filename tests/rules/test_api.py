"""What users type: names, options and shapes that do not fit, and plugins that are broken or collide."""

from __future__ import annotations

import re
import sys

import pytest
import torch

import bpgen
from bpgen.errors import BpgenError, RuleError
from bpgen.neurons import Leaky
from bpgen.registry import find, plugins
from bpgen.rules import OfflineRule, Rule, Traits, propagate
from tests.oracles import assert_equal, problem, randn


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bpt", {}, "unknown rule 'bpt'.*Did you mean 'bptt'.*pip install"),
        ("zzz", {}, "unknown rule 'zzz'.*pip install"),
        ("rflo", {"sede": 1}, "unknown option of rule 'rflo' 'sede'.*Did you mean 'seed'"),
        ("bptt", {"window": 3}, r"unknown option of rule 'bptt' 'window'\.$"),
        ("readout_only", {"seed": 3}, r"unknown option of rule 'readout_only' 'seed'\.$"),
        ("readout_only", {"args": 3}, "unknown option of rule 'readout_only' 'args'"),
        ("tbptt", {"window": 0}, "window must be a positive number of steps, got 0"),
        ("tbptt", {"style": "slidng"}, "unknown style of tbptt 'slidng'.*Did you mean 'sliding'"),
    ],
)
def test_load_rule_names_what_was_expected(name, options, message):
    with pytest.raises(BpgenError, match=message):
        bpgen.load_rule(name, **options)


def test_a_hyphen_counts_as_an_underscore_and_a_rule_may_be_given_by_name():
    assert type(bpgen.load_rule("three-factor")) is type(bpgen.load_rule("eprop"))
    p = problem()
    assert_equal(p.rule("three-factor").grads, p.rule(bpgen.load_rule("eprop")).grads)


def test_list_rules_gives_the_traits_of_every_built_in_rule():
    traits = bpgen.list_rules()
    assert {"bptt", "tbptt", "three_factor", "eprop", "rflo", "readout_only"} <= set(traits)
    assert all(isinstance(t, Traits) for t in traits.values())
    assert traits["bptt"].weight_transport
    assert not traits["rflo"].weight_transport
    assert list(traits) == sorted(traits)


# row: what is changed in a valid call, and what the message names
T, B, I, N, O = 7, 3, 4, 5, 3
CLASSES = torch.zeros(B, dtype=torch.int64)
BAD_CALLS = {
    "inputs of another width": ({"x": randn(0, T, B, I + 1)}, rf"x must be \[T,B,I\] with I=4.*\[{T}, {B}, 5\]"),
    "inputs without batch": ({"x": randn(0, T, I)}, r"x must be \[T,B,I\]"),
    "no steps": ({"x": randn(0, 0, B, I)}, r"x must be \[T,B,I\]"),
    "target of the last step": ({"target": randn(0, B, O)}, r"target must be \[7, 3, 3\].*got \[3, 3\]"),
    "batch-first target": ({"target": randn(0, B, T, O)}, r"target must be \[7, 3, 3\]"),
    "classes too high": ({"loss": "cross_entropy", "when": "last", "target": CLASSES + O}, r"classes 0\.\.2"),
    "negative classes": ({"loss": "cross_entropy", "when": "last", "target": CLASSES - 1}, r"classes 0\.\.2"),
    "float classes": ({"loss": "cross_entropy", "when": "last", "target": CLASSES + 0.5}, "int64 classes"),
    "one-hot classes": ({"loss": "cross_entropy", "target": randn(0, T, B, O)}, r"target must be \[7, 3\]"),
    "mask by sample": ({"mask": randn(0, B, T)}, r"mask must be \[T,B\] = \[7, 3\]"),
    "mask at the last step": ({"when": "last", "target": randn(0, B, O), "mask": randn(0, T, B)}, "when='all'"),
    "state without its axis": ({"initial_state": randn(0, B, N)}, r"initial_state must be \[B,d,N\] = \[3, 1, 5\]"),
    "negative penalty": ({"regulariser": -1.0}, "must be >= 0"),
}


@pytest.mark.parametrize("row", BAD_CALLS)
def test_gradients_names_what_does_not_fit(row):
    p, (changes, message) = problem(), BAD_CALLS[row]
    valid = {"x": p.x, "target": p.target, "loss": "mse", "when": "all"}
    bpgen.gradients("bptt", p.network, **valid)
    with pytest.raises(BpgenError, match=message):
        bpgen.gradients("bptt", p.network, **{**valid, **changes})


@pytest.mark.parametrize(("loss", "when"), [("cross-entropy", "last"), ("mse", "lats")])
def test_gradients_names_an_unknown_loss(loss, when):
    p = problem()
    with pytest.raises(BpgenError, match=r"'cross-entropy'|'lats'"):
        bpgen.gradients("bptt", p.network, p.x, p.target, loss, when)


def test_a_rule_that_is_not_defined_for_a_neuron_says_so():
    class Picky(Rule):
        traits = Traits(neurons=("LIF", "ALIF"))

    p = problem(Leaky(0.4))
    with pytest.raises(BpgenError, match="Picky is defined for LIF, ALIF, not for Leaky"):
        p.rule(Picky())


GOOD = '''"""A stranger's rule."""
from bpgen.rules import Limit, OfflineRule, Traits
class Mine(OfflineRule):
    traits = Traits(exact_when=Limit(condition="never, it is mine"))
'''


def test_a_strangers_rule_is_found_by_its_entry_point(install):
    install("stranger", {"mine": "stranger_mine:Mine"}, stranger_mine=GOOD)
    assert bpgen.list_rules()["mine"].plain()["exact_when"] == "never, it is mine"
    assert type(bpgen.load_rule("mine")).__name__ == "Mine"
    plugin = plugins("rule")["mine"]
    assert (plugin.package, plugin.class_path, plugin.summary) == (
        "stranger 1.2",
        "stranger_mine.Mine",
        "A stranger's rule.",
    )


# row: the entry point's value, the module's source, what the error names
BROKEN = {
    "raises at import": ("broken_rule:X", '"""Doc."""\nraise RuntimeError("boom")', "RuntimeError: boom"),
    "syntax error": ("broken_rule:X", "def def", "SyntaxError"),
    "class is missing": ("broken_rule:Y", "class X: pass", "AttributeError.*'Y'"),
    "module is missing": ("absent_rule:X", "", "ModuleNotFoundError.*absent_rule"),
    "not a class": ("broken_rule:X", "X = 3", "'broken_rule:X', which is not a class"),
    "not a rule": ("broken_rule:X", "class X: pass", "X, which is not a bpgen.rules.Rule"),
}


@pytest.mark.parametrize("row", BROKEN)
def test_a_broken_plugin_is_named_and_harms_nobody_else(row, install):
    value, source, message = BROKEN[row]
    install("shaky", {"shaky_rule": value}, broken_rule=source)
    assert plugins("rule")["shaky_rule"].package == "shaky 1.2"
    assert isinstance(plugins("rule")["shaky_rule"].summary, str)  # listing costs metadata only
    assert "broken_rule" not in sys.modules
    with pytest.raises(BpgenError, match=f"shaky_rule.*{message}"):
        bpgen.load_rule("shaky_rule")
    with pytest.warns(UserWarning, match="shaky_rule"):
        listed = bpgen.list_rules()
    assert "shaky_rule" not in listed
    assert "bptt" in listed
    assert bpgen.load_rule("bptt") is not None


def test_a_name_claimed_by_two_packages_is_refused_with_both_named(install):
    install("other_bptt", {"bptt": "stranger_mine:Mine"}, stranger_mine=GOOD)
    with pytest.raises(BpgenError, match=r"'bptt' is claimed by bpgen \S+ and other.bptt 1.2: uninstall all but one"):
        find("rule", "bptt").load()
    assert type(bpgen.load_rule("rflo")).__name__ == "RFLO"
    assert re.fullmatch(r"bpgen \S+ and other.bptt 1.2", plugins("rule")["bptt"].package)  # both are listed


class _ForgetsToReturn(OfflineRule):
    traits = Traits(exact_when="never")

    def credit(self, trajectory, error):
        """The slip of a first try."""
        propagate(trajectory, error @ trajectory.params["W_out"])


class _ReturnsGradientsAlone(Rule):
    traits = Traits(exact_when="never")

    def estimate(self, problem, draws):
        """As other libraries do."""
        return {name: torch.zeros_like(w) for name, w in problem.params.items()}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (_ForgetsToReturn, r"_ForgetsToReturn \(.*, line \d+\): `credit` must be a tensor \[L,B,K,N\], got NoneType"),
        (
            _ReturnsGradientsAlone,
            r"_ReturnsGradientsAlone \(.*\): `estimate` must return RuleGradients.*, got dict",
        ),
    ],
)
def test_what_a_rule_returns_by_mistake_is_said_with_its_place(rule, message):
    network = bpgen.Network(bpgen.neurons.Leaky(0.5), 3, 6, 2)
    with pytest.raises(RuleError, match=message):
        bpgen.gradients(rule(), network, torch.randn(5, 4, 3), torch.randint(2, (4,)))
