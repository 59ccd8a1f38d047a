"""A study whose seeds are trained at once has the table that it has when they are trained alone."""

import pandas as pd
import pytest

from bpgen.cli.options import resolve
from bpgen.study.launchers import JobResult, Launcher, execute
from bpgen.study.plan import read_plan
from bpgen.study.progress import PrintedProgress
from bpgen.study.study import Study
from bpgen.study.together import jobs_of

PLAN = {
    "base": "digits",
    "axes": {"rule": ["bptt", "rflo"]},
    "seeds": 3,
    "set": {"trainer.max_steps": 6, "network.n_rec": 8, "evaluation.every": 3},
    "measure": {"sharpness": {"samples": 16}, "alignment": {"samples": 16}, "gap": {"train_samples": 32}},
}


class Here(Launcher):
    """Everything in this process, one after the other."""

    def __init__(self, seeds_at_once=True, processes=1):
        self.seeds_at_once, self.processes, self.launched = seeds_at_once, processes, []

    def launch(self, jobs):
        self.launched += jobs
        for job in jobs:
            yield execute(job)


def study(folder, **changes):
    return Study(read_plan({**PLAN, **changes}, "p"), folder, resolve)


def beside(launcher):
    return [len(job.beside) for job in launcher.launched]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    found = []
    for at_once in (True, False):
        launcher, folder = Here(at_once), tmp_path_factory.mktemp("study")
        found.append((launcher, study(folder).run(launcher, PrintedProgress())))
    return found


def test_the_table_is_the_same(both):
    (at_once, together), (apart, alone) = both
    assert beside(at_once) == [2, 2]
    assert beside(apart) == [0] * 6
    assert [run.status for run in together.runs] == ["finished"] * 6
    assert {tuple(run.folder.summary()["together"]) for run in together.runs} == {(0, 1, 2)}
    pd.testing.assert_frame_equal(together.table, alone.table, rtol=1e-4, atol=1e-5)


def test_what_asks_the_trainer_of_each_is_not_done_at_once(tmp_path):
    launcher = Here()
    measure = {**PLAN["measure"], "preconditioned": {"samples": 8}}
    done = study(tmp_path, measure=measure, axes={"rule": ["bptt"]}, seeds=2).run(launcher, PrintedProgress())
    assert beside(launcher) == [0, 0]
    assert [run.status for run in done.runs] == ["finished"] * 2
    assert done.table["preconditioned/lambda_max"].notna().all()


def test_a_study_goes_on_with_what_is_left(both, tmp_path):
    begun = Here()
    study(tmp_path, seeds=1).run(begun, PrintedProgress())
    launcher = Here()
    results = study(tmp_path).run(launcher, PrintedProgress())
    assert beside(launcher) == [1, 1]
    assert [run.status for run in results.runs] == ["finished"] * 6
    pd.testing.assert_frame_equal(results.table, both[1][1].table, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("processes", "options", "expected"),
    [
        (1, {}, [2, 2]),
        (3, {}, [1, 0, 1, 0]),
        (6, {}, [0] * 6),
        (1, {"network.n_rec": 512}, [0] * 6),  # slower at once
        (1, {"trainer.patience": 2}, [0] * 6),
        (1, {"trainer.chunk": 4}, [0] * 6),
    ],
)
def test_what_is_done_at_once(tmp_path, processes, options, expected):
    of = study(tmp_path, set={**PLAN["set"], **options})
    runs = of.main_runs([])
    jobs = jobs_of(runs, tmp_path, Here(processes=processes))
    assert [len(job.beside) for job in jobs] == expected
    assert sorted(each.name for job in jobs for each in (job, *job.beside)) == sorted(run.hash for run in runs)
    assert all(each.config["rule"] == job.config["rule"] for job in jobs for each in job.beside)


def test_one_that_another_process_is_at_work_on_is_left_to_it():
    result = JobResult("a", "finished", beside=(JobResult("b", "waiting"),))
    assert [each.name for each in result.each()] == ["a", "b"]
    assert not result.each()[0].beside
