"""Areas: a network of two areas is a stack of two recurrent layers with a delay of one step, under every rule."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd.functional import hessian

import bpgen
from bpgen.cli import main
from bpgen.curvature import HessianProducts
from bpgen.curvature.block import FreeEntries
from bpgen.errors import BpgenError
from bpgen.losses import L2, Loss
from bpgen.neurons import ALIF, GRU, LIF, LSTM, Leaky
from tests.curvature.dense import asked
from tests.oracles import (
    RECURRENT,
    WEIGHTS,
    assert_differ,
    assert_equal,
    autograd,
    distance,
    in_blocks,
    no_hop,
    problem,
    randn,
)
from tests.seeds import assert_seeds_stack

# torch.func.jvp compiles its decompositions with a deprecated part of torch itself, at its first use
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

STACK = {"V1": {"size": 0.5, "input": True}, "PFC": {"size": 0.5, "readout": True, "from": {"V1": 1.0}}}
LOOP = {
    "V1": {"size": 3, "input": True, "from": {"PFC": 0.7}},
    "V2": {"size": 2, "from": {"V1": 1.0, "V2": 0.0}},
    "PFC": {"size": 3, "readout": True, "from": {"V2": 0.8, "V1": 0.5}},
}
RULES = sorted(bpgen.list_rules())


def areas(neuron=None, N=8, described=STACK, **options):
    return problem(neuron or Leaky(0.4, "tanh"), N=N, areas=described, **options)


def network(n_rec=40, neuron=None, described=STACK, **options):
    return bpgen.Network(neuron or Leaky(0.5), 4, n_rec, 3, dtype=torch.float64, areas=described, **options)


# Two areas are two layers


class Layers:
    """Two recurrent layers of tanh units in plain torch, the second driven by the first as it was one step ago.

    Its weights are the free ones of a `STACK`: W11, W22 without their diagonals, W21, the input to the first layer and
    the readout of the second. `theta` holds them all in the order of `FreeEntries`, by parameter and row by row.
    """

    def __init__(self, p, alpha=0.4):
        self.p, self.alpha, self.n = p, alpha, p.network.n_rec // 2

    def weights(self, theta):
        n, I, O = self.n, self.p.network.n_in, self.p.network.n_out
        rest = theta

        def take(count):
            nonlocal rest
            part, rest = rest[:count], rest[count:]
            return part

        off = ~torch.eye(n, dtype=torch.bool)
        W11 = torch.zeros(n, n, dtype=theta.dtype).masked_scatter(off, take(n * (n - 1)))
        rows = take(n * (2 * n - 1)).view(n, 2 * n - 1)  # of the second layer: from the first, from its own but itself
        W21, W22 = rows[:, :n], torch.zeros(n, n, dtype=theta.dtype).masked_scatter(off, rows[:, n:].reshape(-1))
        U = take(n * I).view(n, I)
        R = take(O * n).view(O, n)
        b = take(2 * n)
        return W11, W21, W22, U, R, b[:n], b[n:], take(O)

    def loss(self, theta):
        W11, W21, W22, U, R, b1, b2, c = self.weights(theta)
        a, kappa, n = self.alpha, self.p.network.kappa, self.n
        v1, v2 = self.p.s_0[:, 0, :n], self.p.s_0[:, 0, n:]
        r, total = torch.zeros_like(v2), 0.0
        for x, y in zip(self.p.x, self.p.target, strict=True):
            h1, h2 = torch.tanh(v1), torch.tanh(v2)
            v1 = (1 - a) * v1 + a * (h1 @ W11.T + x @ U.T + b1)
            v2 = (1 - a) * v2 + a * (h2 @ W22.T + h1 @ W21.T + b2)
            r = kappa * r + (1 - kappa) * torch.tanh(v2)
            total = total + 0.5 * (r @ R.T + c - y).square().sum() / len(x)
        return total


@pytest.mark.parametrize("kappa", [0.0, 0.3])
def test_a_stack_is_two_layers_with_a_delay_of_one_step(kappa):
    p = areas(kappa=kappa)
    layers, free = Layers(p), FreeEntries(p.network, p.network.params(), "all")
    theta = free.gather(p.network.params()).requires_grad_()
    assert len(theta) == 4 * 3 + 4 * 7 + 4 * 4 + 3 * 4 + 8 + 3
    value = layers.loss(theta)
    (expected,) = torch.autograd.grad(value, theta)
    value = value.detach()
    for rule, tol in (("bptt", 1e-12), ("rtrl", 1e-12)):
        got = p.rule(rule)
        assert float(got.loss) == pytest.approx(float(value), rel=1e-13)
        assert distance(free.gather(got.grads), expected) < tol
        assert all(got.grads[name].norm() > 1e-3 for name in WEIGHTS)
    assert distance(free.gather(p.rule("three_factor").grads), expected) > 0.05
    one_area = problem(Leaky(0.4, "tanh"), N=8, kappa=kappa)  # control: without areas it is another network
    assert abs(float(one_area.rule("bptt").loss) / float(value) - 1) > 0.01


def test_curvature_is_the_dense_hessian_of_the_free_weights_of_two_layers():
    p = areas(T=5)
    layers, free = Layers(p), FreeEntries(p.network, p.network.params(), "all")
    H = hessian(layers.loss, free.gather(p.network.params()))
    for by in ("roperator", "autograd"):
        operator = HessianProducts(asked(p), "all", by=by)
        assert operator.size == len(H)
        got = operator(torch.eye(len(H), dtype=torch.float64))
        assert distance(got, H) < 1e-11
    found = bpgen.sharpness(p.network, p.x, p.target, "mse", "all", initial_state=p.s_0, block="all", top=2)
    torch.testing.assert_close(found.eigenvalues, torch.linalg.eigvalsh(H).flip(0)[:2], rtol=1e-4, atol=0)
    readout = HessianProducts(asked(p), "W_out")
    assert readout.size == 3 * 4  # what the readout does not see is left out, and so are its zero eigenvalues
    everything = HessianProducts(asked(problem(Leaky(0.4, "tanh"), N=8, T=5)), "all")
    assert everything.size > operator.size


# Every rule keeps to the areas


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("described", [STACK, LOOP], ids=["stack", "loop"])
def test_every_rule_keeps_to_the_areas(rule, described):
    """No gradient where areas are not connected, whatever is stored there; and some where they are."""
    p = areas(described=described, density=0.9)
    got = p.rule(rule)
    masks = p.network.masks()
    assert set(masks) == {"W_rec", "W_in", "W_out"}
    for name, mask in masks.items():
        assert not got.grads[name][mask == 0].any(), name
    alive = [name for name in masks if got.grads[name].norm() > 1e-9]
    assert alive or rule in ("node_perturbation", "weight_perturbation")
    moved = areas(described=described, density=0.9)
    with torch.no_grad():
        for name, mask in masks.items():
            getattr(moved.network, name)[mask == 0] = 3.0
    again = moved.rule(rule)
    torch.testing.assert_close(again.outputs, got.outputs)
    for name in got.grads:
        torch.testing.assert_close(again.grads[name], got.grads[name])


@pytest.mark.parametrize(
    "neuron", [LIF(0.4, 0.3), ALIF(0.4, 0.3, adaptive=0.5), GRU(), LSTM(), Leaky(0.4, "tanh", "rate")]
)
def test_rules_equal_autograd_on_every_neuron(neuron):
    p = areas(neuron, described={**LOOP, "PFC": {**LOOP["PFC"], "input": True}}, kappa=0.3)
    bptt, three_factor = p.rule("bptt").grads, p.rule("three_factor").grads
    assert_equal(bptt, autograd(p), WEIGHTS)
    assert_equal(three_factor, autograd(p, **no_hop()), WEIGHTS)
    assert_equal(p.rule("tbptt", window=3).grads, autograd(p, **in_blocks(3)), WEIGHTS)
    assert_equal(p.rule("rtrl").grads, bptt, WEIGHTS, tol=1e-10)
    assert_differ(three_factor, bptt, RECURRENT)


def test_output_feedback_reaches_all_areas():
    p = areas(output_feedback=0.5)
    assert p.network.W_fb.abs().sum(1).min() > 0
    assert_equal(p.rule("bptt").grads, autograd(p), WEIGHTS)
    assert_differ(areas().rule("bptt").grads, p.rule("bptt").grads, WEIGHTS)


@pytest.mark.parametrize("described", [STACK, LOOP], ids=["stack", "loop"])
def test_symmetric_feedback_tells_the_areas_that_the_readout_sees_and_random_feedback_all(described):
    p = areas(described=described)
    seen = p.network.area == len(described) - 1
    symmetric, random = p.rule("three_factor").grads, p.rule("rflo").grads
    for name in ("W_rec", "b_rec"):
        assert not symmetric[name][~seen].any()
        assert symmetric[name][seen].norm() > 1e-3
        assert random[name][~seen].norm() > 1e-3
    assert not symmetric["W_in"].any()  # only the first area sees the input
    assert random["W_in"].norm() > 1e-3
    assert p.rule("bptt").grads["W_in"].norm() > 1e-3


def test_force_is_ridge_regression_on_the_neurons_that_the_readout_sees():
    p = areas()
    rule = bpgen.load_rule("force", ridge=0.7)
    change = p.rule(rule).grads["W_out"]
    run = p.network.run(p.network.params(), p.x, when="all", initial_state=p.s_0)
    seen = p.network.area == 1
    r = torch.cat([run.h[1:][..., seen], torch.ones(7, 3, 1, dtype=torch.float64)], -1).flatten(0, 1)
    left = (p.target - run.outputs).flatten(0, 1)
    expected = torch.linalg.solve(r.T @ r + 0.7 * torch.eye(5, dtype=torch.float64), r.T @ left)
    torch.testing.assert_close(-change[:, seen], expected[:4].T)
    assert not change[:, ~seen].any()


@pytest.mark.parametrize("rule", ["bptt", "three_factor"])
def test_stacked_seeds_are_the_seeds_alone(rule):
    p = areas(described={"a": {"size": 0.5, "input": True, "from": {"b": 0.8}},
                         "b": {"size": 0.5, "input": True, "readout": True, "from": {"a": 1.0}}})  # fmt: skip
    assert_seeds_stack(p, rule)


# What is drawn


def test_areas_are_blocks_with_densities_between_them():
    described = {
        "V1": {"size": 0.25, "input": True},
        "V2": {"size": 0.5, "from": {"V1": 0.3, "V2": 0.6}},
        "PFC": {"size": 0.25, "input": True, "readout": True, "from": {"V2": 0.1, "PFC": 0}},
    }
    net = network(400, described=described, seed=2)
    assert net.area_names == ("V1", "V2", "PFC")
    assert net.area.bincount().tolist() == [100, 200, 100]
    assert (net.area.diff() >= 0).all()
    blocks = [slice(0, 100), slice(100, 300), slice(300, 400)]
    expected = [[1, 0, 0], [0.3, 0.6, 0], [0, 0.1, 0]]
    off = ~torch.eye(400, dtype=torch.bool)
    for post, rows in zip(expected, blocks, strict=True):
        for d, columns in zip(post, blocks, strict=True):
            entries = net.rec_mask[rows, columns][off[rows, columns]]
            tolerance = 4 * math.sqrt(d * (1 - d) / entries.numel())
            assert entries.mean().item() == pytest.approx(d, abs=tolerance + 1e-12)
    assert net.in_mask[:, 0].tolist() == [1.0] * 100 + [0.0] * 200 + [1.0] * 100
    assert net.out_mask[0].tolist() == [0.0] * 300 + [1.0] * 100
    for name, mask in net.masks().items():
        W = getattr(net, name)
        assert not W[(mask == 0) & (off if name == "W_rec" else torch.ones_like(mask, dtype=torch.bool))].any()
    assert not torch.equal(network(400, described=described, seed=3).rec_mask, net.rec_mask)


def test_one_area_is_no_area():
    whole = {"all": {"size": 1.0, "input": True, "readout": True}}
    one, none = network(described=whole, density=0.6), network(described=None, density=0.6)
    assert set(one.masks()) == {"W_rec"}
    for (name, a), (_, b) in zip(one.named_parameters(), none.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(one.rec_mask, none.rec_mask)


def test_sizes_are_fractions_or_numbers_of_neurons():
    numbers = {"V1": {**STACK["V1"], "size": 30}, "PFC": {**STACK["PFC"], "size": 10}}
    assert network(described=numbers).area.bincount().tolist() == [30, 10]
    thirds = {**{n: {"size": 1 / 3, "input": True} for n in "ab"}, "c": {"size": 1 / 3, "input": True, "readout": True}}
    assert network(10, described=thirds).area.bincount().tolist() == [3, 4, 3]


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_initial_weights_keep_the_variance_of_inputs_and_outputs(density):
    """Of unit activities, as for a scheme without areas: 2 for W_rec and, of Glorot's W_out, 2 N/(N+O)."""
    described = {"a": {"size": 0.2, "input": True}, "b": {"size": 0.8, "readout": True, "from": {"a": 0.5}}}
    net = network(2000, described=described, density=density, autapses=True)
    received = (net.W_rec * net.rec_mask).square().sum(1)
    for area in (0, 1):
        assert received[net.area == area].mean().item() == pytest.approx(2, rel=0.05)
    plain = network(2000, described=None).W_out.square().sum(1)
    sparse = (net.W_out * net.out_mask).square().sum(1)
    torch.testing.assert_close(sparse, plain, rtol=0.1, atol=0)
    unscaled = 2 * (density * (0.2 * 0.5 + 0.8))  # control
    assert abs(unscaled - 2) > 0.15


def test_each_area_has_all_cell_types_and_obeys_dale():
    net = network(40, cell_types={"E": 0.8, "I": 0.2}, dale=True, density=0.7)
    assert net.cell_type.tolist() == ([0] * 16 + [1] * 4) * 2
    W = net.W_rec.detach() * net.rec_mask
    assert (W * net.signs >= 0).all()
    inputs = (W.clamp(min=0).sum(1), -W.clamp(max=0).sum(1))
    torch.testing.assert_close(*inputs)
    p = problem(Leaky(0.4, "tanh"), N=8, areas=STACK, cell_types={"E": 0.5, "I": 0.5}, dale=True)
    assert_equal(p.rule("bptt").grads, autograd(p), WEIGHTS)
    assert_differ(p.rule("mdgl").grads, p.rule("three_factor").grads, ["W_rec"])


def test_areas_compose_with_ring_autapses_and_several_currents():
    ring, free = network(ring=3, autapses=True), network(autapses=True)
    assert torch.equal(ring.rec_mask, free.rec_mask * network(described=None, ring=3, autapses=True).rec_mask)
    assert ring.rec_mask.diagonal().all()
    assert not network().rec_mask.diagonal().any()
    for neuron, present in ((GRU(), (0, 1, 3)), (LSTM(), (0, 1, 2, 3))):
        net = network(12, neuron, density=0.6)
        blocks = net.rec_mask.split(12)
        assert [k for k, block in enumerate(blocks) if block.any()] == list(present)
        assert all(torch.equal(blocks[k], blocks[0]) for k in present)
        assert not blocks[0][:6, 6:].any()
        inputs = net.in_mask.split(12)
        assert all(not block[6:].any() for block in inputs)
        assert sum(bool(block[:6].all()) for block in inputs) == (3 if isinstance(neuron, GRU) else 4)


def test_one_seed_is_one_network_in_every_dtype():
    single, double = (bpgen.Network(Leaky(), 4, 30, 3, dtype=t, areas=STACK) for t in (torch.float32, torch.float64))
    for name in ("W_rec", "W_in", "W_out", "rec_mask", "in_mask", "out_mask"):
        assert torch.equal(getattr(double, name).float(), getattr(single, name)), name
    assert set(single.state_dict()) == {"W_rec", "W_in", "W_out", "b_out"}


def test_a_penalty_of_the_weights_does_not_wake_what_does_not_exist():
    p = areas()
    with torch.no_grad():
        for name, mask in p.network.masks().items():
            getattr(p.network, name).mul_(mask)
    got = bpgen.gradients("bptt", p.network, p.x, p.target, "mse", "all", regulariser=0.3, initial_state=p.s_0).grads
    for name, mask in p.network.masks().items():
        assert not got[name][mask == 0].any()
    operator = HessianProducts(asked(p, Loss("mse", "all", None, L2.of(0.3))), "W_out")
    v = randn(0, operator.size)
    assert distance(operator(v) - HessianProducts(asked(p), "W_out")(v), 0.3 * v) < 1e-12


# From the command line


def test_a_run_from_the_command_line_and_from_its_config(tmp_path):
    small = "--sharpness.samples 16 --alignment.samples 16 --gap.train_samples 32 --gap.test_samples 32 --wandb off"
    run = "--network.n_rec 20 --trainer.max_steps 8 --optimizer.lr 0.3 --threads 1"
    described = "{V1: {size: 0.5, input: true}, PFC: {size: 0.5, readout: true, from: {V1: 0.4}}}"
    argv = ["fit", *small.split(), *run.split(), "--network.areas", described, "--rule", "rflo"]
    assert main([*argv, "--out", str(tmp_path / "first")]) == 0
    (folder,) = (tmp_path / "first").iterdir()
    net, start = bpgen.load_run(folder).network, bpgen.load_run(folder, step=0).network
    assert net.area_names == ("V1", "PFC")
    assert 0.2 < net.rec_mask[10:, :10].mean() < 0.6
    assert distance(net.W_rec, start.W_rec) > 1e-3
    for name, mask in net.masks().items():
        off = ~torch.eye(20, dtype=torch.bool) if name == "W_rec" else torch.ones_like(mask, dtype=torch.bool)
        assert not getattr(net, name)[(mask == 0) & off].any(), name
    assert (
        main(["fit", "--config", str(folder / "config.yaml"), "--rule", "bptt", "--out", str(tmp_path / "second")]) == 0
    )
    (again,) = (tmp_path / "second").iterdir()
    same = bpgen.load_run(again, step=0).network
    assert torch.equal(same.rec_mask, net.rec_mask)
    assert torch.equal(same.W_out, start.W_out)


def described(**changed):
    return {name: {**area, **changed.get(name, {})} for name, area in STACK.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"described": described(PFC={"size": 0.6})},
            "sizes of network.areas must be fractions that add up to 1.* 1.1",
        ),
        ({"described": described(PFC={"size": 30})}, "add up to n_rec=40"),
        ({"described": described(PFC={"size": -0.5})}, "areas.PFC.size must be a fraction or a number of neurons"),
        ({"described": {"V1": {"input": True, "readout": True}}}, "areas.V1.size must be"),
        ({"described": described(PFC={"size": "half"})}, "areas.PFC.size must be .*'half'"),
        ({"described": described(PFC={"from": {"V2": 0.1}})}, r"unknown area in network.areas.PFC.from 'V2'.*V1"),
        ({"described": described(PFC={"from": {"V1": 1.2}})}, r"PFC.from.V1 must be a density in \[0, 1\], got 1.2"),
        ({"described": described(PFC={"from": ["V1"]})}, "PFC.from must map areas to densities"),
        ({"described": described(V1={"inputs": True})}, "unknown key in network.areas.V1 'inputs'.*'input'"),
        ({"described": described(V1={"input": "yes"})}, "V1.input must be true or false, got 'yes'"),
        ({"described": described(V1={"input": False})}, "no area of network.areas sees the input"),
        ({"described": described(PFC={"readout": False})}, "no area of network.areas feeds the readout"),
        ({"described": described(PFC={"from": {}})}, "leads no input to the readout"),
        ({"described": described(PFC={"from": {"V1": 0}})}, "leads no input to the readout"),
        ({"described": {}}, "areas must map names to descriptions"),
        ({"described": ["V1"]}, "areas must map names to descriptions, e.g. {V1"),
        (
            {"described": described(V1={"size": 0.99}, PFC={"size": 0.01})},
            r"leaves an area without a neuron: of n_rec=40",
        ),
        ({"cell_types": {"E": 0.99, "I": 0.01}}, "with 20 neurons in area V1 the types get"),
    ],
)
def test_bad_options_name_what_was_expected(options, message):
    with pytest.raises(BpgenError, match=message):
        network(**options)
