"""The credit kernel: its two paths, hop limits, replaced gains and truncations, each against a slow oracle."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bpgen.neurons import Leaky
from bpgen.neurons.gain import Scale
from bpgen.rules import Credit, hop, propagate, weight_gradients
from tests.oracles import (
    RECURRENT,
    assert_differ,
    assert_equal,
    autograd,
    distance,
    hop_terms,
    in_blocks,
    leaves,
    no_hop,
    output_errors,
    problem,
    randn,
    run_slow,
    sliding,
)

T = 7
LEAKS = ("potential", "rate", "inside")
every_leak = pytest.mark.parametrize("leak", LEAKS)


def trajectory(p, in_place=False):
    return p.network.run(p.network.params(), p.x, when=p.when, initial_state=p.s_0, in_place=in_place)


def partial_signal(p):
    """q [T,B,N] by autograd through the readout alone; its last step when the loss looks there alone."""
    q = torch.stack(output_errors(p)[1][1:])
    return q if p.when == "all" or p.network.kappa else q[-1:]


def kernel_gradients(p, in_place=False, W=None, **paths):
    """Recurrent gradients and the summed initial credit of `propagate` with the open paths."""
    run, q = trajectory(p, in_place), partial_signal(p)
    carrier = run.params["W_rec"] if W is None else W
    credit = propagate(run, q, carrier=carrier, **paths)
    grads = weight_gradients(run, credit, q.new_zeros(*q.shape[:2], p.network.n_out))
    return {name: grads[name] for name in (*RECURRENT, "initial_state") if name in grads}


PATHS = {
    "no hops": {"hops": 0},
    "all hops": {},
    "blocks": {"blocks": 5},
    "blocks that end with T": {"blocks": T},
    "one-step blocks": {"blocks": 1},
    "reach": {"reach": 4},
    "reach to the first current": {"reach": T},
    "reach to the start": {"reach": T + 1},
}


@pytest.mark.parametrize(("alpha", "activation"), [(0.4, "tanh"), (0.4, "relu"), (1.0, "softplus")])
@pytest.mark.parametrize("when", ["last", "all"])
@pytest.mark.parametrize("path", PATHS)
@every_leak
def test_in_place_path_equals_general_path(leak, path, when, alpha, activation):
    p = problem(Leaky(alpha, activation, leak), when=when)
    carrier = trajectory(p).params["W_rec"]
    fast, general = (
        propagate(trajectory(p, i), partial_signal(p), carrier=carrier, **PATHS[path]) for i in (True, False)
    )
    assert general.currents.norm() > 1e-6
    torch.testing.assert_close(fast.currents, general.currents, rtol=1e-12, atol=1e-14)
    assert (fast.initial is None) == (general.initial is None)
    if general.initial is not None:
        torch.testing.assert_close(fast.initial, general.initial, rtol=1e-12, atol=1e-14)
    other = propagate(trajectory(p, True), partial_signal(p), carrier=-carrier, **PATHS[path])
    blind = path in ("no hops", "one-step blocks")  # those two alone never use the carrier inside
    assert (distance(other.currents, fast.currents) < 1e-14) == blind


@every_leak
@pytest.mark.parametrize("when", ["last", "all"])
@pytest.mark.parametrize("kappa", [0.0, 0.5])
def test_initial_state_credit_equals_autograd(leak, when, kappa):
    p = problem(Leaky(0.4, "tanh", leak), when=when, kappa=kappa, learned=True)
    for in_place in (True, False):
        assert_equal(kernel_gradients(p, in_place), autograd(p), ["initial_state"])
        assert_equal(kernel_gradients(p, in_place, hops=0), autograd(p, **no_hop()), ["initial_state"])
    assert_differ(kernel_gradients(p, hops=0), autograd(p), ["initial_state"])


@every_leak
@pytest.mark.parametrize("when", ["last", "all"])
def test_hop_limit_keeps_the_lowest_orders_in_w(leak, when):
    """hops=1 is e-prop plus the first-order term of BPTT in the non-local W (the leaky-tail MDGL)."""
    p = problem(Leaky(0.4, "tanh", leak), when=when, learned=True)
    names, terms = (*RECURRENT, "initial_state"), hop_terms(p)
    for hops in range(T + 2):
        expected = {name: terms[name][: hops + 1].sum(0) for name in names}
        assert_equal(kernel_gradients(p, hops=hops), expected, names, tol=1e-10)
    assert_differ(kernel_gradients(p, hops=1), kernel_gradients(p, hops=0), names)
    assert_differ(kernel_gradients(p, hops=1), autograd(p), names)


@every_leak
@pytest.mark.parametrize("when", ["last", "all"])
def test_as_many_hops_as_steps_are_no_limit(leak, when):
    p = problem(Leaky(0.4, "tanh", leak), when=when, learned=True)
    names = (*RECURRENT, "initial_state")
    for hops in (T, T + 5):
        assert_equal(kernel_gradients(p, hops=hops), autograd(p), names)
    assert_equal(kernel_gradients(p, hops=T - 1), autograd(p), RECURRENT)  # h_0 -> h_T takes T hops
    assert_differ(kernel_gradients(p, hops=2), autograd(p), names, by=1e-4)


@every_leak
def test_true_gain_as_replaced_gain_is_bptt(leak):
    p = problem(Leaky(0.4, "tanh", leak), learned=True)
    local = trajectory(p).local
    names = (*RECURRENT, "initial_state")
    assert_equal(kernel_gradients(p, gain=(local.C, local.D)), autograd(p), names)
    assert_differ(kernel_gradients(p, gain=(Scale(0.2), Scale(0.6))), autograd(p), names)


@pytest.mark.parametrize("when", ["last", "all"])
@pytest.mark.parametrize("rest", [True, False])
@pytest.mark.parametrize("alpha", [0.4, 1.0])
@every_leak
def test_one_pass_with_replaced_gains_equals_the_passes_hop_by_hop(leak, alpha, rest, when):
    p, K = problem(Leaky(alpha, "tanh", leak), when=when), randn(30, 5, 5)
    if rest:
        p = replace(p, s_0=None)
        p.network.b_rec = None
    params, q = p.network.params(), randn(31, *((T, 3, 5) if when == "all" else (1, 3, 5)))
    for new_C, new_D in ((Scale(0.3), Scale(0.9)), (Scale(0.0), Scale(0.9)), (Scale(0.3), Scale(0.0)), (None, None)):
        got = []
        for in_place in (True, False):
            run = p.network.run(params, p.x, when="all", initial_state=p.s_0, in_place=in_place)
            assert run.from_rest == rest
            gain = (new_C or run.local.C, new_D or run.local.D)
            by_hops = propagate(run, q, carrier=K, hops=T, gain=gain)
            got += [propagate(run, q, carrier=K, gain=gain), by_hops]
        for other in got[1:]:
            short, long = sorted((got[0].currents, other.currents), key=len)
            torch.testing.assert_close(long[-len(short) :], short, rtol=1e-12, atol=1e-13)
            assert not long[: len(long) - len(short)].any()
            for a, b in ((got[0].initial, other.initial), (other.initial, got[0].initial)):
                if a is not None:
                    torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-12, atol=1e-13)
        if when == "all" and 0 not in (getattr(g, "factor", 1.0) for g in gain):
            assert distance(propagate(run, q, carrier=K, hops=3, gain=gain).currents, got[0].currents) > 1e-5


@every_leak
@pytest.mark.parametrize("in_place", [True, False])
def test_a_signal_may_tell_the_initial_activity_something(leak, in_place):
    """Row 0 of a signal with T+1 rows, against autograd of a loss that reads every activity, h_0 included."""
    p, q = problem(Leaky(0.4, "tanh", leak), learned=True), randn(32, T + 1, 3, 5)
    params = leaves(p)
    slow = run_slow(p, params)
    value = sum((q[t] * slow.h[t]).sum() for t in range(T + 1))
    names = (*RECURRENT, "initial_state")
    expected = dict(zip(names, torch.autograd.grad(value, [params[n] for n in names]), strict=True))
    run = p.network.run(p.network.params(), p.x, when="all", in_place=in_place)
    silent = q.new_zeros(1, 3, 3)
    for paths in ({}, {"reach": T + 1}):
        credit = propagate(run, q, carrier=run.params["W_rec"], **paths)
        assert_equal(weight_gradients(run, credit, silent), expected, names)
    without = propagate(run, q[1:], carrier=run.params["W_rec"])
    assert_equal(weight_gradients(run, without, silent), expected, RECURRENT)
    assert_differ(weight_gradients(run, without, silent), expected, ["initial_state"])


@every_leak
def test_hop_of_all_credit_is_the_total_learning_signal(leak):
    p = problem(Leaky(0.4, "tanh", leak), learned=True)
    run, q = trajectory(p), partial_signal(p)
    exact = propagate(run, q, carrier=run.params["W_rec"])
    own = propagate(run, hop(exact.currents, run.params["W_rec"], q))
    torch.testing.assert_close(own.currents, exact.currents)
    torch.testing.assert_close(own.initial, exact.initial)
    assert hop(exact.currents[-2:], run.params["W_rec"]).shape[0] == 3
    assert distance(propagate(run, hop(exact.currents, run.params["W_rec"].mT, q)).currents, exact.currents) > 0.01


@pytest.mark.parametrize("mu", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("in_place", [True, False])
def test_replaced_gain_is_modprop_on_the_potential_leak(mu, in_place):
    """Liu 2022 (ModProp), backward form: δ_t = D_t q_t + (1-α) δ_{t+1} + α μ W_abᵀ δ_{t+1}."""
    alpha, p, W_ab = 0.4, problem(Leaky(0.4, "tanh")), randn(30, 5, 5)
    run, q = trajectory(p, in_place), partial_signal(p)
    slope = 1 - torch.tanh(trajectory(p).states[:, :, 0]) ** 2
    delta, expected = torch.zeros(3, 5, dtype=torch.float64), []
    for t in range(T, 0, -1):
        delta = slope[t] * q[t - 1] + (1 - alpha) * delta + alpha * mu * delta @ W_ab
        expected.append(alpha * delta)
    initial = (1 - alpha) * delta + alpha * mu * delta @ W_ab
    got = propagate(run, q, carrier=W_ab, gain=(run.local.C, Scale(mu)))
    torch.testing.assert_close(got.currents.squeeze(-2), torch.stack(expected[::-1]))
    torch.testing.assert_close(got.initial.squeeze(-2), initial)
    own = propagate(run, q).currents
    assert (distance(got.currents, own) < 1e-14) == (mu == 0)  # μ = 0 is e-prop


@pytest.mark.parametrize("hops", [1, 2, None])
@every_leak
def test_replaced_gain_meets_credit_only_after_a_hop(leak, hops):
    """Level by level: λ⁽⁰⁾, c⁽⁰⁾ with the true C, D; after each hop C', D'; A is always the true one."""
    p, K, mu = problem(Leaky(0.4, "tanh", leak)), randn(30, 5, 5), 0.7
    run, q = trajectory(p), partial_signal(p)
    A, C, D = run.local.A, run.local.C, run.local.D
    new_C, new_D = Scale(0.4 * mu), Scale(0.9)
    arriving, total, initial = [None, *q], torch.zeros(T, 3, 1, 5, dtype=torch.float64), 0
    for level in range(1 + (T if hops is None else hops)):
        pull_C, pull_D = (new_C, new_D) if level else (C, D)
        state, c = torch.zeros(3, 1, 5, dtype=torch.float64), {}
        for t in range(T, -1, -1):
            state = A.pull(state, t + 1) if t < T else state
            if arriving[t] is not None:
                state = state + pull_D.pull(arriving[t].unsqueeze(-2), t)
            c[t] = pull_C.pull(state, t)
        initial = initial + state
        total = total + torch.stack([c[t] for t in range(1, T + 1)])
        arriving = [c[t + 1].squeeze(-2) @ K if t < T else None for t in range(T + 1)]
    got = propagate(run, q, carrier=K, hops=hops, gain=(new_C, new_D))
    torch.testing.assert_close(got.currents, total)
    torch.testing.assert_close(got.initial, initial)
    assert distance(propagate(run, q, carrier=K, hops=hops).currents, total) > 0.01


@every_leak
@pytest.mark.parametrize("when", ["last", "all"])
@pytest.mark.parametrize("k", [1, 4, 5, T, T + 1])
def test_blocks_equal_autograd_cut_at_their_borders(leak, when, k):
    p = problem(Leaky(0.4, "tanh", leak), when=when, learned=True)
    expected = autograd(p, **in_blocks(k))
    names = RECURRENT if not expected["initial_state"].any() else (*RECURRENT, "initial_state")
    assert ("initial_state" in names) == (when == "all" or k >= T)
    for in_place in (True, False):
        got = kernel_gradients(p, in_place, blocks=k)
        assert_equal(got, expected, names)
        assert got["initial_state"].any() == ("initial_state" in names)
    if k < T:
        assert_differ(got, autograd(p), RECURRENT, by=1e-4)
        assert_differ(got, autograd(p, **in_blocks(5 if k == 4 else 4)), RECURRENT, by=1e-4)


@every_leak
@pytest.mark.parametrize("when", ["last", "all"])
@pytest.mark.parametrize("k", [1, 3, T, T + 1])
def test_reach_equals_autograd_from_each_step(leak, when, k):
    p = problem(Leaky(0.4, "tanh", leak), when=when, learned=True)
    expected = sliding(p, k)
    names = RECURRENT if not expected["initial_state"].any() else (*RECURRENT, "initial_state")
    for in_place in (True, False):
        got = kernel_gradients(p, in_place, reach=k)
        assert_equal(got, expected, names)
        assert got["initial_state"].any() == ("initial_state" in names)
    assert_differ(got, kernel_gradients(p, reach=2), RECURRENT)
    if k < T:
        assert_differ(got, autograd(p), RECURRENT, by=1e-4)


@every_leak
def test_total_learning_signal_without_hops_is_bptt(leak):
    """ℓ_t = q_t + Kᵀ c_{t+1} at fixed s_t, then the own path alone (Bellec 2020, eq. 1)."""
    p = problem(Leaky(0.4, "tanh", leak))
    run, q = trajectory(p), partial_signal(p)
    exact = propagate(run, q, carrier=run.params["W_rec"])
    hopped = exact.currents[1:].squeeze(-2) @ run.params["W_rec"]
    total = q + torch.cat([hopped, torch.zeros_like(q[:1])])
    torch.testing.assert_close(propagate(run, total).currents, exact.currents)
    assert distance(propagate(run, q).currents, exact.currents) > 0.01


def test_credit_of_a_late_signal_stands_at_the_last_steps():
    """A memoryless neuron without hops credits the loss's own step: one outer product, no loop."""
    p = problem(Leaky(1.0, "tanh"), when="last")
    run, q = trajectory(p, True), partial_signal(p)
    credit = propagate(run, q)
    assert credit.currents.shape == (1, 3, 1, 5)
    full = Credit(torch.cat([torch.zeros(T - 1, 3, 1, 5, dtype=torch.float64), credit.currents]))
    error = torch.zeros(1, 3, 3, dtype=torch.float64)
    short, long = weight_gradients(run, credit, error), weight_gradients(run, full, error)
    assert_equal(short, long, RECURRENT)
    early = weight_gradients(run, Credit(full.currents.roll(-1, 0)), error)
    assert_differ(early, short, ["W_rec", "W_in"])


def test_neither_path_overwrites_what_it_is_handed():
    p = problem()
    for in_place in (True, False):
        run, q = trajectory(p, in_place), partial_signal(p)
        kept = [v.clone() for v in (q, run.h, run.states, run.params["W_rec"])]
        for paths in PATHS.values():
            propagate(run, q, carrier=run.params["W_rec"], **paths)
        for before, after in zip(kept, (q, run.h, run.states, run.params["W_rec"]), strict=True):
            assert torch.equal(before, after)
