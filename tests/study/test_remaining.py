"""How long a stage still takes, from folders whose times are set by hand."""

import os

import pytest

from bpgen.run.config import Config
from bpgen.run.folder import RunFolder
from bpgen.study.plan import Condition
from bpgen.study.remaining import RemainingTime
from bpgen.study.runs import Run

BEGAN = 1_000_000.0


class Clock:
    def __init__(self):
        self.seconds = BEGAN

    def __call__(self):
        return self.seconds


def waiting(tmp_path, label, seed, **trainer):
    out = str(tmp_path / label)
    config = Config.of({"rule": {"name": label}, "seed": seed, "out": out, "trainer": {"max_epochs": 10, **trainer}})
    return Run(Condition(label, {}, {}, config), seed, config)


def at_work(run, began, *rows):
    """Its folder: begun at a time, with rows (seconds since then, epoch, step) in metrics.csv."""
    folder = RunFolder.create(run.config)
    os.utime(folder.path / "config.yaml", (began, began))
    for seconds, epoch, step in rows:
        folder.append({"epoch": epoch, "step": step, "lr": 0.1})
        os.utime(folder.metrics_file, (began + seconds, began + seconds))
    return folder


def ended(run, seconds):
    run.folder, run.status = RunFolder.create(run.config), "finished"
    run.folder.write_summary({"status": "finished", "seconds": {"total": seconds}})


def test_nothing_is_said_before_anything_is_measured(tmp_path):
    runs, clock = [waiting(tmp_path, "bptt", seed) for seed in range(4)], Clock()
    remaining = RemainingTime(runs, 2, clock)
    assert remaining.seconds_left() is None
    at_work(runs[0], BEGAN + 1, (0, 0.0, 0))  # the evaluation before the first step
    clock.seconds += 5
    assert remaining.seconds_left() is None


@pytest.mark.parametrize(
    ("trainer", "row"), [({}, (5, 2.5, 7)), ({"max_steps": 40}, (5, 99.0, 10))], ids=["epochs", "steps"]
)
def test_the_first_run_at_work_says_how_long_all_take(tmp_path, trainer, row):
    """A quarter in 5 s: 20 s each, of which 9 are gone for the first; the second of the pair has only begun."""
    runs, clock = [waiting(tmp_path, "bptt", seed, **trainer) for seed in (1, 2, 10, 11)], Clock()
    at_work(runs[0], BEGAN + 1, row)
    at_work(runs[1], BEGAN + 1)
    clock.seconds += 10
    assert RemainingTime(runs, 2, clock).seconds_left() is None  # those folders are older than this stage
    clock.seconds = BEGAN
    remaining = RemainingTime(runs, 2, clock)
    clock.seconds += 10
    assert remaining.seconds_left() == pytest.approx((11 + 11 + 20 + 20) / 2)


def test_it_goes_down_between_two_runs(tmp_path):
    runs, clock = [waiting(tmp_path, "bptt", seed) for seed in range(3)], Clock()
    remaining = RemainingTime(runs, 1, clock)
    ended(runs[0], 30.0)
    at_work(runs[1], BEGAN + 10)
    clock.seconds += 10
    seen = []
    for _ in range(12):
        seen.append(remaining.seconds_left())
        clock.seconds += 1
    assert seen == pytest.approx([60.0 - i for i in range(12)])


def test_ended_runs_of_a_kind_count_before_guesses_and_other_kinds(tmp_path):
    runs, clock = [waiting(tmp_path, rule, seed) for seed in range(2) for rule in ("bptt", "rflo")], Clock()
    remaining = RemainingTime(runs, 1, clock)
    ended(runs[0], 10.0)
    at_work(runs[1], BEGAN, (50, 5.0, 1))  # rflo: 100 s
    clock.seconds += 60
    assert remaining.seconds_left() == pytest.approx(40 + 10 + 100)
    for run in runs[1:]:
        run.status = "failed"
    clock.seconds += 60
    assert remaining.seconds_left() == 0.0
