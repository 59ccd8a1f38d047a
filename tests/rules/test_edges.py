"""Rules at the edges of their contract: default dtypes, wrong types, chunks without a mask, broken answers."""

from __future__ import annotations

import pytest
import torch

import bpgen
import bpgen.losses
from bpgen.errors import BpgenError, RuleError
from bpgen.neurons import Leaky
from bpgen.registry import plugins
from bpgen.rules import OfflineRule, OnlineRule, Rule, chunk_note, gradients_of_chunk
from tests.oracles import RECURRENT, WEIGHTS, asked, assert_differ, assert_equal, problem

NAMES = [n for n, p in plugins("rule").items() if p.class_path.startswith("bpgen_rules")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_every_rule_under_a_float64_default_dtype(name, dtype):
    """A fresh mask or identity made in the default dtype must not meet weights of another."""
    options = {"snap": {"n": 2}}.get(name, {})
    results = []
    for default in (torch.float32, torch.float64):
        before = torch.get_default_dtype()
        torch.set_default_dtype(default)
        try:
            network = bpgen.Network(
                Leaky(0.4, "tanh"), 3, 6, 2, dtype=dtype, density=0.7, cell_types={"E": 0.5, "I": 0.5}, bias="both"
            )
            x = torch.rand(5, 3, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
            loss, y = (
                ("mse", torch.ones(3, 2, dtype=dtype)) if name == "force" else ("cross_entropy", torch.arange(3) % 2)
            )
            rule = bpgen.load_rule(name, **options)
            results.append(bpgen.gradients(rule, network, x, y, loss=loss))
        finally:
            torch.set_default_dtype(before)
    one, other = results
    assert {g.dtype for g in other.grads.values()} == {dtype}
    for weight, g in one.grads.items():
        torch.testing.assert_close(other.grads[weight], g, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("snap", {"n": 1.0}, r"rule 'snap': n must be a whole number, got 1.0"),
        ("snap", {"n": True}, r"rule 'snap': n must be a whole number"),
        ("rflo", {"scale": "large"}, r"rule 'rflo': scale must be a number, got 'large'"),
        ("rflo", {"seed": 1.5}, r"rule 'rflo': seed must be a whole number or none"),
        ("scaled_bptt", {"reference_options": ["seed"]}, r"reference_options must be a mapping or none"),
        ("modprop", {"taps": "many"}, r"taps must be a whole number or none"),
        ("mdgl", {"scal": 1.0}, r"unknown option of rule 'mdgl' 'scal'. Did you mean 'scale'"),
    ],
)
def test_python_callers_get_the_same_clear_errors_as_the_command_line(name, options, message):
    with pytest.raises(BpgenError, match=message):
        bpgen.load_rule(name, **options)
    assert isinstance(bpgen.load_rule("rflo", scale=2), Rule)  # a whole number is a number


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("when", ["all", "last"])
@pytest.mark.parametrize("rule", ["rtrl", "eprop_online", "three_factor"])
def test_chunks_without_a_mask_add_up_to_the_whole(rule, loss, when):
    """Version 0.1 gave them too large by the number of chunks: 1/k for each step instead of 1/T."""
    p = problem(loss=loss, when=when, T=6)
    bound = bpgen.load_rule(rule).bind(p.network)
    whole, _ = asked(
        p.network, p.network.params(), p.x, p.target, bpgen.losses.Loss(loss, when), {"initial_state": p.s_0}
    )
    carry, total = None, dict.fromkeys(WEIGHTS, 0.0)
    for first in range(0, 6, 2):
        part = whole.steps(slice(first, first + 2))
        carry, result = gradients_of_chunk(bound, part, carry, ends=first == 4, share=2 / 6)
        total = {n: total[n] + result.grads[n] for n in WEIGHTS}
    expected = bound.gradients(whole).grads
    if isinstance(bound, OnlineRule):
        assert_equal(total, expected, WEIGHTS)
    else:  # truncated at every chunk, but for the readout
        assert_equal(total, expected, ["W_out", "b_out"])
        assert_differ(total, expected, ["W_rec"])


@pytest.mark.parametrize("kappa", [0.0, 0.4])
@pytest.mark.parametrize("when", ["all", "last"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("rule", ["rtrl", "snap", "eprop_online", "uoro", "kernl", "dni"])
def test_long_sequences_are_taken_in_blocks_and_give_the_same(rule, loss, when, kappa, monkeypatch):
    if kappa and rule in ("kernl", "dni"):
        return  # defined without a readout filter
    p = problem(Leaky(0.4, "tanh", "rate"), loss=loss, when=when, T=7, kappa=kappa)
    whole = p.rule(rule)
    monkeypatch.setattr("bpgen.rules.online.BLOCK", 3)
    cut = p.rule(rule)
    torch.testing.assert_close(cut.loss, whole.loss)
    torch.testing.assert_close(cut.outputs, whole.outputs)
    assert_equal(cut.grads, whole.grads, WEIGHTS)
    assert set(cut.aux) == set(whole.aux)


@pytest.mark.parametrize("name", NAMES)
def test_online_says_what_is_written_forward_in_time(name):
    """Version 0.1 called 20 rules online; eight are."""
    rule = bpgen.load_rule(name)
    assert rule.traits.online == isinstance(rule, OnlineRule)
    cut = chunk_note(rule, 3)
    assert bool(cut) != isinstance(rule, OnlineRule)
    assert ("3 steps" in cut) == bool(cut)


class FlatCredit(OfflineRule):
    """The commonest slip: credit [T,B,N] without the axis of the currents."""

    def credit(self, trajectory, error):
        return error @ trajectory.params["W_out"]


class NoGradient(Rule):
    """Forgets a weight."""

    def estimate(self, problem, draws):
        result = bpgen.load_rule("bptt").estimate(problem, draws)
        return result._replace(grads={n: g for n, g in result.grads.items() if n != "W_in"})


class Numbers(Rule):
    """Hands out a number where a tensor belongs."""

    def estimate(self, problem, draws):
        result = bpgen.load_rule("bptt").estimate(problem, draws)
        return result._replace(grads={**result.grads, "W_rec": 0.0})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            FlatCredit(),
            r"test_edges.py, line \d+\): `credit` must be \[L,B,K,N\], with \[B,K,N\] = \[3, 1, 5\], got \[7, 3, 5\]",
        ),
        (NoGradient(), r"test_edges.py, line \d+\): the gradient of W_in must be \[5, 4\].*it is None"),
        (Numbers(), r"the gradient of W_rec must be \[5, 5\] torch.float64, like the parameter; it is 0.0"),
    ],
)
def test_a_broken_answer_is_named_with_file_and_line(rule, message):
    with pytest.raises(RuleError, match=message):
        problem().rule(rule)


def test_a_missing_weight_is_seen_in_chunks_too():
    p = problem()
    with pytest.raises(RuleError, match="must be"):
        gradients_of_chunk(
            FlatCredit(),
            asked(p.network, p.network.params(), p.x, p.target, bpgen.losses.Loss("mse", "all"))[0],
            None,
            ends=True,
            share=1.0,
        )
    assert set(RECURRENT) <= set(WEIGHTS)
