"""The tasks whose trials are drawn: format, determinism, and that what is asked is what the docstring says.

Each task has an oracle that solves it from the clean inputs alone, with explicit loops: it shows that the answer is in
the inputs, and that it is the answer the targets hold.
"""

import math

import numpy as np
import pytest
import torch

from bpgen.cli.options import resolve
from bpgen.errors import BpgenError
from bpgen.registry import find
from bpgen.run.config import Config
from bpgen.streams import generator
from bpgen.tasks.base import SPLITS

NAMES = (
    "adding",
    "context_decision",
    "copy_memory",
    "cue_accumulation",
    "delayed_match_to_sample",
    "flip_flop",
    "pattern_generation",
    "perceptual_decision",
    "romo",
    "spiking_delayed_match",
)
SPIKES = ("CueAccumulation", "SpikingDelayedMatch")


def task(name, **options):
    return find("task", name).load()(**options)


@pytest.fixture(scope="module", params=NAMES)
def made(request):
    return task(request.param)


def test_format(made):
    for name in SPLITS:
        x, target, mask = made.split(name)
        n = x.shape[1]
        assert x.shape == (made.n_steps, n, made.n_in)
        assert x.dtype == torch.float32
        assert x.isfinite().all()
        if made.loss == "cross_entropy":
            assert target.dtype == torch.int64
            assert target.shape == ((made.n_steps, n) if made.when == "all" else (n,))
            assert 0 <= target.min() <= target.max() < made.n_out
        else:
            assert target.dtype == torch.float32
            assert target.shape == ((made.n_steps, n, made.n_out) if made.when == "all" else (n, made.n_out))
        assert (mask is None) == (made.when == "last")
        if mask is not None:
            assert mask.shape == (made.n_steps, n)
            torch.testing.assert_close(mask.sum(0), torch.ones(n))


def test_one_data_seed_gives_one_data_set(made):
    cls = type(made)
    for name in SPLITS:
        again = cls().split(name)
        assert torch.equal(again.x, made.split(name).x)
        assert torch.equal(again.target, made.split(name).target)
    assert not torch.equal(cls(data_seed=1).split("train").x, made.split("train").x)


def test_splits_are_different_trials_and_do_not_depend_on_each_others_size():
    a, b = task("romo"), task("romo", n_train=10)
    even = task("romo", n_train=20, n_val=20, n_test=20)
    assert not torch.equal(even.split("train").x, even.split("val").x)
    assert not torch.equal(even.split("val").x, even.split("test").x)
    assert torch.equal(a.split("test").x, b.split("test").x)


def test_perturbed_inputs_have_the_noise_they_say(made):
    if type(made).__name__ in SPIKES:
        pytest.skip("its inputs are spikes: see below")
    x = made.split("test").x
    noise = made.perturb(x, generator(0, "test noise")) - x
    assert math.isclose(float(noise.std()), made.noise_sd, rel_tol=0.03)
    assert abs(float(noise.mean())) < 0.02 * made.noise_sd
    assert torch.equal(type(made)(noise_sd=0.0).perturb(x, generator(0, "test noise")), x)


def right(answers, target):
    return float((torch.as_tensor(np.array(answers)) == target).float().mean())


def test_adding():
    x, target, _ = task("adding", length=9).split("val")
    for b in range(x.shape[1]):
        marked = [t for t in range(9) if x[t, b, 1] == 1]
        assert len(marked) == 2
        assert marked[0] < 9 // 2 <= marked[1]
        assert float(target[b]) == pytest.approx(sum(float(x[t, b, 0]) for t in marked))
    loss = 0.5 * float((task("adding", n_test=20000).split("test").target - 1).square().mean())
    assert loss == pytest.approx(1 / 12, rel=0.03)
    near = (task("adding", n_test=20000).split("test").target - 1).abs() < 0.04
    assert float(near.float().mean()) == pytest.approx(0.08, abs=0.01)


def test_copy_memory():
    x, target, mask = task("copy_memory", length=4, delay=3, symbols=5).split("val")
    for b in range(x.shape[1]):
        shown = [int(x[t, b].argmax()) for t in range(4)]
        assert x[4:7, b].abs().sum() == 0
        assert int(x[7, b].argmax()) == 5  # the signal
        assert x[8:, b].abs().sum() == 0
        assert [int(target[8 + t, b]) for t in range(4)] == shown
    assert len(x) == 12
    assert (mask[:8] == 0).all()
    assert target[8:].unique().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("symbols", "length"), [(4, 3), (7, 1), (3, 2), (2, 3), (5, 4), (10, 7), (4, 10), (8, 10), (2, 40), (1001, 3)]
)
def test_no_copied_sequence_of_training_is_held_out(symbols, length):
    made = task("copy_memory", symbols=symbols, length=length)
    shown = {name: {tuple(s) for s in made.split(name).x[:length].argmax(-1).T.tolist()} for name in SPLITS}
    assert not shown["train"] & shown["test"]
    assert not shown["train"] & shown["val"]
    assert not shown["val"] & shown["test"]
    assert not made.reuses_training
    assert made.clean_gap is True
    few = symbols**length
    if few < 100:  # then every sequence stands somewhere
        assert len(set.union(*shown.values())) == few
    again = task("copy_memory", symbols=symbols, length=length, n_train=5)
    assert torch.equal(again.split("test").x, made.split("test").x)


@pytest.mark.parametrize(("symbols", "length"), [(2, 1), (2, 2), (6, 1)])
def test_where_no_sequence_can_be_held_out_the_clean_gap_is_not_defined(symbols, length):
    made = task("copy_memory", symbols=symbols, length=length)
    assert made.reuses_training
    assert "too few to hold any out" in made.clean_gap
    assert made.split("test").size == 1000


def test_flip_flop():
    x, target, _ = task("flip_flop", bits=2, length=12).split("val")
    for b in range(50):
        held = [None, None]
        for t in range(12):
            for i in range(2):
                if x[t, b, i] != 0:
                    held[i] = float(x[t, b, i])
            assert target[t, b].tolist() == held


def test_perceptual_decision():
    easy = task("perceptual_decision", evidence_sd=0.0).split("test")
    assert right([int(e[1] > e[0]) for e in easy.x[:20].sum(0)[:, :2]], easy.target[-1]) == 1
    hard = task("perceptual_decision", n_test=20000).split("test")
    evidence = hard.x[:20].sum(0)
    assert float(((evidence[:, 1] > evidence[:, 0]) == hard.target[-1]).float().mean()) == pytest.approx(0.85, abs=0.01)
    assert (hard.x[20:, :, 2] == 1).all()
    assert (hard.x[:20, :, 2] == 0).all()


def test_context_decision():
    split = task("context_decision", evidence_sd=0.0).split("test")
    n = split.size
    mean = split.x[:20].mean(0)
    attended = [int(mean[b, 0 if split.x[0, b, 2] == 1 else 1] > 0) for b in range(n)]
    other = [int(mean[b, 1 if split.x[0, b, 2] == 1 else 0] > 0) for b in range(n)]
    assert right(attended, split.target[-1]) == 1
    assert right(other, split.target[-1]) == pytest.approx(0.5, abs=0.05)  # the wrong modality says nothing
    assert right((mean[:, :2].sum(1) > 0).long().numpy(), split.target[-1]) == pytest.approx(0.75, abs=0.05)
    assert (split.x[..., 2:4].sum(-1) == 1).all()


def test_delayed_match_to_sample():
    made = task("delayed_match_to_sample")
    split = made.split("test")
    first, second = split.x[:10, :, 0].amax(0) > 1, split.x[20:, :, 1].amax(0) > 1
    assert right((first == second).long().numpy(), split.target) == 1
    for one in (first, second):  # either cue alone says nothing, as in XOR
        assert right(one.long().numpy(), split.target) == pytest.approx(0.5, abs=0.05)
    assert split.x[10:20].abs().max() < 0.1
    assert task("delayed_match_to_sample", cue=100, delay=700, n_train=2).split("train").x.shape == (900, 2, 2)


def test_spiking_delayed_match():
    split = task("spiking_delayed_match", n_test=4000).split("test")
    x, answer = split.x, split.target[-1]
    there = [x[5:20, :, :10].sum((0, 2)) > 25, x[90:105, :, 10:20].sum((0, 2)) > 25]  # 0 or 49 spikes
    assert right((there[0] == there[1]).long().numpy(), answer) == 1
    for one in there:  # either cue alone says nothing, as in XOR
        assert right(one.long().numpy(), answer) == pytest.approx(0.5, abs=0.03)
    assert x[20:90, :, :30].sum() == x[:5, :, :30].sum() == 0  # the delay, the fixation
    assert float(x[105:, :, 20:30].mean()) == pytest.approx(1 - math.exp(-0.4), rel=0.03)
    assert float(x[:, :, 30:].mean()) == pytest.approx(1 - math.exp(-0.1), rel=0.03)
    assert (split.mask > 0).nonzero()[:, 0].unique().tolist() == [105, 106, 107, 108, 109]
    fine = task("spiking_delayed_match", dt=1, window=100, n_train=2)
    assert fine.split("train").x.shape == (1150, 2, 40)


def test_patterns_may_have_spikes_as_their_input():
    made = task("pattern_generation", input_rate=20, noise_sd=0.5)
    x = made.split("train").x
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert float(x.mean()) == pytest.approx(1 - math.exp(-0.2), abs=0.03)
    assert torch.equal(made.split("test").x[:, 3], x[:, 0])  # frozen
    noisy = made.perturb(made.split("test").x, generator(0, "test noise"))
    assert set(noisy.unique().tolist()) == {0.0, 1.0}
    assert float(noisy[made.split("test").x == 1].mean()) == pytest.approx(0.5 + 0.5 * 0.09, abs=0.02)


def test_cue_accumulation():
    made = task("cue_accumulation", n_test=4000)
    split = made.split("test")
    x, answer = split.x, split.target[-1]
    sides = np.zeros((7, split.size))
    for i in range(7):
        cue = x[15 * i : 15 * i + 10]
        sides[i] = (cue[:, :, 10:20].sum((0, 2)) > cue[:, :, :10].sum((0, 2))).numpy()
    assert right((sides.sum(0) > 3.5).astype(np.int64), answer) > 0.999  # Poisson spikes leave a rare doubt
    assert right(sides[-1].astype(np.int64), answer) == pytest.approx(0.72, abs=0.03)
    assert x[105:155, :, :30].sum() == 0  # the delay
    assert float(x[:10, :, :20].sum()) / (10 * 10 * split.size) == pytest.approx(1 - math.exp(-0.4), rel=0.03)
    assert float(x[:, :, 30:].mean()) == pytest.approx(1 - math.exp(-0.1), rel=0.03)


@pytest.mark.parametrize(("side", "last", "share"), [(0.5, 0.656, 0.5), (0.7, 0.72, 0.7), (1.0, 1.0, 1.0)])
def test_cues_fall_on_the_trials_side_as_often_as_asked(side, last, share):
    sides = task("cue_accumulation", side=side).conditions(20000, torch.Generator().manual_seed(0))["cues"]
    majority = (sides.sum(1) > 3.5).long()
    assert float((sides[:, -1] == majority).double().mean()) == pytest.approx(last, abs=0.015)
    alike = (sides[:, 0] == sides[:, 1]).double().mean()  # s² + (1-s)², whichever the trial's side
    assert float(alike) == pytest.approx(share**2 + (1 - share) ** 2, abs=0.015)
    assert float(majority.double().mean()) == pytest.approx(0.5, abs=0.015)


@pytest.mark.parametrize("noise", [0.0, 0.2, 1.0])
def test_spikes_of_delayed_match_are_perturbed_too(noise):
    made = task("spiking_delayed_match", noise_sd=noise)
    x = made.split("test").x
    noisy = made.perturb(x, generator(0, "test noise"))
    assert set(noisy.unique().tolist()) <= {0.0, 1.0}
    inserted = noise * float(x.mean())
    assert float(noisy[x == 1].mean()) == pytest.approx(1 - noise * (1 - inserted), abs=0.01)
    assert float(noisy[20:90, :, :30].mean()) == pytest.approx(1 - math.exp(-inserted), abs=0.002)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5, 1.0])
def test_spikes_are_perturbed_by_deletion_and_insertion(noise):
    made = task("cue_accumulation", noise_sd=noise)
    x = made.split("test").x
    noisy = made.perturb(x, generator(0, "test noise"))
    assert set(noisy.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(noisy, made.perturb(x, generator(0, "test noise")))
    assert float(noisy[x == 1].mean()) == pytest.approx(1 - noise, abs=0.01)
    inserted = noisy[x == 0]
    assert float(noisy.sum() / x.sum()) == pytest.approx(1, abs=0.02)  # as many as were deleted
    groups = [float(noisy[105:155, :, g : g + 10].mean()) for g in (0, 10, 20)]  # silent in the delay
    assert groups == pytest.approx([float(inserted.mean())] * 3, abs=0.005)


def test_more_than_all_spikes_cannot_be_deleted():
    with pytest.raises(BpgenError, match="probability that a spike is deleted"):
        task("cue_accumulation", noise_sd=1.5)


def test_romo():
    split = task("romo", evidence_sd=0.0, n_test=4000).split("test")
    first, second = split.x[:5, :, 0].mean(0), split.x[15:20, :, 0].mean(0)
    assert right((first > second).long().numpy(), split.target[-1]) == 1
    alone = right((second < 0.5).long().numpy(), split.target[-1])
    assert alone == pytest.approx(0.75, abs=0.03)
    torch.testing.assert_close((first - second).abs(), torch.full_like(first, 8 / 24))


def test_pattern_generation():
    made = task("pattern_generation", patterns=3)
    train, test = made.split("train"), made.split("test")
    assert torch.equal(test.x, train.x.repeat(1, 50, 1))
    assert torch.equal(made.split("val").target, train.target)
    torch.testing.assert_close(train.target.var(0, correction=0), torch.ones(3, 1))
    spectrum = torch.fft.rfft(train.target[..., 0], dim=0).abs()  # 2 s: bins of 0.5 Hz
    assert sorted(spectrum.mean(1).topk(5).indices.tolist()) == [1, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adding", {"length": 1}, "at least 2 steps"),
        ("adding", {"n_train": 0}, "n_train must be a positive"),
        ("adding", {"noise_sd": -1.0}, "noise_sd must be >= 0"),
        ("copy_memory", {"symbols": 1}, "symbols must be at least 2"),
        ("copy_memory", {"delay": -1}, "delay must be >= 0"),
        ("flip_flop", {"p_pulse": 0.0}, "p_pulse must be in"),
        ("perceptual_decision", {"coherences": []}, "coherences must be"),
        ("perceptual_decision", {"stimulus": 0}, "must be positive"),
        ("context_decision", {"max_evidence": 0.0}, "max_evidence must be"),
        ("delayed_match_to_sample", {"cue": 1}, "cue must be at least 2"),
        ("pattern_generation", {"input_rate": 0}, "input_rate must be > 0 Hz"),
        ("spiking_delayed_match", {"window": 5}, "window must be at least a step of 10 ms"),
        ("spiking_delayed_match", {"dt": 60}, r"dt must be in \(0, 50\]"),
        ("spiking_delayed_match", {"noise_sd": 2}, "probability that a spike is deleted"),
        ("cue_accumulation", {"cues": 4}, "must be odd"),
        ("cue_accumulation", {"dt": 80.0}, "dt must be in"),
        ("cue_accumulation", {"side": 0.4}, "side must be a probability"),
        ("romo", {"difference": 30.0}, "difference must be in"),
        ("pattern_generation", {"repeats": 0}, "repeats must be positive"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(BpgenError, match=message):
        task(name, **options)


# The data's own seed, or the run's


def _train(name, seed, **options):
    return Config.of({"task": {"name": name, **options}, "seed": seed}).make_task().split("train").x


@pytest.mark.parametrize("name", NAMES)
def test_data_may_vary_with_the_run(name):
    by_number = [_train(name, seed) for seed in (0, 1)]
    assert torch.equal(*by_number)  # the default: the same in every run
    by_run = [_train(name, seed, data_seed="run") for seed in (0, 1)]
    assert not torch.equal(*by_run)
    assert torch.equal(by_run[1], _train(name, 5, data_seed=1))


@pytest.mark.parametrize("name", NAMES)
def test_without_a_run_there_is_no_seed_of_it(name):
    with pytest.raises(BpgenError, match="'run' is the seed of a run"):
        task(name, data_seed="run")


def test_the_command_line_takes_a_number_or_run(capsys):
    assert resolve(["--task", "romo", "--task.data_seed", "run"]).task.options["data_seed"] == "run"
    assert resolve(["--task", "romo", "--task.data_seed", "7"]).task.options["data_seed"] == 7
    with pytest.raises(BpgenError, match=r"--task\.data_seed expects .*run"):
        resolve(["--task", "romo", "--task.data_seed", "mine"])


KNOWN = {
    "romo": lambda x, y, info: (info["f1"] > info["f2"]) == y,
    "perceptual_decision": lambda x, y, info: info["side"] == y,
    "context_decision": lambda x, y, info: (
        (np.take_along_axis(info["evidence"], info["context"][:, None], 1)[:, 0] > 0) == y
    ),
    "delayed_match_to_sample": lambda x, y, info: (info["cue_1"] == info["cue_2"]) == y,
    "spiking_delayed_match": lambda x, y, info: (info["cue_1"] == info["cue_2"]) == y,
    "cue_accumulation": lambda x, y, info: (info["cues"].mean(1) > 0.5) == y,
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_trials_were_drawn_from_is_known_and_decides_the_answer(name):
    task = find("task", name).load()(n_train=50, n_val=20, n_test=30)
    for part in ("train", "val", "test"):
        split, info = task.split(part), task.trial_info(part)
        target = (split.target if split.target.ndim == 1 else split.target[-1]).numpy()
        assert (KNOWN[name](split.x.numpy(), target, info)).all()
        assert 0 < target.mean() < 1
