"""GRU and LSTM: torch's own cells with the same weights, autograd, and the weight blocks that do not exist."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.func import vmap

import bpgen
from bpgen.cli import main
from bpgen.curvature.block import FreeEntries
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import GRU, LSTM, Neuron
from bpgen.registry import find
from bpgen.rules import propagate
from tests.neurons.strangers import Adaptive
from tests.oracles import (
    RECURRENT,
    WEIGHTS,
    acting,
    asked,
    assert_differ,
    assert_equal,
    autograd,
    distance,
    leaves,
    no_hop,
    problem,
    randn,
    run_slow,
    true_loss,
)

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

N, I, B, T = 5, 4, 3, 7
every_gated = pytest.mark.parametrize("cell", [GRU, LSTM])
every_start = pytest.mark.parametrize("learned", [False, True])
every_autapse = pytest.mark.parametrize("autapses", [False, True])


def split_bias(b, seed):
    """Two biases that add up to b, as torch has them."""
    part = randn(seed, *b.shape)
    return part, b - part


def torch_run(p, order=None):
    """The problem by torch.nn.GRU or LSTM: outputs, loss and gradients, laid out as bpgen's.

    `order` permutes torch's gates before they are copied, for negative controls.
    """
    is_gru = isinstance(p.network.neuron, GRU)
    w = p.network.params()
    b = w["b_rec"]
    if is_gru:  # torch: r, z, n; bpgen: r, z, n_input, n_hidden
        W_hh = torch.cat([w["W_rec"][: 2 * N], w["W_rec"][3 * N :]])
        W_ih = w["W_in"][: 3 * N]
        first, second = split_bias(b[: 2 * N], 70)
        b_ih, b_hh = torch.cat([first, b[2 * N : 3 * N]]), torch.cat([second, b[3 * N :]])
    else:
        W_hh, W_ih, (b_ih, b_hh) = w["W_rec"], w["W_in"], split_bias(b, 70)
    values = {"weight_hh_l0": W_hh, "weight_ih_l0": W_ih, "bias_hh_l0": b_hh, "bias_ih_l0": b_ih}
    if order is not None:
        values = {n: torch.cat([v.split(N)[k] for k in order]) for n, v in values.items()}
    cell = (torch.nn.GRU if is_gru else torch.nn.LSTM)(I, N, dtype=torch.float64)
    cell.load_state_dict(values)
    params = leaves(p)
    s_0 = p.start(params)  # [B,d,N]; the LSTM's states are h, c
    start = s_0[None, :, 0].contiguous()
    if not is_gru:
        start = (start, s_0[None, :, 1].contiguous())
    h, _ = cell(p.x, start)
    outputs = h @ params["W_out"].T + params["b_out"]
    outputs = outputs if p.when == "all" else outputs[-1]
    loss = true_loss(outputs, p.target, p.loss, p.when, p.mask)
    loss.backward()
    g = {n: v.grad for n, v in cell.named_parameters()}
    none_in, none_rec = torch.zeros(N, I, dtype=torch.float64), torch.zeros(N, N, dtype=torch.float64)
    grads = {n: params[n].grad for n in params if n not in RECURRENT}
    rec, inputs, b_hh, b_ih = (g[n] for n in ("weight_hh_l0", "weight_ih_l0", "bias_hh_l0", "bias_ih_l0"))
    if is_gru:
        rec = torch.cat([rec[: 2 * N], none_rec, rec[2 * N :]])
        inputs = torch.cat([inputs, none_in])
        b_hh = torch.cat([b_ih, b_hh[2 * N :]])
    return outputs.detach(), loss.detach(), {**grads, "W_rec": rec, "W_in": inputs, "b_rec": b_hh}


@pytest.mark.parametrize(
    "options", [{"loss": "mse"}, {"loss": "cross_entropy", "when": "last"}, {"loss": "cross_entropy", "masked": True}]
)
@every_start
@every_gated
def test_outputs_and_gradients_are_those_of_torch(cell, learned, options):
    p = problem(cell(), T=T, autapses=True, learned=learned, **options)
    outputs, loss, expected = torch_run(p)
    got = p.rule("bptt")
    torch.testing.assert_close(got.outputs, outputs, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(got.loss, loss, rtol=1e-12, atol=1e-13)
    assert set(got.grads) == set(expected) == {*WEIGHTS, *(["initial_state"] if learned else [])}
    assert_equal(got.grads, expected)
    order = (1, 0, 2) if cell is GRU else (0, 1, 3, 2)
    wrong_outputs, _, wrong = torch_run(p, order)  # two gates swapped
    assert distance(wrong_outputs, outputs) > 0.01
    assert_differ(wrong, expected, RECURRENT)


@pytest.mark.parametrize("paths", [{"hops": 0}, {}, {"blocks": 4}, {"blocks": T}, {"hops": 2}, {"reach": 3}], ids=str)
@pytest.mark.parametrize("when", ["last", "all"])
@every_start
@every_gated
def test_the_way_back_in_place_equals_the_general_one(cell, learned, when, paths):
    p = problem(cell(), T=T, learned=learned, when=when)
    params = p.network.params()
    runs = [p.network.run(params, p.x, when=when, initial_state=p.s_0, in_place=i) for i in (True, False)]
    assert runs[0].left is not None
    signal = randn(3, T if when == "all" else 1, *runs[0].h.shape[1:])
    carrier = runs[0].params["W_rec"]
    fast, general, control = (
        propagate(run, signal, carrier=W, **paths)
        for run, W in zip([*runs, runs[0]], [carrier, carrier, 2 * carrier], strict=True)
    )
    torch.testing.assert_close(fast.currents, general.currents, rtol=1e-12, atol=1e-14)
    assert (fast.initial is None) == (general.initial is None)
    if general.initial is not None:
        torch.testing.assert_close(fast.initial, general.initial, rtol=1e-12, atol=1e-14)
        assert general.initial.norm() > 1e-4
    assert (distance(control.currents, fast.currents) < 1e-14) == (paths == {"hops": 0})
    again = propagate(runs[0], signal, carrier=carrier, **paths)  # the run is left as it was
    assert torch.equal(again.currents, fast.currents)


@every_gated
def test_control_the_given_state_reaches_torch_and_bpgen(cell):
    p = problem(cell(), T=T, autapses=True)
    for k in range(p.s_0.shape[1]):
        moved = replace(p, s_0=p.s_0 + torch.eye(p.s_0.shape[1], dtype=torch.float64)[k][:, None])
        assert distance(moved.rule("bptt").outputs, p.rule("bptt").outputs) > 0.01
        torch.testing.assert_close(moved.rule("bptt").outputs, torch_run(moved)[0])


def test_control_the_reset_gate_before_the_product_is_another_model():
    p = problem(GRU(), T=1, autapses=True)
    w, h = p.network.params(), p.s_0.squeeze(1)
    from_h, from_x, b = (w["W_rec"].split(N), w["W_in"].split(N), w["b_rec"].split(N))
    r, z = (torch.sigmoid(h @ from_h[k].T + p.x[0] @ from_x[k].T + b[k]) for k in (0, 1))
    a, u = p.x[0] @ from_x[2].T + b[2], h @ from_h[3].T + b[3]
    cudnn, cho = torch.tanh(a + r * u), torch.tanh(a + (r * h) @ from_h[3].T + b[3])
    got = p.network.run(w, p.x, initial_state=p.s_0).h[-1]
    torch.testing.assert_close(got, (1 - z) * cudnn + z * h)
    assert distance(got, (1 - z) * cho + z * h) > 0.01


@every_gated
def test_closed_forms_equal_forward_mode(cell):
    p = problem(cell(), T=T, N=40)
    neuron, path = p.network.neuron, p.network.run(p.network.params(), p.x, initial_state=p.s_0)
    closed, default = neuron.local(path), Neuron.local(neuron, path)
    for name, first, rows in (("A", 1, neuron.n_states), ("C", 1, neuron.n_states), ("D", 0, 1)):
        gain, expected, times = getattr(closed, name), getattr(default, name), slice(first, T + 1)
        u = randn(7, T + 1, B, rows, 40)
        pulled = expected.pull(u[times], times)
        torch.testing.assert_close(gain.pull(u[times], times), pulled)
        torch.testing.assert_close(gain.pull(u[3], 3), expected.pull(u[3], 3))
        assert pulled.norm() > 0
        for k in range(rows):  # and no state's part is empty by accident, but the LSTM's h that only currents see
            assert (expected.jacobian[times][..., k, :, :].norm() > 0.1) or (cell, name) == (LSTM, "D")
        if name != "D":
            assert distance(gain.pull(u[2], 3), expected.pull(u[3], 3)) > 0.1


@every_autapse
@pytest.mark.parametrize("options", [{"kappa": 0.6}, {"loss": "cross_entropy", "when": "last"}])
@every_start
@every_gated
def test_rules_equal_autograd_with_their_paths_cut(cell, learned, options, autapses):
    p = problem(cell(), T=T, learned=learned, autapses=autapses, **options)
    names = (*WEIGHTS, *(["initial_state"] if learned else []))
    bptt, three_factor = p.rule("bptt"), p.rule("three_factor")
    torch.testing.assert_close(bptt.outputs, run_slow(p, p.network.params()).outputs)
    assert_equal(bptt.grads, autograd(p), names)
    assert_equal(three_factor.grads, autograd(p, **no_hop()), names)
    assert_differ(three_factor.grads, bptt.grads, RECURRENT)


@every_gated
def test_from_rest_equals_the_given_zero_state(cell):
    p = problem(cell(), T=T)
    rest, zero = replace(p, s_0=None), replace(p, s_0=torch.zeros_like(p.s_0))
    assert_equal(rest.rule("bptt").grads, autograd(zero), WEIGHTS)
    assert_differ(rest.rule("bptt").grads, p.rule("bptt").grads, WEIGHTS)


@every_gated
def test_noise_reaches_every_current(cell):
    p, noise = problem(cell(), T=T, sigma_rec=0.5), randn(9, T, B, 4 * N)
    params, loss, rule = leaves(p), Loss("mse", "all"), bpgen.load_rule("bptt")
    value = true_loss(run_slow(p, params, noise=noise).outputs, p.target, "mse", "all", None)
    expected = dict(zip(params, torch.autograd.grad(value, list(params.values())), strict=True))

    def noisy(noise):
        draws = {"initial_state": p.s_0, "current_noise": noise}
        return rule.gradients(*asked(p.network, p.network.params(), p.x, p.target, loss, draws))

    assert_equal(noisy(noise).grads, expected, WEIGHTS)
    assert_differ(autograd(p), expected, RECURRENT)
    for k in range(4):
        alone = noise.unflatten(-1, (4, N)) * torch.eye(4, dtype=torch.float64)[k][:, None]
        assert distance(noisy(alone.flatten(-2)).outputs, p.rule("bptt").outputs) > 1e-3
    drawn = p.network.draw_noise(500, 20, torch.Generator().manual_seed(0))
    assert drawn.shape == (500, 20, 4 * N)
    assert float(drawn.std()) == pytest.approx(0.5, rel=0.01)


@every_gated
def test_two_stacked_seeds_are_two_alone(cell):
    problems = [problem(cell(), T=T, learned=True, seed=s) for s in (0, 1)]
    network, loss, start = problems[0].network, Loss("mse", "all"), [p.network.params() for p in problems]
    stacked = {n: torch.stack([w[n] for w in start]) for n in start[0]}
    x, target = (torch.stack([getattr(p, n) for p in problems]) for n in ("x", "target"))
    for name in ("bptt", "three_factor"):
        rule = bpgen.load_rule(name)
        grads = vmap(lambda w, x, y, rule=rule: rule.gradients(*asked(network, w, x, y, loss, {})).grads)(
            stacked, x, target
        )
        for s, p in enumerate(problems):
            assert_equal({n: g[s] for n, g in grads.items()}, p.rule(name).grads)
        assert distance(grads["W_rec"][0], grads["W_rec"][1]) > 0.1


# ---- blocks that do not exist


def missing(network):
    """W_rec's block of the candidate's input current, W_in's block of its recurrent current."""
    return {"W_rec": slice(2 * N, 3 * N), "W_in": slice(3 * N, 4 * N)}


@every_autapse
def test_stored_values_of_missing_blocks_are_ignored_and_have_no_gradient(autapses):
    p, other, control = (problem(GRU(), T=T, autapses=autapses) for _ in range(3))
    with torch.no_grad():
        for name, rows in missing(p.network).items():
            other.network.get_parameter(name)[rows] = 7.0
            control.network.get_parameter(name)[:N] += 0.5  # a block that exists
    for rule in ("bptt", "three_factor"):
        a, b, c = (q.rule(rule) for q in (p, other, control))
        assert torch.equal(a.outputs, b.outputs)
        for name in a.grads:
            assert torch.equal(a.grads[name], b.grads[name]), name
        assert distance(c.outputs, a.outputs) > 0.01
        for name, free in acting(p.network).items():
            assert torch.equal(a.grads[name] != 0, free), name
    assert torch.equal(p.network(p.x), other.network(p.x))
    assert set(p.network.masks()) == {"W_rec", "W_in"}
    for name, mask in p.network.masks().items():
        assert torch.equal(mask.bool(), acting(p.network)[name])


@every_autapse
@pytest.mark.parametrize("init", ["liu2022", "glorot2010", "saxe2014", "sompolinsky1988"])
@every_gated
def test_default_network(cell, init, autapses):
    network = bpgen.Network(cell(), I, N, 2, init=init, autapses=autapses, bias="both")
    assert (network.W_rec.shape, network.W_in.shape, network.b_rec.shape) == ((4 * N, N), (4 * N, I), (4 * N,))
    y = network(randn(0, T, B, I).float())
    assert y.shape == (B, 2)
    assert y.isfinite().all()
    for name, rows in missing(network).items():
        assert network.get_parameter(name)[rows].any() == (cell is LSTM)  # starts at zero, so that L2 counts nothing
        assert (network.get_parameter(name)[:N] != 0).all()
    if cell is LSTM:
        assert set(network.masks()) == (set() if autapses else {"W_rec"})
    assert not set(network.state_dict()) & {"rec_mask", "in_mask"}
    assert all(m.dtype == torch.float64 for m in network.double().masks().values())


@every_autapse
def test_sharpness_counts_existing_entries_alone(autapses):
    p, filled = (problem(GRU(), T=T, autapses=autapses) for _ in range(2))
    per_block = N * N if autapses else N * (N - 1)
    entries = FreeEntries(p.network, p.network.params(), "W_rec")
    assert entries.size == 3 * per_block
    others = 3 * N * I + 4 * N + 3 * N + 3  # W_in, b_rec, W_out, b_out
    assert FreeEntries(p.network, p.network.params(), "all").size == 3 * per_block + others
    lstm = problem(LSTM(), autapses=autapses).network
    assert FreeEntries(lstm, lstm.params(), "W_rec").size == 4 * per_block  # the control
    with torch.no_grad():
        for name, rows in missing(p.network).items():
            filled.network.get_parameter(name)[rows] = 7.0
    for block in ("W_rec", "all"):
        one, two = (
            bpgen.sharpness(q.network, q.x, q.target, q.loss, q.when, initial_state=q.s_0, block=block)
            for q in (p, filled)
        )
        torch.testing.assert_close(one.eigenvalues, two.eigenvalues)
        assert one.eigenvalues.item() > 0.01
        assert one.vectors.shape == (1, FreeEntries(p.network, p.network.params(), block).size)


def test_a_stranger_declares_which_currents_see_what():
    class Split(Adaptive):
        recurrent_currents = (0,)
        input_currents = (1,)

    p = problem(Split(), T=T)
    with torch.no_grad():
        p.network.W_rec[N:], p.network.W_in[:N] = 0, 0
    both = replace(p, network=problem(Adaptive(), T=T).network)
    with torch.no_grad():
        for name, w in p.network.named_parameters():
            both.network.get_parameter(name).copy_(w)
    expected, got = autograd(both), p.rule("bptt").grads
    assert expected["W_rec"][N:].any()
    expected["W_rec"][N:], expected["W_in"][:N] = 0, 0
    assert_equal(got, expected)


@pytest.mark.parametrize(("name", "value"), [("recurrent_currents", (0, 2)), ("input_currents", (-1,))])
def test_a_current_that_is_not_there_is_refused(name, value):
    wrong = type("Wrong", (Adaptive,), {name: value})
    with pytest.raises(BpgenError, match=f"Wrong.{name}.*0 to 1"):
        bpgen.Network(wrong(), I, N)


# ---- training


def test_registered_for_the_command_line():
    assert [find("neuron", name).load() for name in ("gru", "lstm")] == [GRU, LSTM]


@pytest.mark.parametrize(("name", "rule"), [("gru", "bptt"), ("lstm", "three_factor")])
def test_fit_on_digits(name, rule, tmp_path):
    samples = ["--sharpness.samples", "32", "--alignment.samples", "32", "--gap.train_samples", "256"]
    options = ["--network.n_rec", "16", "--trainer.max_epochs", "2", "--wandb", "off", "--threads", "1"]
    argv = ["fit", "--neuron", name, "--rule", rule, *samples, *options, "--out", str(tmp_path)]
    assert main([*argv, "--optimizer.lr", "0.1"]) == 0
    (run,) = tmp_path.iterdir()
    table = pd.read_csv(run / "metrics.csv")
    assert table["step"].tolist() == [0, 75, 150]
    assert table["train/loss"].iloc[-1] < table["train/loss"].iloc[0] - 0.1
    assert table["train/accuracy"].iloc[-1] > 0.2
    assert table["sharpness/lambda_max"].notna().all()
    W_rec = bpgen.load_run(run).network.W_rec
    assert bool(W_rec[32:48].any()) == (name == "lstm")  # the GRU's missing block, untouched by 150 steps
    assert isinstance(bpgen.load_run(run).network.neuron, find("neuron", name).load())
