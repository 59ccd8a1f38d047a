"""MDGL and ModProp: against references synapse by synapse, their identities, what kills their likely mistakes."""

from __future__ import annotations

import warnings
from dataclasses import replace

import bpgen_rules.mdgl
import bpgen_rules.modprop
import numpy as np
import pytest
import torch
from torch.func import functional_call, vmap

import bpgen
from bpgen.errors import BpgenError, UnstableRuleWarning
from bpgen.losses import Activity, Loss
from bpgen.neurons import ALIF, GRU, LIF, LSTM, Leaky
from bpgen.neurons.gain import Scale
from bpgen.rules import propagate
from bpgen.rules.cell_types import type_average
from tests.neurons.strangers import Adaptive
from tests.oracles import RECURRENT, WEIGHTS, asked, assert_differ, assert_equal, distance, hop_terms, problem, randn
from tests.rules import reference
from tests.rules import reference_modulators as slow

T = 6
every_leak = pytest.mark.parametrize("leak", ["potential", "rate", "inside"])
defined_leak = pytest.mark.parametrize("leak", ["potential", "rate"])
every_readout = pytest.mark.parametrize("kappa", [0.0, 0.6])
quiet = pytest.mark.filterwarnings("ignore::bpgen.errors.UnstableRuleWarning")
OWN = torch.tensor([0.2, 0.4, 0.5, 0.7, 0.9])  # a leak for each neuron
NEURONS = {
    "potential, own leaks": lambda: Leaky(OWN, "tanh"),
    "rate, own leaks": lambda: Leaky(OWN, "tanh", "rate"),
    **{leak: lambda leak=leak: Leaky(0.4, "tanh", leak) for leak in ("potential", "rate", "inside")},
    "LIF": lambda: LIF(0.4, dampening=0.9, width=4.0),
    "ALIF": lambda: ALIF(0.4, dampening=0.9, width=4.0, reset="attached"),
    "GRU": GRU,
    "LSTM": LSTM,
    "stranger": Adaptive,
}
every_neuron = pytest.mark.parametrize("neuron", NEURONS)


def wired(p):
    """Two cell types and missing synapses, among them all of one block; returns types and what exists."""
    types = torch.tensor([0, 1, 0, 1, 1])
    exists = 1 - torch.eye(5, dtype=torch.float64)
    for j, i in ((0, 2), (2, 0), (1, 3), (4, 0), (2, 4)):
        exists[j, i] = 0
    p.network.cell_type, p.network.rec_mask = types, exists
    return types.numpy(), exists.numpy()


def both(leak, kappa=0.0):
    """The same problem for bpgen and, as bare arrays, for the references."""
    p = problem(Leaky(0.4, "tanh", leak), T=T, kappa=kappa)
    types, exists = wired(p)
    W, U, b, R, c = (p.network.params()[n].numpy(force=True) for n in ("W_rec", "W_in", "b_rec", "W_out", "b_out"))
    args = (W * exists, U, b, R, c, p.x.numpy(), p.target.numpy(), p.s_0[:, 0].numpy())
    return p, reference.Model(*args, 0.4, leak, "tanh", kappa), types, exists


def tensors(grads, exists):
    grads = {**grads, "W_rec": grads["W_rec"] * exists}
    return {name: torch.from_numpy(np.ascontiguousarray(g)) for name, g in grads.items()}


def mdgl_reference(model, types, exists, tail, weights):
    W = model.W if weights == "true" else slow.block_mean(model.W, types, exists, weights == "nonlocal")
    return tensors(slow.mdgl(model, model.R, W, tail), exists)


def modprop_reference(model, types, exists, mu, weights, local_psi, taps):
    W = model.W if weights == "true" else slow.block_mean(model.W, types, exists, over_all=True)
    return tensors(slow.modprop(model, model.R, W, mu, T if taps is None else taps, local_psi), exists)


def test_type_averages_against_loops():
    p = problem(T=T)
    types, exists = wired(p)
    W = (p.network.W_rec * p.network.rec_mask).detach()
    for over in ("existing", "all"):
        expected = torch.from_numpy(slow.block_mean(W.numpy(), types, exists, over == "all"))
        got = type_average(W, p.network, over)
        torch.testing.assert_close(got, expected)
        assert got[0, 1] == got[2, 3] != got[1, 0]
    assert not type_average(W, p.network)[types == 0][:, types == 0].any()  # no synapse exists there
    assert (type_average(W, p.network, "all")[0, 1] != type_average(W, p.network)[0, 1]).all()
    p.network.cell_type = torch.arange(5)  # every neuron a type of its own: nothing is averaged
    torch.testing.assert_close(type_average(W, p.network), W)
    gated = problem(GRU(), T=T)  # every current has averages of its own
    gated.network.cell_type = torch.from_numpy(types)
    W = (gated.network.W_rec * gated.network.rec_mask).detach()
    for got, block in zip(type_average(W, gated.network).split(5), W.split(5), strict=True):
        expected = slow.block_mean(block.numpy(), types, (block != 0).numpy())
        torch.testing.assert_close(got, torch.from_numpy(expected))


@every_leak
@every_readout
@pytest.mark.parametrize("tail", ["one_step", "leaky", "online"])
@pytest.mark.parametrize("weights", ["cell_type", "nonlocal", "true"])
def test_mdgl_equals_its_reference(weights, tail, leak, kappa):
    p, model, types, exists = both(leak, kappa)
    expected = mdgl_reference(model, types, exists, tail, weights)
    assert_equal(p.rule("mdgl", tail=tail, weights=weights).grads, expected)
    assert_differ(p.rule("three_factor").grads, expected, RECURRENT, by=5e-3)
    assert_differ(p.rule("bptt").grads, expected, RECURRENT)
    for other in {"one_step", "leaky", "online"} - {tail}:
        if kappa or "leaky" in (tail, other):  # without a filter in the readout, online is one_step
            other = p.rule("mdgl", tail=other, weights=weights).grads
            assert_differ(other, expected, RECURRENT, by=1e-4)


@quiet
@defined_leak
@every_readout
@pytest.mark.parametrize("taps", [None, 0, 1, 2])
@pytest.mark.parametrize("local_psi", ["mu", "exact"])
@pytest.mark.parametrize("weights", ["cell_type", "true"])
def test_modprop_equals_its_reference(weights, local_psi, taps, leak, kappa):
    p, model, types, exists = both(leak, kappa)
    expected = modprop_reference(model, types, exists, 0.7, weights, local_psi, taps)
    got = p.rule("modprop", mu=0.7, weights=weights, local_psi=local_psi, taps=taps).grads
    assert_equal(got, expected)
    if taps == 0:
        assert_equal(p.rule("three_factor").grads, expected)
        return
    for other in ({"mu": 0.6}, {"taps": 0}, {"local_psi": "exact" if local_psi == "mu" else "mu"}):
        options = {"mu": 0.7, "weights": weights, "local_psi": local_psi, "taps": taps, **other}
        if other != {"mu": 0.6} or local_psi == "mu" or taps != 1:  # one exact hop meets no μ
            assert_differ(p.rule("modprop", **options).grads, expected, ["W_rec"], by=1e-3)


def with_feedback_of_its_own(p, name, **options):
    rule = bpgen.load_rule(name, feedback="random", seed=3, scale=2.0, **options).bind(p.network)
    return p.rule(rule).grads, rule.feedback.weight.numpy()


def test_random_feedback_reaches_modulators_too():
    p, model, types, exists = both("potential", 0.6)
    for tail in ("one_step", "leaky", "online"):
        got, B = with_feedback_of_its_own(p, "mdgl", tail=tail)
        W = slow.block_mean(model.W, types, exists)
        assert_equal(got, tensors(slow.mdgl(model, B, W, tail), exists))
    got, B = with_feedback_of_its_own(p, "modprop", mu=0.7)
    W = slow.block_mean(model.W, types, exists, over_all=True)
    assert_equal(got, tensors(slow.modprop(model, B, W, 0.7, T), exists))


# T6


@every_neuron
@every_readout
@pytest.mark.parametrize("when", ["last", "all"])
def test_leaky_mdgl_with_true_weights_is_e_prop_and_the_first_order_of_bptt(neuron, kappa, when):
    p = problem(NEURONS[neuron](), T=T, N=5, kappa=kappa, when=when, learned=True)
    names, terms = (*RECURRENT, "initial_state"), hop_terms(p)
    expected = {n: terms[n][0] + terms[n][1] for n in names}
    got = p.rule("mdgl", tail="leaky", weights="true").grads
    assert_equal(got, expected, names, tol=1e-9)
    assert_equal(p.rule("three_factor").grads, {n: terms[n][0] for n in names}, names, tol=1e-9)
    assert_differ(got, {n: terms[n][0] for n in names}, RECURRENT, by=1e-3)
    assert_differ(got, p.rule("bptt").grads, RECURRENT, by=1e-4)


@every_neuron
@pytest.mark.parametrize("tail", ["one_step", "leaky", "online"])
def test_mdgl_whose_averages_vanish_is_e_prop(neuron, tail):
    p = problem(NEURONS[neuron](), T=T, kappa=0.4)
    K, off = p.network.neuron.n_currents, 1 - torch.eye(5, dtype=torch.float64)
    with torch.no_grad():  # a mean of zero in every block, of weights that are not zero
        for W in p.network.W_rec.view(K, 5, 5):
            W -= (W * off).sum() / 20
    expected = p.rule("three_factor").grads
    assert_equal(p.rule("mdgl", tail=tail).grads, expected, WEIGHTS, tol=1e-11)
    assert_differ(p.rule("mdgl", tail=tail, weights="true").grads, expected, RECURRENT, by=1e-4)


def test_every_neuron_a_type_of_its_own_is_the_true_weights():
    p = problem(T=T)
    p.network.cell_type = torch.arange(5)
    for tail in ("one_step", "leaky"):
        assert_equal(p.rule("mdgl", tail=tail).grads, p.rule("mdgl", tail=tail, weights="true").grads, WEIGHTS)
    assert_equal(p.rule("modprop").grads, p.rule("modprop", weights="true").grads, WEIGHTS)


def test_without_leak_one_step_is_the_leaky_tail():
    p = problem(Leaky(1.0, "tanh"), T=T)
    assert_equal(p.rule("mdgl").grads, p.rule("mdgl", tail="leaky").grads, WEIGHTS)
    p = problem(Leaky(0.9, "tanh"), T=T)
    assert_differ(p.rule("mdgl").grads, p.rule("mdgl", tail="leaky").grads, ["W_rec"], by=1e-4)


# T5


@quiet
@defined_leak
@pytest.mark.parametrize("local_psi", ["mu", "exact"])
@pytest.mark.parametrize("when", ["last", "all"])
@pytest.mark.parametrize("alpha", [0.4, OWN], ids=["one leak", "own leaks"])
def test_modprop_of_a_linear_network_with_true_weights_is_bptt(alpha, leak, when, local_psi):
    p = problem(Leaky(alpha, "linear", leak), T=T, when=when, kappa=0.3, learned=True)
    names = (*WEIGHTS, "initial_state")
    expected = p.rule("bptt").grads
    options = {"mu": 1.0, "weights": "true", "local_psi": local_psi}
    assert_equal(p.rule("modprop", **options).grads, expected, names)
    assert_differ(p.rule("modprop", **{**options, "mu": 0.8}).grads, expected, RECURRENT)
    assert_differ(p.rule("modprop", **{**options, "weights": "cell_type"}).grads, expected, RECURRENT)
    p = problem(Leaky(0.4, "tanh", leak), T=T, when=when, kappa=0.3, learned=True)
    assert_differ(p.rule("modprop", **options).grads, p.rule("bptt").grads, RECURRENT)


@defined_leak
def test_modprop_at_mu_zero_is_e_prop(leak):
    p = problem(Leaky(0.4, "tanh", leak), T=T, kappa=0.3, learned=True)
    names = (*WEIGHTS, "initial_state")
    for options in ({"mu": 0.0}, {"mu": 0.0, "weights": "true"}, {"mu": 0.9, "taps": 0}):
        got = p.rule("modprop", **options).grads
        if leak == "potential" or options["mu"]:
            assert_equal(got, p.rule("three_factor").grads, names)
        else:  # μ stands for φ' in C there, behind the state: the start of a sequence is still told of one hop
            assert_equal(got, p.rule("three_factor").grads, WEIGHTS)
    assert_differ(p.rule("modprop", weights="true").grads, p.rule("three_factor").grads, RECURRENT)


@defined_leak
@every_readout
def test_one_exact_tap_with_true_weights_is_leaky_mdgl(leak, kappa):
    p = problem(Leaky(0.4, "tanh", leak), T=T, kappa=kappa, learned=True)
    names = (*WEIGHTS, "initial_state")
    expected = p.rule("mdgl", tail="leaky", weights="true").grads
    assert_equal(p.rule("modprop", taps=1, weights="true", local_psi="exact").grads, expected, names)
    assert_equal(p.rule("modprop", mu=0.0, weights="true", local_psi="exact").grads, expected, names)
    assert_differ(p.rule("modprop", taps=1, weights="true").grads, expected, RECURRENT)
    assert_differ(p.rule("modprop", taps=2, weights="true", local_psi="exact").grads, expected, RECURRENT, by=1e-4)


def test_as_many_taps_as_steps_are_no_limit():
    p = problem(T=T)
    full = p.rule("modprop", weights="true", mu=0.5).grads
    assert_equal(p.rule("modprop", weights="true", mu=0.5, taps=T).grads, full, WEIGHTS)
    assert_differ(p.rule("modprop", weights="true", mu=0.5, taps=1).grads, full, RECURRENT, by=1e-3)


@every_neuron
@pytest.mark.parametrize("rule", ["mdgl", "mdgl, leaky", "mdgl, online", "modprop", "modprop, exact"])
def test_both_are_bptt_without_recurrence_or_with_one_step(rule, neuron):
    name, _, option = rule.partition(", ")
    options = {} if not option else {"tail": option} if name == "mdgl" else {"local_psi": option}
    if name == "modprop" and not neuron.startswith(("potential", "rate")):
        return
    for steps in (T, 1):
        p = problem(NEURONS[neuron](), T=steps, kappa=0.3)
        if steps == T:
            with torch.no_grad():
                p.network.W_rec.zero_()
        assert_equal(p.rule(name, **options).grads, p.rule("bptt").grads, WEIGHTS)


def test_modprop_is_refused_where_mu_has_no_meaning():
    with pytest.raises(BpgenError, match=r"leak 'potential' or 'rate'.*Choose another leak or rule"):
        problem(Leaky(0.4, "tanh", "inside")).rule("modprop")
    for neuron in (LIF(), ALIF(), GRU(), LSTM()):
        with pytest.raises(BpgenError, match=f"ModProp is defined for Leaky, not for {type(neuron).__name__}"):
            problem(neuron).rule("modprop")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mdgl", {"tail": "onestep"}, "unknown tail of mdgl 'onestep'. Did you mean 'one_step'"),
        ("mdgl", {"weights": "types"}, "unknown weights of mdgl"),
        ("modprop", {"mu": -0.1}, "rule.mu must be >= 0, got -0.1"),
        ("modprop", {"taps": -1}, "rule.taps must be a number of synapses, or none for all, got -1"),
        ("modprop", {"local_psi": "exakt"}, "unknown local_psi of modprop 'exakt'. Did you mean 'exact'"),
        ("modprop", {"weights": "nonlocal"}, "unknown weights of modprop"),
    ],
)
def test_bad_options_name_what_was_expected(name, options, message):
    with pytest.raises(BpgenError, match=message):
        bpgen.load_rule(name, **options)


# Stability


def credit_norms(p, rule):
    run = p.network.run(p.network.params(), p.x, when="all", initial_state=p.s_0)
    error = torch.zeros(len(p.x), 3, 3, dtype=torch.float64)
    error[-1] = randn(5, 3, 3)
    return rule.bind(p.network).credit(run, error).currents.flatten(1).norm(dim=1)


@pytest.mark.parametrize("weights", ["true", "cell_type"])
@defined_leak
def test_a_filter_that_grows_is_warned_of_once_and_one_that_does_not_is_not(leak, weights):
    p = problem(Leaky(0.4, "tanh", leak), T=60, autapses=True)
    p.network.requires_grad_(False).W_rec += 0.4  # excitation prevails: the average alone can grow
    W = p.network.W_rec if weights == "true" else type_average(p.network.W_rec, p.network, "all")
    eigenvalues = torch.linalg.eigvals(W)

    def radius(mu):
        return float((0.6 + 0.4 * mu * eigenvalues).abs().max())

    critical = next(mu for mu in np.arange(0, 50, 0.01) if radius(mu) >= 1)
    rule = bpgen.load_rule("modprop", mu=1.3 * critical, weights=weights)
    with pytest.warns(UnstableRuleWarning, match=f"is {radius(1.3 * critical):.3g} >= 1.*Lower rule.mu") as caught:
        grown, _ = (credit_norms(p, rule) for _ in range(2))
    assert len(caught) == 1
    assert grown[0] > grown[30]  # further back is larger
    stable = bpgen.load_rule("modprop", mu=0.8 * critical, weights=weights)
    assert credit_norms(p, stable)[0] < 0.5 * credit_norms(p, stable)[40]
    credit_norms(p, bpgen.load_rule("modprop", mu=1.3 * critical, weights=weights, taps=2))  # cannot grow


def test_stability_of_neurons_with_their_own_leaks():
    p = problem(Leaky(OWN, "tanh"), T=4, autapses=True)
    W, alpha = p.network.W_rec.detach(), OWN.double()
    step = torch.diag(1 - alpha) + 3.0 * alpha.unsqueeze(1) * W
    radius = float(torch.linalg.eigvals(step).abs().max())
    assert radius > 1
    with pytest.warns(UnstableRuleWarning, match=f"is {radius:.3g} >= 1"):
        credit_norms(p, bpgen.load_rule("modprop", mu=3.0, weights="true"))


def test_stability_is_looked_at_again_while_weights_change():
    p, rule = problem(T=4), bpgen.load_rule("modprop", mu=0.5, weights="true")
    with torch.no_grad():
        p.network.W_rec *= 0.1
    credit_norms(p, rule)
    with torch.no_grad():
        p.network.W_rec *= 1000
    with pytest.warns(UnstableRuleWarning):
        assert len([credit_norms(p, rule) for _ in range(100)]) == 100


# Mutants: each likely mistake, on the network of the references


def _shift(hop):
    return lambda c, W, q=None: hop(torch.cat([torch.zeros_like(c[:1]), c[:-1]]), W, q)


MUTANTS = {
    "mdgl: modulator of the same step": ("mdgl", "hop", _shift),
    "mdgl: transposed weights": ("mdgl", "hop", lambda hop: lambda c, W, q=None: hop(c, W.mT, q)),
    "mdgl: averages over missing synapses": (
        "mdgl",
        "type_average",
        lambda mean: lambda W, net, over: mean(W, net, "all") * net.rec_mask,
    ),
    "mdgl: no slope in the modulator": ("mdgl", "_modulator", lambda _: lambda run, q: 0.4 * q.unsqueeze(-2)),
    "modprop: averages over existing synapses": (
        "modprop",
        "type_average",
        lambda mean: lambda W, net, over: mean(W, net, "existing"),
    ),
    "modprop: transposed weights": (
        "modprop",
        "propagate",
        lambda propagate: lambda run, q, carrier, **o: propagate(run, q, carrier=carrier.mT, **o),
    ),
    "modprop: μ in the eligibility trace": (
        "modprop",
        "propagate",
        lambda propagate: (
            lambda run, q, carrier, gain, hops: propagate(replace_local(run, gain), q, carrier=carrier, hops=hops)
        ),
    ),
    "modprop: one synapse less": (
        "modprop",
        "propagate",
        lambda propagate: lambda run, q, hops, **o: propagate(run, q, hops=1, **o),
    ),
    "modprop: μ forgotten": (
        "modprop",
        "propagate",
        lambda propagate: lambda run, q, gain, **o: propagate(run, q, gain=(gain[0], Scale(1.0)), **o),
    ),
}


def replace_local(run, gain):
    run = replace(run)
    run.local = replace(run.local, C=gain[0], D=gain[1])
    return run


@pytest.mark.parametrize("mutant", MUTANTS)
def test_references_kill_the_mutant(mutant, monkeypatch):
    name, attribute, mutate = MUTANTS[mutant]
    p, model, types, exists = both("potential")
    options = {} if name == "mdgl" else {"mu": 0.7}
    expected = (
        mdgl_reference(model, types, exists, "one_step", "cell_type")
        if name == "mdgl"
        else modprop_reference(model, types, exists, 0.7, "cell_type", "mu", None)
    )
    assert_equal(p.rule(name, **options).grads, expected)
    module = getattr(bpgen_rules, name)
    monkeypatch.setattr(module, attribute, mutate(getattr(module, attribute)))
    with pytest.raises(AssertionError):
        assert_equal(p.rule(name, **options).grads, expected, tol=1e-3)


# What holds for every rule


ROWS = {
    "mdgl": ("mdgl", {}),
    "mdgl, leaky": ("mdgl", {"tail": "leaky", "weights": "true"}),
    "mdgl, online": ("mdgl", {"tail": "online", "weights": "nonlocal", "feedback": "random"}),
    "modprop": ("modprop", {"mu": 0.5}),
    "modprop, exact": ("modprop", {"mu": 0.5, "local_psi": "exact", "weights": "true", "taps": 3}),
}
every_row = pytest.mark.parametrize("row", ROWS)


def load(row, network):
    name, options = ROWS[row]
    return bpgen.load_rule(name, **options).bind(network)


@defined_leak
@every_row
def test_float32_and_the_path_that_can_be_traced_agree(row, leak):
    p = problem(Leaky(0.4, "tanh", leak), T=T, kappa=0.4)
    wired(p)
    rule = load(row, p.network)
    double = p.rule(rule).grads
    draws, loss = {"initial_state": p.s_0}, Loss("mse", "all")

    def traced(params):
        return rule.gradients(*asked(p.network, params, p.x, p.target, loss, draws)).grads

    batched = vmap(traced)({n: w.unsqueeze(0) for n, w in p.network.params().items()})
    assert_equal({n: g[0] for n, g in batched.items()}, double)
    p.network.float()
    single = replace(p, x=p.x.float(), target=p.target.float(), s_0=p.s_0.float()).rule(rule.float()).grads
    assert {g.dtype for g in single.values()} == {torch.float32}
    assert_equal({n: g.double() for n, g in single.items()}, double, tol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("neuron", ["potential", "rate, own leaks", "ALIF", "stranger"])
@every_row
def test_two_stacked_seeds_train_as_two_runs_alone(row, neuron):
    if row.startswith("modprop") and not neuron.startswith(("potential", "rate")):
        return
    problems = [problem(NEURONS[neuron](), T=T, learned=True, kappa=0.4, seed=s) for s in (0, 1)]
    name, options = ROWS[row]
    rules = [bpgen.load_rule(name, **options).bind(p.network, seed=s) for s, p in enumerate(problems)]
    loss, network = Loss("mse", "all", None, None, Activity(0.3, "rate", 0.1)), problems[0].network

    def stacked(trees):
        return {n: torch.stack([tree[n] for tree in trees]) for n in trees[0]}

    def one_seed(buffers, params, x, target):
        return functional_call(rules[0], buffers, asked(network, params, x, target, loss, {})).grads

    start = [p.network.params() for p in problems]
    params, buffers = stacked(start), stacked([dict(r.named_buffers()) for r in rules])
    x, target = (torch.stack([getattr(p, n) for p in problems]) for n in ("x", "target"))
    for _ in range(3):
        grads = vmap(one_seed)(buffers, params, x, target)
        params = {n: w - 0.1 * grads[n] for n, w in params.items()}
    for s, p in enumerate(problems):
        alone = dict(start[s])
        for _ in range(3):
            grads = rules[s].gradients(*asked(p.network, alone, p.x, p.target, loss, {})).grads
            alone = {n: w - 0.1 * grads[n] for n, w in alone.items()}
        for n in alone:
            torch.testing.assert_close(params[n][s], alone[n], rtol=1e-10, atol=1e-12)
            assert (alone[n] - start[s][n]).norm() > 1e-6
    assert distance(params["W_rec"][0], params["W_rec"][1]) > 0.1


@every_row
def test_a_cost_of_the_activity_is_a_learning_signal_like_any_other(row):
    """By itself it gives what a credit of it alone gives; along the rule's own paths, not twice."""
    p = problem(T=T, kappa=0.4)
    wired(p)
    rule, activity = load(row, p.network), Activity(2.0, "rate", 0.3)
    args = (rule, p.network, p.x, p.target, p.loss, p.when, p.mask, p.s_0)
    got, bare = bpgen.gradients(*args, activity=activity).grads, bpgen.gradients(*args).grads
    run = p.network.run(p.network.params(), p.x, when="all", initial_state=p.s_0)
    q = activity.gradient(run.h)
    name, options = ROWS[row]
    if options.get("tail") == "online":
        options = {**options, "tail": "one_step"}
    plain = bpgen.load_rule(name, **options).bind(p.network)
    plain.feedback.kind, plain.feedback.weight = "random", torch.eye(5, dtype=torch.float64)
    alone = bpgen.rules.weight_gradients(run, plain.credit(run, q), torch.zeros(T, 3, 3, dtype=torch.float64))
    assert_equal({n: got[n] - bare[n] for n in RECURRENT}, alone, RECURRENT)


def test_both_paths_of_the_kernel_take_the_same_modulators():
    p, K = problem(T=T), randn(30, 5, 5)
    runs = [p.network.run(p.network.params(), p.x, when="all", initial_state=p.s_0, in_place=i) for i in (True, False)]
    with warnings.catch_warnings():
        fast, general = (propagate(run, randn(3, T, 3, 5), carrier=K, hops=1).currents for run in runs)
    torch.testing.assert_close(fast, general)
