"""Online training: chunks, what is carried between them, and a stream that nothing can look ahead in."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
import torch
from torch.func import jacrev

from bpgen import Network, load_rule
from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.losses import L2, Loss
from bpgen.neurons import GRU, Leaky
from bpgen.rules import Rule, gradients_of_chunk
from bpgen.run.record import Interrupt
from bpgen.tasks import Split, Task
from bpgen.tasks.delayed_recall import DelayedRecall
from bpgen.tasks.digits import Digits
from bpgen.training.data import TaskData
from bpgen.training.loaders import Chunk, ChunkLoader, SeededLoader, StreamLoader
from bpgen.training.module import RuleTraining
from bpgen.training.options import Optimizer
from tests.oracles import asked, assert_equal, distance
from tests.training.test_module import data, fit

LR, T = 0.3, 7
LAST = Loss("cross_entropy", "last", None, L2.of(0.02))
ALL = replace(LAST, when="all")


def module(rule, loss=LAST, neuron=None, kappa=0.0, **options):
    network = Network(neuron or Leaky(0.5, "tanh"), 3, 6, 4, seed=0, dtype=torch.float64, bias="both", kappa=kappa)
    return RuleTraining(network, load_rule(rule, **options), loss, Optimizer(lr=LR))


def spread(batch, loss):
    """Targets and weights of all steps, by hand."""
    steps = [0.0] * (T - 1) + [1.0] if loss.when == "last" else [1 / T] * T
    return batch.target.expand(T, -1), torch.tensor(steps, dtype=torch.float64)


def step_loss(network, params, h, target, weight):
    y = h @ params["W_out"].T + params["b_out"]
    return weight * torch.nn.functional.cross_entropy(y, target)


def penalty(params, share):
    return share * 0.01 * sum(params[n].square().sum() for n in ("W_in", "W_rec", "W_out"))


def one_step(network, params, s, x):
    W_rec, W_in = (params[n] * network.masks().get(n, 1) for n in ("W_rec", "W_in"))
    I = network.neuron.g(s) @ W_rec.T + x @ W_in.T + params["b_rec"]
    return network.neuron.f(s, I.unflatten(-1, (network.neuron.n_currents, -1)))


def truncated_by_autograd(network, batches, k, loss):
    """Plain SGD after every k steps; the graph is cut where the weights change."""
    params = {n: p.clone() for n, p in network.params().items()}
    for batch in batches:
        target, weights = spread(batch, loss)
        s = torch.zeros(batch.size, network.neuron.n_states, network.n_rec, dtype=torch.float64)
        for first in range(0, T, k):
            leaves, s, value = {n: p.clone().requires_grad_() for n, p in params.items()}, s.detach(), 0
            for t in range(first, min(first + k, T)):
                s = one_step(network, leaves, s, batch.x[t])
                value = value + step_loss(network, leaves, network.neuron.g(s), target[t], weights[t])
            value = value + penalty(leaves, min(k, T - first) / T)
            grads = torch.autograd.grad(value, list(leaves.values()))
            params = {n: (p - LR * g).detach() for (n, p), g in zip(leaves.items(), grads, strict=True)}
    return params


def rtrl_by_jacobians(network, batches, k, loss):
    """RTRL whose weights change every k steps: influence by autograd's Jacobians of one step, at today's weights."""
    params = {n: p.clone() for n, p in network.params().items()}
    recurrent = ("W_rec", "W_in", "b_rec")
    for batch in batches:
        target, weights = spread(batch, loss)
        s = torch.zeros(batch.size, network.neuron.n_states, network.n_rec, dtype=torch.float64)
        influence = {n: torch.zeros(*s.shape, *params[n].shape, dtype=torch.float64) for n in recurrent}
        total = {n: torch.zeros_like(p) for n, p in params.items()}
        for t in range(T):

            def step(p, s, now=params, x=batch.x[t]):
                return one_step(network, {**now, **p}, s, x)

            def at_step(p, s, now=params, target=target[t], weight=weights[t]):
                return step_loss(network, {**now, **p}, network.neuron.g(s), target, weight)

            by_params, by_state = jacrev(step, (0, 1))({n: params[n] for n in recurrent}, s)
            influence = {n: by_params[n] + torch.tensordot(by_state, influence[n], dims=3) for n in recurrent}
            s = step({}, s)
            by_readout, by_state = jacrev(at_step, (0, 1))({n: params[n] for n in ("W_out", "b_out")}, s)
            for n in recurrent:
                total[n] += torch.tensordot(by_state, influence[n], dims=3)
            for n, g in by_readout.items():
                total[n] += g
            if (t + 1) % k == 0 or t + 1 == T:
                share = (t % k + 1) / T
                for n in ("W_in", "W_rec", "W_out"):
                    total[n] += share * 0.02 * params[n]
                params = {n: p - LR * total[n] for n, p in params.items()}
                total = {n: torch.zeros_like(p) for n, p in params.items()}
    return params


def trained(rule, k, loss, **options):
    split = data(n=6, T=T)
    training = module(rule, loss, **options)
    start = module(rule, loss, **options).network
    whole = Split(split.x, split.target.expand(T, -1)) if loss.when == "all" else split
    fit(training, ChunkLoader(whole, loss, 3, seed=0, chunk=k), max_epochs=1)
    batches = list(SeededLoader(split, 3, seed=0))
    return training.network.params(), start, batches


@pytest.mark.parametrize("loss", [LAST, ALL])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_an_offline_rule_is_truncated_where_the_weights_change(k, loss):
    for neuron in (Leaky(0.5, "tanh"), GRU()):
        got, start, batches = trained("bptt", k, loss, neuron=neuron)
        expected = truncated_by_autograd(start, batches, k, loss)
        assert_equal(got, expected)
        assert distance(got["W_in"], start.params()["W_in"]) > 1e-4


@pytest.mark.parametrize("loss", [LAST, ALL])
@pytest.mark.parametrize("k", [1, 3])
def test_rtrl_carries_its_influence_across_weight_changes(k, loss):
    got, start, batches = trained("rtrl", k, loss)
    expected = rtrl_by_jacobians(start, batches, k, loss)
    assert_equal(got, expected)
    truncated = trained("bptt", k, loss)[0]  # control: what the carried influence is for
    assert distance(truncated["W_rec"], got["W_rec"]) > 1e-4


def test_states_are_reset_between_sequences(monkeypatch):
    got = trained("rtrl", 3, ALL)[0]
    begun = ChunkLoader.__iter__

    def never_again(self):
        for i, chunk in enumerate(begun(self)):
            yield chunk._replace(starts=i == 0)

    monkeypatch.setattr(ChunkLoader, "__iter__", never_again)
    assert distance(trained("rtrl", 3, ALL)[0]["W_rec"], got["W_rec"]) > 1e-6  # the mutant is another training


def test_chunks_are_the_sequence_and_their_losses_add_up():
    split = data(n=5, T=T)
    for loss in (LAST, ALL):
        whole = Split(split.x, split.target.expand(T, -1)) if loss.when == "all" else split
        chunks = list(ChunkLoader(whole, loss, 5, seed=0, chunk=3))
        (batch,) = SeededLoader(whole, 5, seed=0)
        assert [len(c.x) for c in chunks] == [3, 3, 1]
        assert [(c.starts, c.ends) for c in chunks] == [(True, False), (False, False), (False, True)]
        assert torch.equal(torch.cat([c.x for c in chunks]), batch.x)
        assert sum(c.share for c in chunks) == pytest.approx(1)
        for rule in ("rtrl", "bptt"):
            training, carry, total = module(rule, loss), None, 0
            for c in chunks:
                now, _ = training.problem(c, loss, "test")
                carry, result = gradients_of_chunk(training.rule, now, carry, ends=c.ends, share=c.share)
                total = total + result.loss
            network = training.network
            value = training.rule.gradients(*asked(network, network.params(), batch.x, batch.target, loss, {})).loss
            torch.testing.assert_close(total, value)


@pytest.mark.parametrize("stop", range(9))
def test_a_restored_loader_continues_the_same_chunks(stop):
    def taken(loader, n):
        seen = []
        while len(seen) < n:
            for chunk in loader:
                seen.append(chunk)
                if len(seen) == n:
                    break
        return seen

    task = DelayedRecall(n_steps=5, delay=2, size=4)
    split = Split(*task.split("train"))
    for make in (lambda: ChunkLoader(split, ALL, 2, 0, 3), lambda: StreamLoader(task, ALL, 2, 0, 3)):
        wanted, first, second = taken(make(), 9), make(), make()
        taken(first, stop)
        second.load_state_dict(first.state_dict())
        for a, b in zip(wanted[stop:], taken(second, 9 - stop), strict=True):
            assert all((u is None and v is None) or torch.equal(u, v) for u, v in zip(a[:3], b[:3], strict=True))
            assert a[3:] == b[3:]


# The stream.


def test_a_stream_is_drawn_no_further_than_it_is_used():
    drawn = []

    class Counted(DelayedRecall):
        def stream(self, batch, seed, start=0):
            for i, step in enumerate(super().stream(batch, seed, start)):
                drawn.append(start + i)
                yield step

    task = Counted(n_steps=6, delay=2, size=4)
    used = 0
    for chunk in StreamLoader(task, ALL, 2, 0, 3):
        used += len(chunk.x)
        assert drawn == list(range(used))
    assert used == 12


def test_a_stream_asks_for_what_was_shown_and_never_repeats():
    task = DelayedRecall(delay=3, symbols=4, n_steps=10, size=4)
    loader = StreamLoader(task, ALL, 2, seed=1, chunk=5)
    chunks = [*loader, *loader]  # two epochs
    x, target, mask = (torch.cat([getattr(c, n) for c in chunks]) for n in ("x", "target", "mask"))
    assert [c.starts for c in chunks] == [True] + [False] * (len(chunks) - 1)
    assert not any(c.ends for c in chunks)
    assert torch.equal(x.argmax(-1)[:-3], target[3:])
    assert not mask[:3].any()
    assert torch.equal(mask[3:], torch.full_like(mask[3:], 1 / 7))
    half = len(x) // 2
    assert not torch.equal(x[:half], x[half:])


def test_the_sequences_of_delayed_recall_are_the_same_task():
    task = DelayedRecall(delay=3, symbols=5, n_steps=10, size=40)
    x, target, mask = task.split("train")
    assert torch.equal(x.argmax(-1)[:-3], target[3:])
    assert torch.equal(mask.sum(0), torch.ones(40))
    assert not mask[:3].any()
    assert task.split("test").size == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule", ["rtrl", "snap", "sk_rtrl", "eprop_online", "rflo_online", "uoro", "kf_rtrl", "pp_prop"]
)
def test_online_rules_learn_from_a_stream_step_by_step(rule):
    """One symbol back, weights changed at every step: all but chance, whose accuracy is 1/4."""
    task = DelayedRecall(delay=1, symbols=4, n_steps=21, size=64)
    network = Network(Leaky(0.8, "tanh"), 4, 32, 4, seed=0)
    training = RuleTraining(network, load_rule(rule), Loss("cross_entropy", "all"), Optimizer("adam", lr=3e-3))
    fit(training, StreamLoader(task, training.loss, 16, 0, 1), max_epochs=40)
    x, target, mask = task.split("test")
    right = (network(x, "all").argmax(-1) == target)[mask > 0].float().mean()
    assert right > 0.5


# Resuming.

RUN = ["--wandb", "off", "--task", "delayed_recall", "--task.size", "24", "--task.n_steps", "8", "--network.n_rec", "8"]
RUN += ["--trainer.batch_size", "8", "--trainer.chunk", "3", "--trainer.max_epochs", "3", "--sharpness.samples", "4"]
RUN += ["--neuron.alpha", "0.5", "--network.sigma_rec", "0.1", "--network.kappa", "0.3"]


@pytest.mark.parametrize("options", [["--rule", "uoro"], ["--rule", "rtrl", "--trainer.stream", "true"]])
@pytest.mark.parametrize("batch", [0, 4])
def test_a_run_stopped_within_a_sequence_continues_bit_for_bit(tmp_path, monkeypatch, options, batch):
    def run(name):
        code = main(["fit", *RUN, *options, "--out", str(tmp_path / name)])
        return code, next((tmp_path / name).iterdir())

    code, whole = run("whole")
    assert code == 0
    passed_on = Interrupt.on_train_batch_end

    def stop(self, trainer, module, outputs, data, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == batch:
            self.received = signal.SIGINT
        passed_on(self, trainer, module)

    monkeypatch.setattr(Interrupt, "on_train_batch_end", stop)
    code, stopped = run("stopped")
    assert code == 130
    monkeypatch.undo()
    assert main(["fit", "--resume", str(stopped)]) == 0
    assert (stopped / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    last = [torch.load(max((f / "weights").iterdir()))["network"] for f in (whole, stopped)]
    assert all(torch.equal(last[0][n], last[1][n]) for n in last[0])


def test_what_is_carried_is_in_the_checkpoint():
    training = module("rtrl", ALL)
    split = data(n=3, T=T)
    (batch, *_) = ChunkLoader(Split(split.x, split.target.expand(T, -1)), ALL, 3, 0, 3)
    training._on_chunk(batch, *training.problem(batch, ALL, "test"))
    saved: dict = {}
    training.on_save_checkpoint(saved)
    other = module("rtrl", ALL)
    other.on_load_checkpoint(saved)
    assert other.carry.t == 3
    assert other.carry.state["influence"].norm() > 1e-3
    assert torch.equal(other.carry.state["influence"], training.carry.state["influence"])


# What cannot be done says so.


def test_what_needs_whole_sequences_is_refused():
    filtered = module("bptt", ALL, kappa=0.5)
    chunk = Chunk(*data(n=3, T=T)[:2], torch.ones(T, 3), True, True, 1.0)
    with pytest.raises(BpgenError, match="kappa"):
        filtered._on_chunk(chunk, *filtered.problem(chunk, ALL, "test"))
    with pytest.raises(BpgenError, match="whole sequences"):
        gradients_of_chunk(Rule(), module("bptt").problem(chunk, ALL, "test")[0], None, ends=True, share=1.0)
    with pytest.raises(BpgenError, match="no last step"):
        StreamLoader(DelayedRecall(), LAST, 2, 0, 1)
    with pytest.raises(BpgenError, match="has no stream"):
        TaskData(Digits(), ALL, 4, 0, chunk=2, stream=True).setup("fit")
    with pytest.raises(BpgenError, match="has no stream"):
        Task().stream(1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.chunk", "0"], "positive"),
        (["--trainer.stream", "true"], "needs a trainer.chunk"),
        (["--trainer.chunk", "2", "--trainer.stream", "true"], "no stream"),
        (["--trainer.chunk", "2", "--rule", "bptt", "--network.kappa", "0.5"], "kappa"),
        (["--task", "delayed_recall", "--task.delay", "30"], "exceed"),
    ],
)
def test_bad_options_are_named(options, message, tmp_path, capsys):
    loss = ["--loss.when", "all"]
    assert main(["fit", "--wandb", "off", "--out", str(tmp_path), *loss, *options]) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
