"""Sketched RTRL: against a dense slow reference, between SnAp-1 and RTRL, and its bounds against what is missing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import bpgen
from bpgen.conformance.rules.blocks import StepByStep
from bpgen.neurons import Leaky
from bpgen.rules import BpgenError, Rule
from tests.oracles import RECURRENT, Problem, assert_differ, assert_equal, problem
from tests.rules import online_reference
from tests.rules.test_online import NEURONS, every_leak, every_neuron, every_readout, mutant
from tests.rules.test_references import both, tensors


def states_of(rule: Rule, p: Problem) -> list[dict[str, Tensor]]:
    """The rule's state after every step."""
    rule, seen = rule.bind(p.network), []
    step = rule.step

    def watched(state, moment):
        after, increments = step(state, moment)
        seen.append(after)
        return after, increments

    rule.step = watched
    p.rule(StepByStep(rule))
    return seen


def dense(state: dict[str, Tensor]) -> Tensor:
    """S + U Rᵀ [B,n,N,N,X] of a state."""
    B, n, N, X = state["own"].shape
    P = (state["left"] @ state["right"].flatten(1, 2).mT).view(B, n, N, N, X)
    P.diagonal(dim1=2, dim2=3).add_(state["own"].transpose(2, 3))
    return P


def missing(rule: Rule, p: Problem) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """P_t - S_t - U_t R_tᵀ [T,B,n·N,N·X] with RTRL's P_t, and the rule's states."""
    states = states_of(rule, p)
    true = torch.stack([s["influence"] for s in states_of(bpgen.load_rule("rtrl"), p)])
    return (true - torch.stack([dense(s) for s in states])).flatten(2, 3).flatten(3), states


def check(rule: Rule, leak: str = "potential", kappa: float = 0.0, rank: int = 2) -> None:
    """Gradients and both bounds against the dense reference."""
    p, model = both(leak, kappa)
    rule.rank = rank
    result = p.rule(rule)
    expected, published, covered = online_reference.sk_rtrl(model, rank)
    assert_equal(result.grads, tensors(expected))
    bounds = [published, covered]
    torch.testing.assert_close([float(result.aux[n]) for n in ("bias_bound_published", "bias_bound")], bounds)
    assert min(bounds) > 0.1 or rank > 4


@every_leak
@every_readout
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_it_equals_the_dense_equations(leak, kappa, rank):
    check(bpgen.load_rule("sk_rtrl"), leak, kappa, rank)


@every_neuron
@pytest.mark.parametrize(("kappa", "autapses"), [(0.0, True), (0.5, False)])
def test_rank_0_is_snap_1_and_full_rank_is_rtrl(neuron, kappa, autapses):
    p = problem(NEURONS[neuron], kappa=kappa, learned=True, autapses=autapses)
    full = p.network.n_rec * (p.network.neuron.n_states + (kappa > 0))
    snap, rtrl = p.rule("snap").grads, p.rule("rtrl").grads
    none, some, whole = (p.rule("sk_rtrl", rank=r) for r in (0, full // 2, full))
    assert_equal(none.grads, snap, tol=1e-10)
    assert_equal(whole.grads, rtrl, tol=1e-10)
    assert whole.aux["bias_bound"] == whole.aux["bias_bound_published"] == 0
    assert_differ(some.grads, rtrl, ["W_rec"], by=1e-4)
    assert_differ(some.grads, snap, ["W_rec"], by=1e-4)


def test_more_directions_are_nearer_to_the_gradient_on_average():
    """Twelve networks of eight neurons: the mean over them of the relative distance from RTRL falls with the rank."""
    distances = {r: [] for r in (0, 1, 2, 4, 6, 8)}
    for seed in range(12):
        p = problem(Leaky(0.4, "tanh"), N=8, seed=seed)
        true = torch.cat([p.rule("rtrl").grads[n].flatten() for n in RECURRENT])
        for rank, found in distances.items():
            got = p.rule("sk_rtrl", rank=rank).grads
            found.append(float((torch.cat([got[n].flatten() for n in RECURRENT]) - true).norm() / true.norm()))
    means = {rank: sum(found) / len(found) for rank, found in distances.items()}
    print("mean distance from RTRL by rank:", {rank: f"{mean:.3f}" for rank, mean in means.items()})
    assert list(means.values()) == sorted(means.values(), reverse=True)
    assert means[2] < 0.7 * means[0]
    assert means[8] < 1e-12


SETTINGS = {
    "tanh, α = 0.5": (Leaky(0.5, "tanh"), 20),
    "relu, α = 1": (Leaky(1.0, "relu"), 12),
    "alif": (NEURONS["alif"], 12),
    "lstm": (NEURONS["lstm"], 12),
}


@pytest.mark.parametrize("rank", [0, 2, 5])
@pytest.mark.parametrize("row", SETTINGS)
def test_the_bounds_hold_along_the_trajectory_and_one_is_tight(row, rank):
    """ε_t and √tr Σ_t against ‖E_t‖, Σ_t against E_t E_tᵀ in every direction, and the bias of the gradient."""
    neuron, T = SETTINGS[row]
    p = problem(neuron, N=8, T=T)
    E, states = missing(bpgen.load_rule("sk_rtrl", rank=rank), p)
    squares = E @ E.mT
    sizes = squares.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()  # [T,B]
    published = torch.stack([s["bound"] for s in states])
    cover = torch.stack([s["cover"] for s in states])
    covered = cover.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()
    seen = sizes > 1e-6
    assert seen.float().mean() > 0.5
    assert (published[seen] >= sizes[seen] * (1 - 1e-9)).all()
    assert (covered[seen] >= sizes[seen] * (1 - 1e-9)).all()
    least = torch.linalg.eigvalsh(cover - squares)[..., 0]
    rounding = 1e-12 * torch.stack([dense(s).flatten(1).norm(dim=1) for s in states]).square()
    assert (least >= -1e-9 * covered.square() - rounding).all()
    got, true = p.rule("sk_rtrl", rank=rank), p.rule("rtrl").grads
    bias = torch.cat([(got.grads[n] - true[n]).flatten() for n in RECURRENT]).norm()
    norm = torch.cat([true[n].flatten() for n in RECURRENT]).norm()
    assert bias < got.aux["bias_bound"] < got.aux["bias_bound_published"]
    last = [float((bound[-1] / sizes[-1]).max()) for bound in (covered, published)]
    print(
        f"{row}, rank {rank}: at T = {T} the bound over what is missing is {last[0]:.2f} (published: {last[1]:.3g}); "
        f"of the bias {float(got.aux['bias_bound'] / bias):.1f} ({float(got.aux['bias_bound_published'] / bias):.3g}); "
        f"bias {bias / norm:.3f} of the gradient"
    )
    assert last[0] < 4  # not vacuous
    assert last[1] > last[0]


def test_a_run_that_diverges_has_gradients_that_say_so_and_no_failure_of_linear_algebra():
    p = problem()
    with torch.no_grad():
        p.network.W_in[0] = torch.inf
    assert p.rule("sk_rtrl").grads["W_rec"].isnan().any()
    assert problem().rule("sk_rtrl").grads["W_rec"].isfinite().all()


def test_a_rank_below_zero_is_refused():
    with pytest.raises(BpgenError, match="rank must be a number of directions, 0 or more, got -1"):
        bpgen.load_rule("sk_rtrl", rank=-1)


MUTANTS = {
    "sk_rtrl keeps the least of the rest": (
        "sk_rtrl",
        "vectors[..., :-r], vectors[..., -r:]",
        "vectors[..., r:], vectors[..., :r]",
    ),
    "sk_rtrl does not carry the rest on": ("sk_rtrl", 'moved = J @ state["left"]', 'moved = 0 * J @ state["left"]'),
    "sk_rtrl leaves out what leaves its neuron": ("sk_rtrl", "fresh = (across.mT @ U)", "fresh = (0 * across.mT @ U)"),
    "sk_rtrl takes the own part twice": ("sk_rtrl", "blocks * (1 - torch.eye(N).to(J)).unsqueeze(1)", "blocks"),
    "sk_rtrl forgets how the two parts overlap": ("sk_rtrl", "(moved @ met + 0.5 * left)", "(0.5 * left)"),
    "sk_rtrl's bound forgets what was missing": ("sk_rtrl", 'rho * state["bound"] + y', "y"),
    "sk_rtrl's bound takes the spectral radius": (
        "sk_rtrl",
        "rho = torch.minimum(J.flatten(1).norm(dim=1), ",
        "rho = torch.minimum(torch.linalg.eigvals(J).abs().amax(1), ",
    ),
    "sk_rtrl's cover is a sum of squares": ("sk_rtrl", "* (x + y)[", "* x.maximum(y)["),
}


@pytest.mark.parametrize("row", MUTANTS)
def test_mutant_is_killed(row):
    name, old, new = MUTANTS[row]
    check(bpgen.load_rule(name))
    with pytest.raises(AssertionError):
        check(mutant(name, old, new)())
