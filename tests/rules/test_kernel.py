"""The credit kernel: its two paths, hop limits, replaced gains and truncations, each against a slow oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bpgen.neurons import Leaky
from bpgen.neurons.gain import Scale
from bpgen.rules import Credit, propagate, weight_gradients
from tests.oracles import (
    RECURRENT,
    assert_differ,
    assert_equal,
    autograd,
    distance,
    in_blocks,
    no_hop,
    output_errors,
    problem,
    randn,
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


def hop_terms(p):
    """Gradients by number of hops: BPTT with the path through W_rec scaled by c is a polynomial in c."""
    nodes = np.cos(np.pi * (np.arange(T + 1) + 0.5) / (T + 1))  # degree T: h_0 included
    scaled = [autograd(p, hop=lambda h, t, c=c: c * h + (1 - c) * h.detach()) for c in nodes]
    inverse = torch.from_numpy(np.linalg.inv(np.vander(nodes, increasing=True)))
    return {name: torch.einsum("kc,c...->k...", inverse, torch.stack([g[name] for g in scaled])) for name in scaled[0]}


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
