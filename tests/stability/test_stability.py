"""The theorem's quantities against independent ones: Jacobians by differences, dense Hessians of a slow network."""

import numpy as np
import pytest
import torch

import bpgen
from bpgen.curvature.arnoldi import arnoldi
from bpgen.errors import BpgenError
from bpgen.neurons import ALIF, GRU, LIF, Leaky
from bpgen.rules import OfflineRule, Rule, RuleGradients, propagate
from bpgen.stability import RuleJacobian, multipliers, stability
from tests.curvature.dense import asked, dense_hessian, free_entries, objective
from tests.oracles import autograd, problem, randn

LR = 0.05
NEURONS = {
    "potential tanh": lambda: Leaky(0.4, "tanh"),
    "rate softplus": lambda: Leaky(0.4, "softplus", "rate"),
    "inside relu": lambda: Leaky(0.4, "relu", "inside"),
    "GRU": GRU,
}
RULES = {
    "bptt": {},
    "three_factor": {},
    "three_factor random": {"feedback": "random"},
    "rflo": {},
    "tbptt blocks": {"window": 3},
    "tbptt sliding": {"window": 3, "style": "sliding"},
    "readout_only": {},
}


def rule(name):
    return bpgen.load_rule(name.split()[0], **RULES[name])


def at_zero_residual(neuron, B=1, O=1, residual=0.0, seed=0, T=6):
    """One example, scalar output, squared loss at the last step, and the target that the network already hits."""
    p = problem(neuron, B=B, O=O, when="last", N=3, I=2, T=T, seed=seed)
    with torch.no_grad():
        p.target.copy_(p.network(p.x, initial_state=p.s_0) - residual)
    return p


def flat(p, grads):
    return torch.cat([grads[name][entries] for name, entries in free_entries(p, "all").items()])


def update_map(p, r, lr, step=1e-6):
    """The Jacobian of θ ← θ - η ĝ(θ) by central differences of `bpgen.gradients`: no derivative of ĝ is taken."""
    weights, columns = dict(p.network.named_parameters()), []
    r = r.bind(p.network)

    def moved(w, i, by):
        with torch.no_grad():
            w.view(-1)[i] += by
            theta = flat(p, weights) - lr * flat(p, p.rule(r).grads)
            w.view(-1)[i] -= by
        return theta.detach()

    for name, entries in free_entries(p, "all").items():
        for i in entries.flatten().nonzero().squeeze(1).tolist():
            columns.append((moved(weights[name], i, step) - moved(weights[name], i, -step)) / (2 * step))
    return torch.stack(columns, dim=1)


def measured(p, r, **options):
    return stability(r, p.network, p.x, p.target, p.loss, p.when, p.mask, p.s_0, **{"lr": LR, **options})


def rho_of_unit_error(p, r):
    """From autograd on the slow network, at the target that leaves an error of 1."""
    target = p.target.clone()
    with torch.no_grad():
        p.target.copy_(p.network(p.x, initial_state=p.s_0) - 1)
    g, g_hat = flat(p, autograd(p)), flat(p, p.rule(r).grads)
    p.target.copy_(target)
    return ((g_hat @ g) / (g @ g)).item(), (g_hat - (g_hat @ g) / (g @ g) * g).norm() / g.norm()


@pytest.mark.parametrize(
    ("neuron", "name"),
    [*(("potential tanh", name) for name in RULES), *((n, r) for n in NEURONS for r in ("three_factor", "rflo"))],
)
def test_theorem_the_update_map_has_the_eigenvalue_1_minus_eta_rho_lambda(name, neuron):
    p, r = at_zero_residual(NEURONS[neuron]()), rule(name)
    dense = np.linalg.eigvals(update_map(p, r, LR).numpy())
    moving = dense[np.abs(dense - 1).argmax()]
    lambda_1 = torch.linalg.eigvalsh(dense_hessian(p, "all"))[-1].item()
    rho, e = rho_of_unit_error(p, r)
    assert abs(moving - (1 - LR * rho * lambda_1)) < 1e-6
    assert np.abs(np.delete(dense, np.abs(dense - 1).argmax()) - 1).max() < 1e-6
    found = measured(p, r)
    assert found.unit_error
    assert found.converged
    assert found.rho == pytest.approx(rho, abs=1e-9)
    assert found.rho_directional == pytest.approx(rho, abs=1e-9)
    assert found.lambda_max == pytest.approx(lambda_1, rel=1e-9)
    assert abs((1 - LR * found.mu[0]).item() - moving) < 1e-6
    assert found.max_multiplier == pytest.approx(abs(moving), abs=1e-6)
    assert found.bound == 2 / LR
    assert found.edge == pytest.approx(LR * lambda_1 / 2)
    assert found.edge_rho == pytest.approx(LR * rho * lambda_1 / 2, abs=1e-9)
    if rho > 0:
        assert found.bound_rho == pytest.approx(2 / (LR * rho))
    else:
        assert np.isnan(found.bound_rho)
    if name not in ("bptt", "tbptt blocks"):  # six steps in blocks of three: the last block is not all
        assert e > 0.01  # there is an orthogonal part to be without effect
        assert abs(rho - 1) > 1e-4


@pytest.mark.parametrize("neuron", [LIF, ALIF])
def test_theorem_for_the_surrogate_network_of_spiking_neurons(neuron):
    p = at_zero_residual(neuron(), seed=3)
    lambda_1 = torch.linalg.eigvalsh(dense_hessian(p, "all"))[-1].item()
    for name in ("three_factor", "rflo"):
        rho, e = rho_of_unit_error(p, rule(name))
        found = measured(p, rule(name))
        assert found.surrogate
        assert e > 1e-3
        assert abs((1 - LR * found.mu[0]).item() - (1 - LR * rho * lambda_1)) < 1e-6


@pytest.mark.parametrize(
    "outside", [{"residual": 0.7}, {"B": 3}, {"O": 2}], ids=["a residual", "three examples", "two outputs"]
)
def test_outside_the_theorems_setting_the_equality_does_not_hold(outside):
    p, r = at_zero_residual(Leaky(0.4, "tanh"), **outside), rule("rflo")
    lambda_1 = torch.linalg.eigvalsh(dense_hessian(p, "all"))[-1].item()
    found, (rho, _) = measured(p, r), rho_of_unit_error(p, r)
    dense = np.linalg.eigvals(update_map(p, r, LR).numpy())
    assert abs(dense - (1 - LR * found.mu[0].item())).min() < 1e-6  # what is measured is still the update map
    assert abs(found.mu[0].item() - rho * lambda_1) > 0.01 * lambda_1


@pytest.mark.parametrize("neuron", NEURONS)
def test_the_jacobian_of_bptt_is_the_hessian(neuron):
    p = problem(NEURONS[neuron](), T=4, N=3, I=2, loss="cross_entropy")
    H = dense_hessian(p, "all", l2=0.1)
    for name, same in (("bptt", True), ("three_factor", False)):
        j = jacobian(p, bpgen.load_rule(name), l2=0.1)
        D = torch.stack([j(v) for v in torch.eye(j.size, dtype=torch.float64)], dim=1)
        transposed = torch.stack([j.transposed(v) for v in torch.eye(j.size, dtype=torch.float64)])
        assert torch.allclose(D, transposed, atol=1e-12)
        assert (((D - H).norm() / H.norm()).item() < 1e-10) is same
        assert (((D - D.T).norm() / H.norm()).item() < 1e-10) is same
    symmetric = measured(p, "bptt", regulariser=0.1)
    assert symmetric.asymmetry_fraction < 1e-12
    assert symmetric.mu.imag.abs().max() == 0
    assert symmetric.mu[0].real.item() == pytest.approx(torch.linalg.eigvalsh(H).abs().max().item(), rel=1e-6)
    assert (symmetric.rho, symmetric.rho_directional) == pytest.approx((1, 1))


def jacobian(p, r, l2=0.0):
    return RuleJacobian(r.bind(p.network), asked(p, objective(p, l2)), {})


@pytest.mark.parametrize(("name", "seed"), [("three_factor", 0), ("rflo", 1), ("tbptt sliding", 2)])
def test_mu_against_the_dense_eigenvalues(name, seed):
    p, r = problem(Leaky(0.4, "tanh"), T=4, B=6, N=4, I=2, seed=seed), rule(name)
    j = jacobian(p, r)
    D = torch.stack([j(v) for v in torch.eye(j.size, dtype=torch.float64)], dim=1)
    dense = np.linalg.eigvals(D.numpy())
    dense = dense[np.abs(dense).argsort()[::-1]]
    found = measured(p, r, top=4, probes=j.size)
    assert found.converged
    for mu in found.mu.numpy():
        assert np.abs(dense - mu).min() < 1e-5 * np.abs(dense[0])
    assert np.abs(found.mu[:4].numpy()) == pytest.approx(np.abs(dense[:4]), rel=1e-5)
    away = dense[np.abs(dense) > 1e-6 * np.abs(dense[0])]
    assert found.max_multiplier == pytest.approx(np.abs(1 - LR * away).max(), abs=1e-6)
    assert found.asymmetry == pytest.approx((D - D.T).norm().item())
    assert found.asymmetry_fraction == pytest.approx(((D - D.T).norm() / (2 * D.norm())).item())
    many = measured(p, r, probes=j.size - 1)  # estimated: 10 % of its value, by the number of probes
    assert many.asymmetry == pytest.approx(found.asymmetry, rel=0.3)
    assert many.asymmetry != found.asymmetry


def test_complex_eigenvalues_come_in_pairs_and_the_deciding_one_is_found():
    blocks = [torch.tensor([[2.0, 3.0], [-3.0, 2.0]]), torch.diag(torch.tensor([3.0, 1.0, -0.5, 0.1, 0.0]))]
    basis = torch.linalg.qr(randn(0, 7, 7))[0]
    A = basis @ torch.block_diag(*blocks).double() @ basis.T
    found = arnoldi(lambda v: A @ v, 7, top=1)
    assert found.eigenvalues.tolist() == pytest.approx([2 + 3j, 2 - 3j])
    far = arnoldi(lambda v: A @ v, 7, top=1, far_from=10.0)  # |−0.5 − 10| is the largest distance
    assert min(far.eigenvalues.real.tolist()) == pytest.approx(-0.5)
    assert arnoldi(lambda v: A @ v, 7, top=1, max_products=2).converged is False
    undefined = arnoldi(lambda v: v * float("nan"), 7)
    assert not undefined.converged
    assert undefined.eigenvalues.isnan().all()


@pytest.mark.parametrize("seed", range(30))
def test_arnoldi_on_matrices_of_low_rank_with_repeated_and_defective_eigenvalues(seed):
    left, right = randn(seed, 30, 1 + seed % 5), randn(100 + seed, 1 + seed % 5, 30)
    A = left @ right + (torch.eye(30, dtype=torch.float64) if seed % 2 else 0)
    A[0, 1] += 5.0 * (seed % 3)
    dense = np.linalg.eigvals(A.numpy())
    found = arnoldi(lambda v: A @ v, 30, top=2, seed=seed, tol=1e-8)
    assert found.converged
    assert abs(found.eigenvalues[0].item()) == pytest.approx(np.abs(dense).max(), rel=1e-6)


def test_momentum_against_the_companion_matrix():
    mu, lr, beta = torch.tensor([0.3 + 0.2j, 5.0, 30.0, 70.0, -1.0], dtype=torch.complex128), 0.05, 0.9
    for value, m in zip(mu, multipliers(mu, lr, beta), strict=True):
        step = np.array([[1 + beta - lr * value.item(), -beta], [1, 0]])
        assert m.item() == pytest.approx(np.abs(np.linalg.eigvals(step)).max())
    at_the_bound = torch.tensor([2 * (1 + beta) / lr], dtype=torch.complex128)
    assert multipliers(at_the_bound, lr, beta).item() == pytest.approx(1)
    assert multipliers(at_the_bound * 1.01, lr, beta).item() > 1.001
    p = at_zero_residual(Leaky(0.4, "tanh"))
    assert measured(p, "bptt", momentum=0.9).bound == pytest.approx(2 * 1.9 / LR)


class Detached(OfflineRule):
    def credit(self, trajectory, error):
        return propagate(trajectory, error @ trajectory.params["W_out"].detach())


class Traced(Rule):
    def estimate(self, problem, draws):
        value = problem.params["W_rec"].sum()
        return RuleGradients(value, problem.x, {n: p * np.tanh(value.numpy()) for n, p in problem.params.items()}, {})


def test_rules_without_an_explicit_gradient_are_refused():
    p = problem()
    with pytest.raises(BpgenError, match="is not that of its values: does it detach"):
        measured(p, Detached())
    with pytest.raises(BpgenError, match="cannot be differentiated"):
        measured(p, Traced())

    class Step(OfflineRule):
        traits = bpgen.rules.Traits(update="step")

    with pytest.raises(BpgenError, match="finished weight changes"):
        measured(p, Step())


@pytest.mark.parametrize("options", [{"lr": 0}, {"momentum": 1}, {"probes": -1}, {"top": 0}, {"tol": 0}])
def test_bad_options(options):
    with pytest.raises(BpgenError):
        measured(problem(), "bptt", **options)


def test_the_network_and_the_global_random_state_are_left_alone_and_float32_agrees():
    p = problem(B=6)
    before = {n: w.detach().clone() for n, w in p.network.named_parameters()}
    state, r = torch.get_rng_state(), bpgen.load_rule("rflo").bind(p.network)
    with torch.inference_mode():
        first = measured(p, r)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(w, before[n]) and w.grad is None for n, w in p.network.named_parameters())
    assert p.network.W_rec.dtype == r.feedback.weight.dtype == torch.float64
    single = p.network.float()
    again = stability(r.float(), single, p.x.float(), p.target.float(), "mse", "all", None, p.s_0.float(), lr=LR)
    assert single.W_rec.dtype == torch.float32
    assert again.mu[0].item() == pytest.approx(first.mu[0].item(), rel=1e-4)
