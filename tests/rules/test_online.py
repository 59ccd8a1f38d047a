"""The online rules: against slow references, against each other, and against offline rules; a mutant for each."""

from __future__ import annotations

import inspect
import sys
import types
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call, vmap

import bpgen
from bpgen.conformance.rules.blocks import StepByStep
from bpgen.losses import Loss
from bpgen.neurons import ALIF, GRU, LIF, LSTM, Leaky
from bpgen.rules import OnlineRule, Rule
from tests.neurons.strangers import Adaptive
from tests.oracles import RECURRENT, WEIGHTS, Problem, asked, assert_differ, assert_equal, distance, problem, randn
from tests.rules import online_reference, reference
from tests.rules.test_references import both, tensors

LEAKS = ("potential", "rate", "inside")
NEURONS = {
    **{leak: Leaky(0.4, "tanh", leak) for leak in LEAKS},
    "lif": LIF(),
    "alif": ALIF(),
    "alif, attached": ALIF(reset="attached"),
    "gru": GRU(),
    "lstm": LSTM(),
    "a stranger's": Adaptive(),
}
LOSSES = {
    "mse, all steps": {"loss": "mse", "when": "all"},
    "cross-entropy, last step": {"loss": "cross_entropy", "when": "last"},
    "cross-entropy, all steps": {"loss": "cross_entropy", "when": "all"},
    "cross-entropy, masked": {"loss": "cross_entropy", "when": "all", "masked": True},
}
every_neuron = pytest.mark.parametrize("neuron", NEURONS)
every_leak = pytest.mark.parametrize("leak", LEAKS)
every_readout = pytest.mark.parametrize("kappa", [0.0, 0.5])
# row: online rule, options, the offline rule that gives the same sum
TWINS = {
    "rtrl": ("rtrl", {}, "bptt", {}),
    "snap, dense": ("snap", {"n": 2}, "bptt", {}),
    "snap, n = 1": ("snap", {}, "eprop", {}),
    "eprop_online": ("eprop_online", {}, "eprop", {}),
    "eprop_online, random": (
        "eprop_online",
        {"feedback": "random", "seed": 2},
        "eprop",
        {"feedback": "random", "seed": 2},
    ),
    "rflo_online": ("rflo_online", {"seed": 3, "scale": 2.0}, "rflo", {"seed": 3, "scale": 2.0}),
    "rflo_online, sparse": (
        "rflo_online",
        {"seed": 4, "feedback": "sparse", "density": 0.5},
        "rflo",
        {"seed": 4, "feedback": "sparse", "density": 0.5},
    ),
}
ONLINE = ("rtrl", "snap", "sk_rtrl", "uoro", "kf_rtrl", "kernl", "dni", "eprop_online", "rflo_online", "pp_prop")
every_rule = pytest.mark.parametrize("rule", ONLINE)


def on_ring(p: Problem) -> Problem:
    """The same problem on a sparse network: a directed ring with one chord; its diameter is N - 1."""
    N, network = p.network.n_rec, p.network
    mask = torch.eye(N, dtype=torch.float64).roll(1, 0)
    mask[0, 2] = 1
    network.rec_mask = mask.repeat(network.neuron.n_currents, 1)
    return p


def lively(rule: Rule | str, p: Problem, seed: int = 0) -> Rule:
    """The rule bound to a network, with something in what it learns."""
    rule = (bpgen.load_rule(rule) if isinstance(rule, str) else rule).bind(p.network, seed)
    for i, name in enumerate(("kernel", "synthesiser")):
        if getattr(rule, name, None) is not None:
            value = getattr(rule, name)
            setattr(rule, name, value + 0.1 * randn(80 + i + 10 * seed, *value.shape))
    return rule


def kappa_for(rule: str) -> float:
    """A filtered readout, where the rule is defined for one."""
    return 0.0 if rule in ("kernl", "dni") else 0.5


def mutant(rule: str, old: str, new: str) -> type[Rule]:
    """The class of a built-in rule with one piece of its source replaced, in its own file or that of its blocks."""
    cls = bpgen.registry.plugins("rule")[rule].load()
    files = [sys.modules.get(f"bpgen_rules._{rule}_block"), inspect.getmodule(cls)]
    sources = [inspect.getsource(file) for file in files if file is not None]
    assert any(old in source for source in sources), f"nothing to mutate in {rule}: {old}"
    spaces = [types.ModuleType("mutant").__dict__ for _ in sources]
    for source, space in zip(sources, spaces, strict=True):
        exec(compile(source.replace(old, new), "mutant", "exec"), space)
    for name in set(spaces[0]) & set(spaces[-1]) if len(spaces) > 1 else ():
        if inspect.isfunction(spaces[0][name]):
            spaces[-1][name] = spaces[0][name]
    return spaces[-1][cls.__name__]


def assert_twins(online: Rule, offline: Rule, names=None, **options) -> None:
    for neuron in (Leaky(0.4, "tanh"), ALIF(reset="attached"), LSTM()):
        p = problem(neuron, learned=True, kappa=0.5, **options)
        assert_equal(p.rule(online).grads, p.rule(offline).grads, names)


@pytest.mark.parametrize("loss", LOSSES)
@every_neuron
def test_rtrl_is_bptt_and_the_trace_of_e_prop_is_its_backward_filter(neuron, loss):
    for kappa in (0.0, 0.5):
        p = problem(NEURONS[neuron], kappa=kappa, learned=True, **LOSSES[loss])
        bptt, rtrl, eprop, online = (p.rule(r) for r in ("bptt", "rtrl", "eprop", "eprop_online"))
        assert_equal(rtrl.grads, bptt.grads)
        assert_equal(online.grads, eprop.grads)
        assert_differ(online.grads, rtrl.grads, RECURRENT)
        for result in (rtrl, online):
            torch.testing.assert_close(result.outputs, bptt.outputs)
            torch.testing.assert_close(result.loss, bptt.loss)


@pytest.mark.parametrize("row", TWINS)
@pytest.mark.parametrize("neuron", ["rate", "alif, attached", "lstm"])
def test_online_rule_sums_to_its_offline_twin(row, neuron):
    online, options, offline, same = TWINS[row]
    for given in (True, False):
        p = problem(NEURONS[neuron], kappa=0.5, learned=not given)
        names = [n for n in p.network.params() if p.rule(offline, **same).grads[n].any()]
        assert set(WEIGHTS) <= set(names)
        assert_equal(p.rule(online, **options).grads, p.rule(offline, **same).grads, names)


@every_leak
@every_readout
def test_rflo_online_with_the_published_trace_equals_murray(leak, kappa):
    p, model = both(leak, kappa)
    rule = bpgen.load_rule("rflo_online", seed=3, scale=2.0, trace="murray").bind(p.network)
    signal = reference.learning_signal(model, rule.feedback.weight.numpy())
    expected = tensors(reference.rflo(model, signal))
    assert_equal(p.rule(rule).grads, expected)
    if leak != "rate":
        assert_differ(p.rule("rflo_online", seed=3, scale=2.0).grads, expected, RECURRENT)


@every_leak
@every_readout
def test_rtrl_equals_the_published_recursion(leak, kappa):
    p, model = both(leak, kappa)
    expected = tensors(reference.rtrl(model))
    assert_equal(p.rule("rtrl").grads, expected)
    assert_differ(p.rule("snap").grads, expected, RECURRENT)


def sparse(leak, kappa=0.0):
    """A problem on the ring, and the same for the references: W has zeros where there is no synapse."""
    p, model = both(leak, kappa)
    on_ring(p)
    return p, replace(model, W=model.W * p.network.rec_mask.numpy())


@every_leak
@every_readout
@pytest.mark.parametrize("n", [1, 2, 3])
def test_snap_on_a_sparse_ring_equals_the_published_recursion(leak, kappa, n):
    p, model = sparse(leak, kappa)
    expected = online_reference.snap(model, n)
    expected["W_rec"] = expected["W_rec"] * p.network.rec_mask.numpy()
    assert_equal(p.rule("snap", n=n).grads, tensors(expected))
    assert_differ(p.rule("snap", n=n + 1).grads, tensors(expected), RECURRENT, by=1e-5)


@pytest.mark.parametrize("neuron", ["potential", "rate", "alif, attached", "lstm"])
def test_snap_beyond_the_diameter_is_rtrl_and_not_before(neuron):
    p = on_ring(problem(NEURONS[neuron], learned=True, kappa=0.5))
    N = p.network.n_rec
    assert_equal(p.rule("snap", n=N).grads, p.rule("rtrl").grads)
    assert_equal(p.rule("rtrl").grads, p.rule("bptt").grads)
    distances = [distance(p.rule("snap", n=n).grads["W_rec"], p.rule("bptt").grads["W_rec"]) for n in range(1, N)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.01
    assert distances[1] > 1e-6


def test_snap_1_keeps_the_autapse_and_e_prop_does_not():
    p = problem(autapses=True)
    p_without = problem()
    assert_differ(p.rule("snap").grads, p.rule("eprop").grads, RECURRENT)
    assert_equal(p_without.rule("snap").grads, p_without.rule("eprop").grads)


def test_snap_stores_the_pattern_alone():
    p = on_ring(problem(N=12))
    carried = {
        n: bpgen.load_rule("snap", n=n).start(p.network, p.network.params(), 3)["influence"].shape for n in (1, 2, 3)
    }
    assert [shape[2] for shape in carried.values()] == [1, 3, 5]  # of 12 neurons, and the chord forks the way


# Stochastic rules: right on average.

DRAWS, GROUPS = 3000, 16


def z_test(rule: Rule, p: Problem) -> tuple[float, float]:
    """The largest |z| on the true gradient and five random directions, and the bias that would show (relative to ‖g‖).

    One sample is repeated along the batch, each with draws of its own; groups of draws give the standard error. A bias
    of `detectable` or more along the true gradient would have been a deviation of three standard errors.
    """
    true = p.rule("bptt").grads
    g = torch.cat([true[n].flatten() for n in RECURRENT])
    many = replace(p, x=p.x.repeat(1, DRAWS, 1), target=p.target.repeat(1, DRAWS, 1), s_0=p.s_0.repeat(DRAWS, 1, 1))
    means = []
    for group in range(GROUPS):
        args = (rule, p.network, many.x, many.target, p.loss, p.when, None, many.s_0)
        grads = bpgen.gradients(*args, seed=group).grads
        means.append(torch.cat([grads[n].flatten() for n in RECURRENT]))
    directions = torch.cat([g[None] / g.norm(), torch.nn.functional.normalize(randn(70, 5, len(g)), dim=1)])
    deviation = (torch.stack(means) - g) @ directions.T  # [groups, directions]
    error = deviation.std(0) / GROUPS**0.5
    z = deviation.mean(0) / error
    assert g.norm() > 1e-3
    return float(z.abs().max()), float(3 * error[0] / g.norm())


UNBIASED = {
    "uoro": [Leaky(0.4, "tanh"), ALIF(reset="attached")],
    "kf_rtrl": [Leaky(0.4, "tanh"), ALIF(reset="attached")],
}


@pytest.mark.parametrize("rule", UNBIASED)
@every_readout
def test_stochastic_rule_is_unbiased(rule, kappa):
    for neuron in UNBIASED[rule]:
        p = problem(neuron, B=1, T=6, N=4, kappa=kappa)
        z, detectable = z_test(bpgen.load_rule(rule), p)
        print(
            f"{rule}, {type(neuron).__name__}, κ = {kappa}: |z| <= {z:.2f}, would have seen a bias of {detectable:.2%}"
        )
        assert z < 4
        assert detectable < 0.02
        assert_differ(p.rule(rule).grads, p.rule("bptt").grads, RECURRENT, by=0.05)  # one draw alone is far off


# Rules that learn something themselves.


def learner(name, leak, **options):
    """A problem, the arrays for a reference, the rule with a generic learned part, and a gradient of it."""
    p, model = both(leak)
    rule = lively(bpgen.load_rule(name, **options), p)
    return p, model, rule


def check_kernl(rule, p, model):
    kicks = rule.draw(p.network, p.x, bpgen.streams.generator(0, "draws"))["kicks"]
    arrays = (rule.kernel.numpy(), rule.decay.numpy(), kicks.numpy(), rule.sigma)
    expected, by_kernel, by_decay = online_reference.kernl(model, *arrays)
    result = p.rule(rule)
    assert_equal(result.grads, tensors(expected))
    assert_equal(result.aux, tensors({"kernel": by_kernel, "decay": by_decay}), tol=1e-9)  # divides by σ


@pytest.mark.parametrize("leak", ["potential", "rate"])
def test_kernl_equals_the_published_equations(leak):
    p, model, rule = learner("kernl", leak)
    rule.decay = rule.decay + 0.1 * randn(90, 5).abs()
    check_kernl(rule, p, model)
    assert_differ(p.rule("kernl").grads, p.rule(rule).grads, RECURRENT)


def test_kernl_that_learns_nothing_is_rflo_on_the_rate_leak():
    options = {"feedback": "random", "seed": 3, "scale": 2.0}
    for leak, same in (("rate", ("rflo", options)), ("potential", ("eprop", options))):
        p = problem(Leaky(0.4, "tanh", leak))
        assert_equal(p.rule("kernl", lr=0, **options).grads, p.rule(same[0], **same[1]).grads, WEIGHTS)
    p, model = both("rate")
    rule = bpgen.load_rule("kernl", lr=0, **options).bind(p.network)
    signal = reference.learning_signal(model, rule.feedback.weight.numpy())
    assert_equal(p.rule(rule).grads, tensors(reference.rflo(model, signal)))
    assert_differ(p.rule(lively("kernl", p)).grads, p.rule("kernl").grads, RECURRENT)


def check_dni(rule, p, model):
    expected, by_Z = online_reference.dni(model, rule.synthesiser.numpy())
    result = p.rule(rule)
    assert_equal(result.grads, tensors(expected))
    assert_equal(result.aux, {"synthesiser": torch.from_numpy(by_Z)})


@every_leak
def test_dni_equals_the_published_equations(leak):
    p, model, rule = learner("dni", leak)
    check_dni(rule, p, model)
    assert_differ(p.rule("dni").grads, p.rule(rule).grads, RECURRENT)


@every_neuron
def test_dni_with_a_perfect_synthesiser_is_bptt(neuron):
    """The perfect guess is the credit of the state that only later losses give it: autograd's, without the present."""
    p = problem(NEURONS[neuron], learned=True)
    masked = p.network.masked({n: w.detach().requires_grad_() for n, w in p.network.named_parameters()})
    s = p.network.start(masked, 3, None)
    h, states, losses = p.network.neuron.g(s), [], []
    for x, target in zip(p.x, p.target, strict=True):
        _, s, h = p.network.advance(masked, s, h, x)
        y = torch.nn.functional.linear(h, masked["W_out"], masked["b_out"])
        states.append(s)
        losses.append(0.5 * (y - target).square().sum() / 3)
    total = torch.autograd.grad(sum(losses), states, retain_graph=True)
    present = [torch.autograd.grad(l, s, retain_graph=True)[0] for l, s in zip(losses, states, strict=True)]
    perfect = [3 * (a - b).flatten(1) for a, b in zip(total, present, strict=True)]
    rule = bpgen.load_rule("dni").bind(p.network)
    guesses = iter(perfect)
    rule.synthesise = lambda z: next(guesses)
    rule.at_once = False  # one guess a step
    result = p.rule(rule)
    assert_equal(result.grads, p.rule("bptt").grads)
    assert result.aux["synthesiser"].abs().max() < 1e-12  # what is perfect has nothing to learn
    assert_differ(p.rule("dni").grads, p.rule("bptt").grads, RECURRENT)


@pytest.mark.parametrize("rule", ["kernl", "dni"])
def test_what_a_rule_learns_comes_through_the_hook_alone_and_brings_it_nearer_to_the_true_gradient(rule):
    p = problem(Leaky(0.4, "tanh", "rate"), B=30, T=10)
    bound = bpgen.load_rule(rule, **({"lr": 1.0} if rule == "dni" else {})).bind(p.network)
    true, cosines = p.rule("bptt").grads["W_rec"].flatten(), []
    for i in range(60):
        before = {n: b.clone() for n, b in bound.named_buffers()}
        result = bpgen.gradients(bound, p.network, p.x, p.target, "mse", "all", None, p.s_0, seed=i)
        assert all(torch.equal(b, before[n]) for n, b in bound.named_buffers())
        bound.learn(result.aux)
        assert not all(torch.equal(b, before[n]) for n, b in bound.named_buffers())
        cosines.append(float(torch.cosine_similarity(result.grads["W_rec"].flatten(), true, dim=0)))
    assert 1 - cosines[-1] < 0.5 * (1 - cosines[0])


def test_rules_without_a_filtered_readout_say_so():
    for rule, neuron, kappa in (
        ("kernl", Leaky(0.4), 0.5),
        ("kernl", Leaky(0.4, leak="inside"), 0),
        ("dni", GRU(), 0.5),
    ):
        with pytest.raises(bpgen.errors.BpgenError, match="defined for"):
            problem(neuron, kappa=kappa).rule(rule)
    with pytest.raises(bpgen.errors.BpgenError, match="not for GRU"):
        problem(GRU()).rule("kernl")


# What holds for every online rule.


def chunked(rule: Rule, p: Problem, k: int, seed: int = 0):
    """Gradients summed over chunks of k steps at fixed weights, and the last carry."""
    loss, carry, total = Loss(p.loss, "all", p.mask), None, {}
    draws = rule.draw(p.network, p.x, bpgen.streams.generator(seed, "draws"))
    T = len(p.x)
    mask = torch.full(p.x.shape[:2], 1 / T if p.loss == "cross_entropy" else 1.0, dtype=torch.float64)
    mask = mask if p.mask is None else p.mask
    for first in range(0, T, k):
        part = slice(first, first + k)
        draws_now = {name: draw[part] for name, draw in draws.items()}
        now, _ = asked(p.network, p.network.params(), p.x[part], p.target[part], loss.with_mask(mask[part]))
        carry, result = bpgen.rules.gradients_of_chunk(rule, now, carry, draws_now, ends=first + k >= T, share=k / T)
        for name, g in {**result.grads, **result.aux}.items():
            total[name] = total.get(name, 0) + g
    return total, carry


@every_rule
def test_chunks_at_fixed_weights_add_up_to_the_whole_sequence(rule):
    for neuron in (Leaky(0.4, "tanh"), Leaky(0.4, "tanh", "rate") if rule == "kernl" else LSTM()):
        p = problem(neuron, kappa=kappa_for(rule), learned=True, loss="cross_entropy")
        bound = lively(rule, p)
        result = p.rule(bound)
        whole = {**result.grads, **result.aux}
        alive = [n for n in whole if whole[n].any()]
        assert set(WEIGHTS) <= set(alive)
        for k in (1, 3, 7):
            assert_equal(chunked(bound, p, k)[0], whole, alive)


@every_rule
def test_what_is_carried_does_not_grow_with_time(rule):
    sizes = []
    for T in (5, 50):
        p = problem(T=T, kappa=kappa_for(rule))
        carry = chunked(lively(rule, p), p, 5)[1]
        assert carry.t == T
        sizes.append({n: v.shape for n, v in carry.state.items()})
    assert sizes[0] == sizes[1]


@every_rule
def test_the_future_changes_no_increment_that_is_already_made(rule):
    p = problem(T=8)
    bound, seen = lively(rule, p), []
    step = bound.step
    bound.step = lambda state, moment: seen.append(step(state, moment)) or seen[-1]
    draws = bound.draw(p.network, p.x, bpgen.streams.generator(0, "draws"))
    given = (p.network, p.network.params(), p.x, p.target, Loss("mse", "all"), draws)
    StepByStep(bound).gradients(*asked(*given))
    first, seen[:] = list(seen), []
    p.x[5:] += 1
    p.target[5:] += 1
    StepByStep(bound).gradients(*asked(*given))
    assert len(seen) == 8
    for t, ((_, before), (_, after)) in enumerate(zip(first, seen, strict=True)):
        assert all(torch.equal(before[n], after[n]) for n in before) == (t < 5)


def test_locality_the_trace_of_e_prop_reads_no_recurrent_weight():
    for rule, local in (("eprop_online", True), ("rflo_online", True), ("snap", True), ("rtrl", False)):
        p = problem()
        bound = bpgen.load_rule(rule).bind(p.network)
        honest = p.rule(StepByStep(bound)).grads
        step, wrong = bound.step, randn(41, 5, 5) * p.network.rec_mask
        bound.step = lambda s, m, step=step, wrong=wrong: step(s, replace(m, params={**m.params, "W_rec": wrong}))
        scrambled = p.rule(StepByStep(bound)).grads
        if local:
            assert all(torch.equal(scrambled[n], honest[n]) for n in RECURRENT)
        else:
            assert_differ(scrambled, honest, RECURRENT)


@every_rule
def test_split_batches_add_up_and_float32_agrees(rule):
    p = problem()
    bound = lively(rule, p)
    loss, draws = Loss("mse", "all"), bound.draw(p.network, p.x, bpgen.streams.generator(0, "draws"))

    def grads(samples, bound=bound, network=p.network, dtype=torch.float64):
        given = {n: d[:, samples].to(dtype) for n, d in draws.items()} | {"initial_state": p.s_0[samples].to(dtype)}
        x, target = p.x[:, samples].to(dtype), p.target[:, samples].to(dtype)
        return bound.gradients(*asked(network, network.params(), x, target, loss, given)).grads

    whole, one, two = (grads(s) for s in (slice(0, 3), slice(0, 1), slice(1, 3)))
    assert_equal({n: (one[n] + 2 * two[n]) / 3 for n in WEIGHTS}, whole, WEIGHTS)
    assert_differ(two, whole, RECURRENT)
    single = grads(slice(0, 3), bound.float(), problem().network.float(), torch.float32)
    assert {g.dtype for g in single.values()} == {torch.float32}
    assert_equal({n: g.double() for n, g in single.items()}, whole, WEIGHTS, tol=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("neuron", ["rate", "lstm", "a stranger's"])
@every_rule
def test_two_stacked_seeds_are_two_runs_alone(rule, neuron):
    if rule == "kernl" and neuron != "rate":
        pytest.skip("kernl is defined for leaky neurons")
    problems = [problem(NEURONS[neuron], learned=True, kappa=kappa_for(rule), seed=s) for s in (0, 1)]
    rules = [lively(rule, p, s) for s, p in enumerate(problems)]
    draws = [
        r.draw(p.network, p.x, bpgen.streams.generator(s, "d"))
        for s, (r, p) in enumerate(zip(rules, problems, strict=True))
    ]
    loss, network = Loss("mse", "all"), problems[0].network

    def stacked(trees):
        return {n: torch.stack([tree[n] for tree in trees]) for n in trees[0]}

    def one_seed(buffers, params, x, target, draws):
        return functional_call(rules[0], buffers, asked(network, params, x, target, loss, draws)).grads

    inputs = [{"x": p.x, "target": p.target} for p in problems]
    grads = vmap(one_seed)(
        stacked([dict(r.named_buffers()) for r in rules]),
        stacked([p.network.params() for p in problems]),
        *stacked(inputs).values(),
        stacked(draws),
    )
    for s, p in enumerate(problems):
        alone = rules[s].gradients(*asked(p.network, p.network.params(), p.x, p.target, loss, draws[s])).grads
        assert_equal({n: g[s] for n, g in grads.items()}, alone, WEIGHTS)
    assert distance(grads["W_rec"][0], grads["W_rec"][1]) > 0.1


@every_rule
def test_noise_and_regulariser_are_those_of_offline_rules(rule):
    p = problem(sigma_rec=0.3)
    args = (p.network, p.x, p.target, "mse", "all", None, p.s_0)
    online, bptt = (bpgen.gradients(r, *args, regulariser=0.1) for r in (rule, "bptt"))
    torch.testing.assert_close(online.loss, bptt.loss)
    assert_equal(online.grads, bptt.grads, ["W_out", "b_out"])
    plain = bpgen.gradients(rule, *args)
    assert_equal({"W": online.grads["W_rec"] - plain.grads["W_rec"]}, {"W": 0.1 * p.network.W_rec.detach()})


@every_rule
def test_a_learned_state_that_a_given_one_replaced_earns_nothing(rule):
    p = replace(problem(learned=True), s_0=randn(60, 3, 1, 5))
    result = p.rule(rule).grads
    assert not result["initial_state"].any()
    assert result["W_rec"].norm() > 1e-6


# Mutants: the likely mistake of each rule, and that the checks above see it.

MUTANTS = {
    "rtrl takes its path twice": ("rtrl", "(moment.J @ S", "(2 * moment.J @ S"),
    "rtrl reads before it steps": ("rtrl", "* moment.read(S)", '* moment.read(state["influence"])'),
    "snap leaves the pattern": ("snap", "S = S * kept.unsqueeze(-1)", "pass"),
    "snap turns the pattern round": ("snap", "synapse @ within", "synapse.mT @ within"),
    "uoro multiplies by ρ₀ where it divides": ("uoro", "scaled(1 / rho_0,", "scaled(rho_0,"),
    "uoro draws its signs once": ("uoro", 'nu = moment.draws["signs"]', 'nu = torch.ones_like(moment.draws["signs"])'),
    "kf_rtrl forgets a sign": ("kf_rtrl", "scaled(two / p_2, C)", "scaled(1 / p_2, C)"),
    "kf_rtrl keeps the sign from the filter": ("kf_rtrl", "kappa * one / p_1", "kappa / p_1"),
    "kernl turns its kernel round": (
        "kernl",
        'torch.einsum("bn,bnx->nx", q @ A, trace)',
        'torch.einsum("bn,bnx->nx", q @ A.mT, trace)',
    ),
    "kernl learns from the kicked activity": ("kernl", " - moment.h_before) @", ") @"),
    "dni guesses beyond the end": ("dni", "torch.zeros_like(s) if moment.ends else ", ""),
    "dni's target forgets the present error": (
        "dni",
        "moment.A * credit.unsqueeze(2)",
        "moment.A * guess.unsqueeze(2)",
    ),
    "eprop_online drops the readout's filter": ("eprop_online", "if not moment.kappa:", "if True:"),
    "eprop_online has no memory": ("eprop_online", 'trace_step(state["vector"]', 'trace_step(0 * state["vector"]'),
    "rflo_online forgets φ'": ("rflo_online", "alpha * slope.unsqueeze(-1) * moment", "alpha * moment"),
}


def check(name: str, rule: Rule) -> None:
    """The check of a rule, in short: the same comparisons as in the tests above."""
    if name == "rtrl":
        assert_twins(rule, bpgen.load_rule("bptt"))
    elif name == "snap":
        rule.n = 2
        p, model = sparse("potential", 0.5)
        expected = online_reference.snap(model, 2)
        expected["W_rec"] = expected["W_rec"] * p.network.rec_mask.numpy()
        assert_equal(p.rule(rule).grads, tensors(expected))
    elif name == "kernl":
        p, model = both("rate")
        check_kernl(lively(rule, p), p, model)
    elif name == "dni":
        p, model = both("rate")
        check_dni(lively(rule, p), p, model)
    elif name == "eprop_online":
        assert_twins(rule, bpgen.load_rule("eprop"))
    elif name == "rflo_online":
        p, model = both("potential")
        rule.trace = "murray"
        signal = reference.learning_signal(model, rule.bind(p.network).feedback.weight.numpy())
        assert_equal(p.rule(rule).grads, tensors(reference.rflo(model, signal)))
    else:
        assert z_test(rule, problem(UNBIASED[name][0], B=1, T=6, N=4, kappa=0.5))[0] < 4


@pytest.mark.parametrize("row", MUTANTS)
def test_mutant_is_killed(row):
    name, old, new = MUTANTS[row]
    check(name, bpgen.load_rule(name))
    wrong = mutant(name, old, new)
    if name not in ("snap", "rflo_online"):
        wrong.at_once = False  # what is planted is in `step`
    with pytest.raises(AssertionError):
        check(name, wrong())


def test_every_online_rule_says_so():
    for name, plugin in bpgen.registry.plugins("rule").items():
        if issubclass(plugin.load(), OnlineRule):
            assert plugin.load().traits.online, name
            assert not plugin.load().traits.needs_future, name


def test_dni_learns_as_fast_from_many_steps_as_from_few():
    """At one state that does not change, k times the steps are the same change of Z: their mean, not their sum."""
    changes = []
    for T in (6, 60):
        p = problem(Leaky(1.0, "tanh"), T=T, B=1)
        with torch.no_grad():
            p.network.W_rec.zero_()
        same = replace(p, x=p.x[:1].expand(T, -1, -1), target=p.target[:1].expand(T, -1, -1))
        bound = lively("dni", p)
        start = bound.synthesiser.clone()
        bound.learn(same.rule(bound).aux)
        changes.append((bound.synthesiser - start) * T / (T - 2))  # no guess at the ends
    assert distance(changes[1], changes[0]) < 0.3
    assert changes[0].norm() > 1e-3
