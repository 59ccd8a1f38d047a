"""Spikes from numbers, from files, and their perturbation, against slow loops and closed forms."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bpgen.conformance import plan
from bpgen.errors import BpgenError
from bpgen.registry import find
from bpgen.streams import generator
from bpgen.tasks import Task
from bpgen.tasks.spikes import encoded, perturbed

h5py = pytest.importorskip("h5py")
U = torch.tensor([[0.0, 0.3, 0.5, 1.0], [1.0, 0.25, 0.1, 0.0]])  # [T=2,4]


def task(name: str, **options: object) -> Task:
    made: Task = find("task", name).make(**options)
    return made


def test_rate_spikes_are_regular_and_as_many_as_they_should_be() -> None:
    spikes = encoded(U, "rate", 20, 0.5, generator(0, "test")).view(2, 20, 4)
    for t in range(2):
        for i in range(4):
            total, expected = 0.0, []
            for _ in range(20):
                before, total = math.floor(total + 1e-6), total + 0.5 * float(U[t, i])
                expected.append(float(math.floor(total + 1e-6) > before))
            assert abs(sum(expected) - float(spikes[t, :, i].sum())) <= 1
            gaps = spikes[t, :, i].nonzero().flatten().diff()
            assert len(gaps) == 0 or int(gaps.max() - gaps.min()) <= 1
    assert float(spikes[0, :, 3].sum()) == 10


def test_latency_is_one_spike_the_sooner_the_larger() -> None:
    spikes = encoded(U, "latency", 11, 0.5, generator(0, "test")).view(2, 11, 4)
    assert spikes[0, :, 0].sum() == 0
    first = [int(spikes[0, :, i].argmax()) for i in (1, 2, 3)]
    assert first == [7, 5, 0]
    assert spikes.sum(1).max() == 1


def test_poisson_spikes_have_their_probability_and_are_drawn_apart() -> None:
    u = torch.tensor([0.0, 0.2, 1.0]).expand(1, 3)
    spikes = encoded(u, "poisson", 40_000, 0.4, generator(0, "test"))
    assert torch.allclose(spikes.mean(0), torch.tensor([0.0, 0.08, 0.4]), atol=0.01)
    lagged = (spikes[1:, 2] - 0.4) * (spikes[:-1, 2] - 0.4)
    assert abs(float(lagged.mean())) < 0.01


def test_deletion_and_insertion_keep_the_number_of_spikes() -> None:
    x = (torch.rand(200, 50, 20, generator=generator(0, "x")) < 0.1).float() * 2
    noisy = perturbed(x, 0.3, generator(1, "noise"))
    assert float(noisy.mean()) == pytest.approx(float(x.mean()), rel=0.02)
    where = x > 0
    assert float(noisy[where].mean()) == pytest.approx(2 * 0.7 + 0.3 * float(x.mean()), rel=0.02)
    assert torch.equal(perturbed(x, 0.0, generator(1, "noise")), x)


@pytest.mark.parametrize("encoder", ["poisson", "rate", "latency"])
@pytest.mark.parametrize("of", ["digits", "pattern_generation", "romo"])
def test_an_encoded_task_asks_what_the_task_asks(of: str, encoder: str) -> None:
    plain, spikes = task(of), task("encoded", of=of, encoder=encoder, steps=3)
    a, b = plain.split("test"), spikes.split("test")
    assert (spikes.n_steps, b.size) == (3 * plain.n_steps, a.size)
    assert set(b.x.unique().tolist()) <= {0.0, 1.0}
    if plain.when == "last":
        assert torch.equal(a.target, b.target)
        return
    assert torch.equal(b.target[2::3], a.target)
    even = 1 / plain.n_steps if plain.loss == "cross_entropy" else 1.0
    assert b.mask is not None
    expected = torch.full((plain.n_steps, a.size), even) if a.mask is None else a.mask
    assert torch.equal(b.mask[2::3], expected)
    assert float(b.mask.sum()) == pytest.approx(float(expected.sum()), rel=1e-5)


def written(path: Path, n: int = 30, seed: int = 0, **changed: object) -> Path:
    """A small file in SHD's layout."""
    random = np.random.default_rng(seed)
    units = [random.integers(0, 6, 9).astype(np.uint16) for _ in range(n)]
    times = [np.sort(random.random(9) * 0.05).astype(np.float32) for _ in range(n)]
    content = {"units": units, "times": times, "labels": random.integers(0, 3, n).astype(np.uint16)} | changed
    with h5py.File(path, "w") as data:
        for name in ("units", "times"):
            if content[name] is not None:
                rows = content[name]
                kind = h5py.vlen_dtype(np.asarray(rows[0]).dtype)  # type: ignore[index]
                made = data.create_dataset(f"spikes/{name}", (len(rows),), dtype=kind)  # type: ignore[arg-type]
                for i, row in enumerate(rows):  # type: ignore[arg-type]
                    made[i] = row
        if content["labels"] is not None:
            data["labels"] = content["labels"]
    return path


@pytest.mark.parametrize(("units", "duration"), [(None, None), (3, 30.0), (1, 100.0)])
def test_spikes_are_counted_where_they_fall(tmp_path: Path, units: int | None, duration: float | None) -> None:
    train, test = written(tmp_path / "a.h5"), written(tmp_path / "b.h5", 10, seed=1)
    shown = task("spike_events", train=str(train), test=str(test), bin_ms=5.0, units=units, duration_ms=duration)
    split = shown.split("test")
    assert shown.n_steps == (10 if duration is None else round(duration / 5))
    with h5py.File(test) as data:
        for i in range(10):
            expected = torch.zeros(shown.n_steps, shown.n_in)
            for unit, time in zip(data["spikes/units"][i], data["spikes/times"][i], strict=True):
                if int(float(time) / 0.005) < shown.n_steps:
                    expected[int(float(time) / 0.005), int(unit) * shown.n_in // 6] += 1
            assert torch.equal(split.x[:, i], expected)
            assert int(split.target[i]) == int(data["labels"][i])
    assert shown.split("train").size + shown.split("val").size == 30


def test_without_a_test_file_the_splits_share_no_trial(tmp_path: Path) -> None:
    shown = task("spike_events", train=str(written(tmp_path / "a.h5", 40)), asked="all")
    rows = [tuple(x.flatten().tolist()) for name in ("train", "val", "test") for x in shown.split(name).x.unbind(1)]
    assert len(rows) == 40
    assert len(set(rows)) == 40
    assert shown.split("train").target.shape == (shown.n_steps, 28)


FAULTS = {
    "no labels": ({"labels": None}, "lacks labels"),
    "fewer times": ({"times": [np.zeros(9, np.float32)] * 29}, "as many"),
    "negative times": ({"times": [np.full(9, -1, np.float32)] * 30}, "negative"),
    "nan": ({"times": [np.full(9, np.nan, np.float32)] * 30}, "no numbers"),
    "a time too few": ({"times": [np.zeros(8, np.float32)] * 30}, "a time for each spike"),
    "labels in words": ({"labels": np.array([b"yes"] * 30)}, "whole numbers"),
    "fractions": ({"labels": np.linspace(0, 1, 30)}, "whole numbers"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_of_another_layout_is_refused_with_what_was_expected(tmp_path: Path, fault: str) -> None:
    changed, message = FAULTS[fault]
    with pytest.raises(BpgenError, match=message):
        task("spike_events", train=str(written(tmp_path / "a.h5", **changed)))


def test_no_file_and_no_hdf5(tmp_path: Path) -> None:
    with pytest.raises(BpgenError, match="No such file"):
        task("spike_events", train=str(tmp_path / "none.h5"))
    (tmp_path / "text.h5").write_text("spikes")
    with pytest.raises(BpgenError, match="not an HDF5 file"):
        task("spike_events", train=str(tmp_path / "text.h5"))


def test_both_keep_the_contract_of_tasks(tmp_path: Path) -> None:
    written(tmp_path / "a.h5", 60)
    for name, options in (("encoded", {"encoder": "rate"}), ("spike_events", {"train": str(tmp_path / "a.h5")})):
        assert not [check.name for check in plan(name, **options) if check.run().status == "fail"]
