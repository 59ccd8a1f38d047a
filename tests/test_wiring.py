"""Cell types, synapses that do not exist, and Dale's law: what is drawn, and that training keeps it."""

from __future__ import annotations

import math
import signal

import lightning.pytorch as pl
import pytest
import torch

import bpgen
from bpgen.cli import main
from bpgen.curvature.block import FreeEntries
from bpgen.errors import BpgenError
from bpgen.losses import L2, Loss
from bpgen.neurons import GRU, LIF, LSTM, Leaky
from bpgen.run.record import Interrupt
from bpgen.tasks import Split
from bpgen.training.loaders import SeededLoader
from bpgen.training.module import RuleTraining
from bpgen.training.options import Optimizer
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
)

EI = {"E": 0.8, "I": 0.2}
DALE = {"cell_types": EI, "dale": True}
WIRINGS = {
    "dale": DALE,
    "sparse": {"density": 0.5},
    "ring": {"ring": 2},
    "sparse dale": {"density": 0.6, **DALE},
}
every_wiring = pytest.mark.parametrize("name", WIRINGS)


def network(n_rec=50, neuron=None, **options):
    return bpgen.Network(neuron or Leaky(0.5), 4, n_rec, 3, dtype=torch.float64, **options)


def obeys_dale(net, W):
    """Neuron by neuron, without the network's own signs."""
    for j, kind in enumerate(net.cell_type.tolist()):
        excites = net.cell_type_names[kind].startswith("E")
        column = W[:, j]
        if bool((column < 0).any() if excites else (column > 0).any()):
            return False
    return True


# What is drawn


def test_types_are_contiguous_blocks():
    net = network(10, cell_types={"E": 0.7, "I_pv": 0.2, "I_sst": 0.1})
    assert net.cell_type.tolist() == [0] * 7 + [1] * 2 + [2]
    assert net.cell_type.dtype == torch.int64
    assert net.cell_type_names == ("E", "I_pv", "I_sst")
    plain = network(10)
    assert (plain.cell_type.tolist(), plain.cell_type_names, plain.signs) == ([0] * 10, ("all",), None)
    torch.testing.assert_close(net.W_rec, plain.W_rec, rtol=0, atol=0)  # types alone change nothing
    thirds = network(10, cell_types={"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert thirds.cell_type.bincount().tolist() == [3, 4, 3]


def test_density_is_the_fraction_of_synapses_and_keeps_the_input_variance():
    sparse, dense = network(400, density=0.1, seed=3), network(400, seed=3)
    off = ~torch.eye(400, dtype=torch.bool)
    exists = sparse.rec_mask.bool()
    assert not exists[~off].any()
    assert exists[off].double().mean().item() == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 400 / 399))
    assert not sparse.W_rec[~exists & off].any()
    torch.testing.assert_close(sparse.W_rec[exists], dense.W_rec[exists] / math.sqrt(0.1))
    assert float(sparse.W_rec.detach()[off].var()) == pytest.approx(2 / 400, rel=0.03)
    assert not torch.equal(network(400, density=0.1, seed=4).rec_mask, sparse.rec_mask)
    torch.testing.assert_close(network(400, density=0.1, seed=3).rec_mask, sparse.rec_mask, rtol=0, atol=0)


@pytest.mark.parametrize("autapses", [False, True])
def test_ring(autapses):
    N = 9
    mask = network(N, ring=2, autapses=autapses).rec_mask
    for i in range(N):
        heard = {(i + k) % N for k in (-2, -1, 0, 1, 2) if autapses or k}
        assert set(mask[i].nonzero().squeeze(1).tolist()) == heard
    both = network(60, ring=10, density=0.5, autapses=autapses).rec_mask
    assert not (both.bool() & ~network(60, ring=10, autapses=autapses).rec_mask.bool()).any()
    assert 0.4 < both.sum() / network(60, ring=10, autapses=autapses).rec_mask.sum() < 0.6


@pytest.mark.parametrize("neuron", [GRU, LSTM])
def test_a_synapse_carries_all_currents_or_none(neuron):
    net = network(12, neuron(), density=0.4)
    blocks = [b.bool() for b in net.rec_mask.split(12)]
    present = [b for b in blocks if b.any()]
    assert len(present) == (3 if neuron is GRU else 4)  # the block a GRU does not have stays masked
    assert all(torch.equal(b, present[0]) for b in present)
    assert 0.2 < present[0].double().mean() < 0.6


@pytest.mark.parametrize("init", ["liu2022", "glorot2010", "saxe2014", "sompolinsky1988"])
@pytest.mark.parametrize("density", [1.0, 0.5])
def test_dale_start_is_signed_balanced_and_keeps_the_schemes_radius(init, density):
    net, free = (network(100, init=init, density=density, seed=1, **options) for options in (DALE, {}))
    W, mask = net.W_rec.detach(), net.rec_mask.double()
    assert obeys_dale(net, W)
    assert not obeys_dale(net, free.W_rec)
    acting = W * mask
    inputs = acting[:, :80].sum(1), -acting[:, 80:].sum(1)
    torch.testing.assert_close(*inputs)  # excitation cancels inhibition in every neuron
    assert inputs[0].min() > 0
    radius = [float(torch.linalg.eigvals(m * mask).abs().max()) for m in (W, free.W_rec.detach())]
    assert radius[0] == pytest.approx(radius[1], rel=1e-9)
    assert float(torch.linalg.eigvals(free.W_rec.detach().abs() * mask).abs().max()) > 2 * radius[1]  # control
    ratio = acting[mask.bool()].abs() / (free.W_rec.detach() * mask)[mask.bool()].abs()
    assert float(ratio.min()) > 0  # magnitudes come from the scheme, row by row and sign by sign
    excitatory = (acting.abs() / (free.W_rec.detach() * mask).abs())[:, :80]
    assert excitatory[mask[:, :80].bool()].std() < 1e-10


def test_one_seed_is_one_network_in_every_dtype():
    options = {"density": 0.5, **DALE}
    single, double = (bpgen.Network(Leaky(), 4, 30, 3, dtype=t, **options) for t in (torch.float32, torch.float64))
    assert torch.equal(double.W_rec.float(), single.W_rec)
    assert torch.equal(double.rec_mask.float(), single.rec_mask)
    assert set(single.state_dict()) == {"W_rec", "W_in", "W_out", "b_out"}


def test_a_small_network_without_inhibition_onto_some_neuron_still_starts():
    net = network(5, density=0.3, seed=2, **DALE)
    assert obeys_dale(net, net.W_rec.detach())
    assert net.W_rec.isfinite().all()


# Gradients and curvature


@every_wiring
@pytest.mark.parametrize("neuron", [lambda: Leaky(0.4, "tanh", "rate"), lambda: LIF(0.4, threshold=0.3)])
def test_rules_equal_autograd(name, neuron):
    p = problem(neuron(), N=8, kappa=0.3, **WIRINGS[name])
    bptt, three_factor = p.rule("bptt").grads, p.rule("three_factor").grads
    assert_equal(bptt, autograd(p), WEIGHTS)
    assert_equal(three_factor, autograd(p, **no_hop()), WEIGHTS)
    assert_equal(p.rule("tbptt", window=3).grads, autograd(p, **in_blocks(3)), WEIGHTS)
    assert_differ(three_factor, bptt, RECURRENT)
    for grads in (bptt, three_factor):
        assert not grads["W_rec"][p.network.rec_mask == 0].any()


@pytest.mark.parametrize("rule", sorted(bpgen.list_rules()))
def test_no_rule_gives_a_missing_synapse_a_gradient(rule):
    p = problem(Leaky(0.4, "tanh"), N=8, density=0.5)
    missing = p.network.rec_mask == 0
    grad = p.rule(rule).grads["W_rec"]
    assert not grad[missing].any()
    assert 8 < missing.sum() < 64
    assert rule in ("readout_only", "force") or grad.norm() > 1e-9


@pytest.mark.parametrize("neuron", [GRU, LSTM])
def test_gated_networks_can_be_sparse(neuron):
    p = problem(neuron(), N=8, density=0.5)
    assert_equal(p.rule("bptt").grads, autograd(p), WEIGHTS)
    assert distance(problem(neuron(), N=8).rule("bptt").outputs, p.rule("bptt").outputs) > 0.01


def test_curvature_is_over_existing_synapses():
    net = network(20, density=0.3)
    entries = FreeEntries(net, net.params(), "W_rec")
    assert entries.size == int(net.rec_mask.sum()) < 20 * 19
    assert entries.gather(net.params()).all()


# Training


def data(n=48, T=6):
    random = torch.Generator().manual_seed(1)
    return Split(
        torch.randn(T, n, 4, generator=random, dtype=torch.float64), torch.randint(0, 3, (n,), generator=random)
    )


OPTIMIZERS = {
    "sgd": Optimizer(lr=0.5),
    "momentum": Optimizer(lr=0.2, momentum=0.9),
    "adam": Optimizer("adam", lr=0.05),
}


def train(net, rule="bptt", optimizer="sgd", project=True, **options):
    """A few epochs; yields the module, and whether Dale's law held after every step."""
    training = RuleTraining(net, bpgen.load_rule(rule), Loss("cross_entropy", "last", None, L2.of(0.01)))
    training.optimizer = OPTIMIZERS[optimizer]
    if not project:
        net.project_ = lambda: None
    kept = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            kept.append(obeys_dale(net, net.W_rec.detach()))

    trainer = pl.Trainer(
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        callbacks=[Watch()],
        **options,
    )
    trainer.fit(training, SeededLoader(data(), 8, seed=0))
    return kept


@pytest.mark.parametrize("rule", ["bptt", "three_factor", "rflo", "tbptt"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_keeps_signs_and_missing_synapses(rule, optimizer):
    net, free = (network(20, density=0.6, seed=1, **DALE) for _ in range(2))
    before, missing = net.W_rec.detach().clone(), net.rec_mask == 0
    missing &= ~torch.eye(20, dtype=torch.bool)
    assert all(train(net, rule, optimizer))
    assert not all(train(free, rule, optimizer, project=False))  # control: without the projection signs do flip
    W = net.W_rec.detach()
    assert (before != W)[net.rec_mask.bool()].any()
    assert ((W == 0) & (before != 0)).any()  # some were stopped at zero
    assert not W[missing].any()
    assert missing.any()


def test_signs_are_kept_under_accumulation_and_clipping():
    net = network(20, **DALE)
    assert all(train(net, optimizer="momentum", accumulate_grad_batches=2, gradient_clip_val=0.5))


def test_projection_is_the_nearest_allowed_point_and_nothing_without_dale():
    net, free = network(10, **DALE), network(10)
    with torch.no_grad():
        for n in (net, free):
            n.W_rec.normal_(generator=torch.Generator().manual_seed(0))
    wanted, kept = net.W_rec.detach().clone(), free.W_rec.detach().clone()
    for j in range(10):
        wanted[:, j] = wanted[:, j].clamp(min=0) if j < 8 else wanted[:, j].clamp(max=0)
    net.project_()
    free.project_()
    assert torch.equal(net.W_rec, wanted)
    assert torch.equal(free.W_rec, kept)
    assert net.W_rec.grad_fn is None


def test_a_run_from_the_command_line_is_kept_and_restored(tmp_path):
    small = "--sharpness.samples 16 --alignment.samples 16 --gap.train_samples 32 --gap.test_samples 32 --wandb off"
    run = "--rule eprop --network.n_rec 20 --trainer.max_steps 20 --optimizer.lr 0.3 --threads 1"
    wiring = ["--network.dale", "true", "--network.cell_types", "{E: 0.8, I: 0.2}", "--network.density", "0.6"]
    assert main(["fit", *small.split(), *run.split(), *wiring, "--out", str(tmp_path)]) == 0
    (folder,) = tmp_path.iterdir()
    loaded = bpgen.load_run(folder)
    net, start = loaded.network, bpgen.load_run(folder, step=0).network
    assert net.cell_type_names == ("E", "I")
    assert net.cell_type.bincount().tolist() == [16, 4]
    assert obeys_dale(net, net.W_rec.detach())
    assert distance(net.W_rec, start.W_rec) > 1e-3
    assert torch.equal(net.rec_mask, start.rec_mask)


def test_a_stopped_run_with_every_option_continues_bit_for_bit(tmp_path, monkeypatch):
    small = "--sharpness.samples 16 --alignment.samples 16 --gap.train_samples 32 --gap.test_samples 32 --wandb off"
    run = (
        "--rule bptt --network.n_rec 16 --trainer.max_steps 12 --evaluation.every 4 --trainer.accumulate 2 --threads 1"
    )
    wiring = "--network.dale true --network.density 0.7 --network.output_feedback 0.5 --network.sigma_rec 0.05"
    lists = ["--network.cell_types", "{E: 0.75, I: 0.25}", "--neuron.alpha", "[0.2, 0.9]"]
    adam = "--optimizer.name adam --optimizer.lr 0.05"
    argv = ["fit", *small.split(), *run.split(), *wiring.split(), *lists, *adam.split(), "--out"]
    assert main([*argv, str(tmp_path / "whole")]) == 0
    passed_on = Interrupt.on_train_batch_end

    def stop(self, trainer, module, *args):
        if trainer.global_step == 6:
            self.received = signal.SIGINT
        passed_on(self, trainer, module)

    monkeypatch.setattr(Interrupt, "on_train_batch_end", stop)
    assert main([*argv, str(tmp_path / "stopped")]) == 130
    monkeypatch.undo()
    (whole,), (stopped,) = ((tmp_path / name).iterdir() for name in ("whole", "stopped"))
    assert (stopped / "metrics.csv").read_bytes() != (whole / "metrics.csv").read_bytes()
    assert main(["fit", "--resume", str(stopped)]) == 0
    assert (stopped / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    net = bpgen.load_run(stopped).network
    assert obeys_dale(net, net.W_rec.detach())
    assert (net.W_rec == 0).sum() > (
        net.rec_mask == 0
    ).sum() - 16  # some weights stand at zero, where they were stopped
    assert torch.equal(net.W_fb, bpgen.load_run(whole).network.W_fb)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell_types": {"E": 0.8, "I": 0.3}}, "cell_types must map names to positive fractions"),
        ({"cell_types": {}}, "cell_types must map"),
        ({"cell_types": {"E": 1.2, "I": -0.2}}, "cell_types must map"),
        ({"cell_types": {"E": 0.99, "I": 0.01}}, r"leaves a type without a neuron: with n_rec=10 .*\[10, 0\]"),
        ({"dale": True}, "dale needs network.cell_types, e.g. {E: 0.8, I: 0.2}"),
        ({"dale": True, "cell_types": {"E": 0.8, "PV": 0.2}}, "'PV' begins with neither"),
        ({"dale": True, "cell_types": EI, "neuron": GRU()}, "dale is defined for neurons with one input current; GRU"),
        ({"density": 0.0}, r"density must be in \(0, 1\]"),
        ({"density": 1.5}, r"density must be in \(0, 1\]"),
        ({"ring": 0}, "ring must be at least 1"),
    ],
)
def test_bad_options_name_what_was_expected(options, message):
    with pytest.raises(BpgenError, match=message):
        network(10, **options)
