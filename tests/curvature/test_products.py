"""Hessian-vector products against dense Hessians of the slow network, and what they must leave alone."""

from __future__ import annotations

import copy

import pytest
import torch

import bpgen
from bpgen.curvature import HessianProducts
from bpgen.errors import BpgenError
from bpgen.losses import Activity
from bpgen.neurons import Leaky
from tests.curvature.dense import BLOCKS, PROBLEMS, asked, dense_hessian, objective
from tests.oracles import Problem, activity_cost, distance, no_hop, problem, randn

every_problem = pytest.mark.parametrize("name", PROBLEMS)
every_block = pytest.mark.parametrize("block", BLOCKS)


def products(p: Problem, block: str = "W_rec", l2: float = 0.0, params=None, **options) -> HessianProducts:
    problem = asked(p, objective(p, l2))
    return HessianProducts(problem if params is None else problem.at(**params), block, **options)


def matrix(operator: HessianProducts) -> torch.Tensor:
    return torch.stack([operator(e) for e in torch.eye(operator.size, dtype=torch.float64)])


@every_block
@every_problem
def test_products_with_unit_vectors_are_the_dense_hessian(name, block):
    p = PROBLEMS[name]()
    H = dense_hessian(p, block)
    assert len(H) < 500
    assert H.norm() > 1e-2
    got = matrix(products(p, block))
    assert got.dtype == torch.float64
    assert distance(got, H) < 1e-12
    assert distance(got, got.T) < 1e-12


@every_block
def test_products_are_differences_of_the_gradient(block):
    p = problem(Leaky(0.4, "tanh"), masked=True)
    operator, eps = products(p, block), 1e-5
    v = randn(3, operator.size)
    names = list(p.network.params()) if block == "all" else ["W_rec"]

    def gradient_at(step: float) -> torch.Tensor:
        moved = copy.deepcopy(p.network)
        first = 0
        with torch.no_grad():
            for n in names:
                w = moved.get_parameter(n)
                free = torch.ones_like(w, dtype=torch.bool)
                if n == "W_rec":
                    free.fill_diagonal_(False)
                count = int(free.sum())
                w[free] += step * v[first : first + count]
                first += count
        grads = bpgen.gradients("bptt", moved, p.x, p.target, p.loss, p.when, p.mask, p.s_0).grads
        return torch.cat([grads[n].flatten() for n in names])

    slope = (gradient_at(eps) - gradient_at(-eps)) / (2 * eps)
    keep = [torch.ones(w.numel(), dtype=torch.bool) for w in map(p.network.get_parameter, names)]
    keep[names.index("W_rec")] = ~torch.eye(p.network.n_rec, dtype=torch.bool).flatten()
    assert distance(operator(v), slope[torch.cat(keep)]) < 1e-8


@every_block
@pytest.mark.parametrize("size", [1, 2, 4, 5, 9])
@pytest.mark.parametrize(("loss", "when"), [("mse", "all"), ("cross_entropy", "last")])
def test_chunks_of_samples_give_the_same_products(block, size, loss, when):
    p = problem(Leaky(0.4, "tanh"), B=5, loss=loss, when=when, masked=when == "all")
    whole, chunked = products(p, block, 0.1), products(p, block, 0.1, chunk_size=size)
    for seed in (0, 1):
        v = randn(seed, whole.size)
        assert distance(chunked(v), whole(v)) < 1e-13


def test_the_regulariser_adds_its_coefficient_to_penalised_weights_only():
    p = problem()
    without, with_l2 = products(p, "all"), products(p, "all", 0.01)
    v = randn(0, without.size)
    sizes = [w.numel() - (p.network.n_rec if n == "W_rec" else 0) for n, w in p.network.named_parameters()]
    added = dict(zip(p.network.params(), (with_l2(v) - without(v)).split(sizes), strict=True))
    for name, piece in zip(p.network.params(), v.split(sizes), strict=True):
        torch.testing.assert_close(added[name], (0.01 if name.startswith("W") else 0.0) * piece, rtol=0, atol=1e-12)


@every_block
@pytest.mark.parametrize("form", ["rate", "square"])
@pytest.mark.parametrize("name", ["potential, mse, masked", "rate, cross-entropy, last"])
def test_a_regulariser_of_the_activity_is_in_the_hessian_whole_and_in_chunks(name, form, block):
    p = PROBLEMS[name]()
    activity = Activity(0.7, "rate", 0.3) if form == "rate" else Activity(20.0, "square")
    H = dense_hessian(p, block, cost=lambda h: activity_cost(h, activity.coefficient, form, activity.target))
    whole = asked(p, objective(p, 0.0, activity))
    assert distance(matrix(HessianProducts(whole, block)), H) < 1e-12
    assert distance(matrix(HessianProducts(whole, block, chunk_size=2)), H) < 1e-12
    assert distance(dense_hessian(p, block), H) > 0.01
    bare = HessianProducts(whole.without_regulariser(), block)
    assert distance(matrix(bare), dense_hessian(p, block)) < 1e-12


@every_block
def test_the_truncated_graph_of_a_rule_has_another_hessian(block):
    p = problem(Leaky(0.4, "tanh"))
    true, truncated = dense_hessian(p, block), dense_hessian(p, block, **no_hop())
    got = matrix(products(p, block))
    assert distance(got, true) < 1e-12
    assert distance(got, truncated) > 0.05


def test_weights_are_those_handed_in_and_not_the_modules():
    p, other = problem(seed=0), problem(seed=5)
    expected = products(Problem(other.network, *list(vars(p).values())[1:]))
    got = products(p, params=other.network.params())
    v = randn(0, got.size)
    assert torch.equal(got(v), expected(v))
    assert distance(got(v), products(p)(v)) > 0.01


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_later_training_does_not_change_the_operator(chunk_size):
    p = problem()
    operator = products(p, chunk_size=chunk_size)
    v = randn(0, operator.size)
    before = operator(v)
    with torch.no_grad():
        p.network.W_rec.mul_(2)
    assert torch.equal(operator(v), before)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_nothing_is_left_behind_in_the_network_or_the_global_random_state(chunk_size):
    p = problem()
    p.network.W_in.grad = grad = randn(1, *p.network.W_in.shape)
    weights = {n: w.clone() for n, w in p.network.params().items()}
    state, graded = torch.get_rng_state(), grad.clone()
    for training in (True, False):
        p.network.train(training)
        operator = products(p, "all", chunk_size=chunk_size)
        operator(randn(0, operator.size))
        assert p.network.training is training
    assert p.network.W_in.grad is grad
    assert torch.equal(grad, graded)
    for name, w in p.network.named_parameters():
        assert w.requires_grad
        assert w.is_leaf
        assert torch.equal(w, weights[name])
        assert name == "W_in" or w.grad is None
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_products_work_where_gradients_are_disabled(guard, chunk_size):
    p = problem(Leaky(0.4, "tanh"), masked=True)
    v = randn(0, products(p).size)
    expected = products(p)(v)
    with guard():
        born_here = Problem(p.network, p.x.clone(), p.target.clone(), p.loss, p.when, p.mask.clone(), p.s_0.clone())
        got = products(born_here, chunk_size=chunk_size)(v)
        assert torch.is_grad_enabled() is False
    assert distance(got, expected) < 1e-13


def test_single_precision_products_agree_with_double():
    p = problem(Leaky(0.4, "tanh"))
    q = Problem(copy.deepcopy(p.network).float(), p.x.float(), p.target.float(), p.loss, p.when, p.mask, p.s_0.float())
    v = randn(0, products(p).size)
    assert products(q)(v).dtype == torch.float64
    assert products(q).precision == torch.finfo(torch.float32).eps
    assert distance(products(q)(v), products(p)(v)) < 1e-5


def test_a_given_initial_state_leaves_the_learned_one_without_curvature():
    p = problem(Leaky(0.4, "tanh"), learned=True)
    given = Problem(p.network, p.x, p.target, p.loss, p.when, p.mask, randn(9, p.x.shape[1], 1, p.network.n_rec))
    H, n = matrix(products(given, "all")), p.network.initial_state.numel()
    assert distance(H, dense_hessian(given, "all")) < 1e-12
    silent = (H == 0).all(1)
    assert int(silent.sum()) == n
    assert not (matrix(products(p, "all")) == 0).all(1).any()


def test_errors_name_what_was_expected():
    p = problem()
    with pytest.raises(BpgenError, match=r"unknown block 'W_inn'.*W_rec, all"):
        products(p, "W_inn")
    with pytest.raises(BpgenError, match="chunk_size must be a positive number of samples, got 0"):
        products(p, chunk_size=0)
    with pytest.raises(BpgenError, match="no free entry"):
        products(problem(N=1))
