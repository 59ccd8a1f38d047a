"""What the launcher of SLURM decides, with a queue that is made up: see test_slurm.py for a real one."""

import os
from pathlib import Path

import pytest

from bpgen.errors import BpgenError
from bpgen.study import fates
from bpgen.study.launchers import Job, JobResult, slurm_queue
from bpgen.study.launchers.slurm import Slurm


class Queue:
    """SLURM, as far as the launcher sees it: what was submitted, what is alive, how the rest ended."""

    def __init__(self, study, monkeypatch):
        self.study, self.submitted, self.living, self.ends = study, [], {}, {}
        self.outcome = {}  # of a run, once its task is looked at; without one the task dies
        monkeypatch.setattr(slurm_queue, "alive", lambda submissions: dict(self.look()))
        monkeypatch.setattr(slurm_queue, "ended_as", lambda task: self.ends.get(task.key, "FAILED"))
        monkeypatch.setattr(Slurm, "_executor", lambda launcher, study: self)

    def update_parameters(self, job_name, **parameters):
        self.name, self.parameters = job_name, parameters

    def map_array(self, pack, packs):
        self.submitted.append([[job.name for job in pack] for pack in packs])
        self.living |= {(self.name, index): "RUNNING" for index in range(len(packs))}
        return [type("Submitted", (), {"job_id": f"{len(self.submitted)}_{i}"}) for i in range(len(packs))]

    def look(self):
        yield from list(self.living.items())
        for (name, index), state in list(self.living.items()):
            if state != "RUNNING":
                continue
            pack = self.submitted[int(name.split("-")[1])][index]
            for run in pack:
                if run in self.outcome:
                    fates.note(self.study, self.outcome[run])
            del self.living[name, index]


@pytest.fixture
def queue(tmp_path, monkeypatch):
    return Queue(tmp_path, monkeypatch)


def jobs(study, names):
    return [Job(name, {}, None, str(study / f"{name}.log"), str(study / ".lock"), os.getpid()) for name in names]


def launch(queue, names, **options):
    engine = Slurm(every=0.001, **options)
    return {result.name: result for result in engine.launch(jobs(queue.study, names))}


def finished(*names):
    return {name: JobResult(name, "finished") for name in names}


def test_runs_are_packed_and_submitted_once(queue):
    queue.outcome = finished(*"abcde")
    found = launch(queue, "abcde", pack=2, parallel=3, time=7, partition="long", memory=1.5, sbatch={"account": "x"})
    assert found == queue.outcome
    assert queue.submitted == [[["a", "b"], ["c", "d"], ["e"]]]
    asked = {"time": 7, "array_parallelism": 3, "partition": "long", "mem": "1536MB", "cpus_per_task": 1}
    assert asked.items() <= queue.parameters.items()
    assert queue.parameters["additional_parameters"] == {"account": "x", "requeue": True}


def test_what_is_under_way_is_found_again(queue):
    """The first call is killed after it has submitted: its generator is dropped."""
    running = Slurm(every=0.001, pack=2).launch(jobs(queue.study, "ab"))
    queue.outcome = finished("a", "b")
    next(running)
    del running
    assert launch(queue, "b") == finished("b")  # the study knows that a has ended
    assert len(queue.submitted) == 1


def test_the_run_that_kills_its_task_is_found_and_the_others_go_on(queue):
    queue.outcome = finished("a", "c")
    queue.outcome.pop("c")
    found = {}
    for result in Slurm(every=0.001, pack=3).launch(jobs(queue.study, "abc")):
        found[result.name] = result
        if "c" not in queue.outcome:
            queue.outcome["c"] = JobResult("c", "finished")  # alone it lives
    assert queue.submitted == [[["a", "b", "c"]], [["b"], ["c"]]]
    assert found["c"].status == "finished"
    assert "died twice, the second time alone: SLURM job 2_0 ended as FAILED" in found["b"].message
    assert fates.noted(queue.study)["b"] == found["b"]


def test_a_cancelled_run_has_failed_until_it_is_asked_for_again(queue, monkeypatch):
    monkeypatch.setattr(slurm_queue, "ended_as", lambda task: "CANCELLED")
    assert launch(queue, "a")["a"].message == "cancelled (SLURM job 1)"
    fates.forget(queue.study, "a")  # as --retry does
    queue.outcome = finished("a")
    assert launch(queue, "a") == finished("a")
    assert len(queue.submitted) == 2


def test_a_machine_that_fails_is_nobodys_fault(queue, monkeypatch):
    states = iter(["NODE_FAIL", "PREEMPTED", "NODE_FAIL"])

    def ended(task):
        state = next(states)
        if state == "PREEMPTED":
            queue.outcome = finished("a", "b")
        return state

    monkeypatch.setattr(slurm_queue, "ended_as", ended)
    assert launch(queue, "ab") == finished("a", "b")
    assert all(submitted == [["a", "b"]] or submitted == [["a"], ["b"]] for submitted in queue.submitted)


def test_an_old_result_does_not_end_a_new_run(queue):
    fates.note(queue.study, JobResult("a", "finished", folder="gone"))
    queue.outcome = {"a": JobResult("a", "finished", folder="new")}
    assert launch(queue, "a")["a"].folder == "new"


def test_what_slurm_prints_is_read(monkeypatch):
    printed = {
        "squeue": "bpgen-0-x|12_3|RUNNING\nbpgen-0-x|12_4|PENDING\nbpgen-1-y|13|COMPLETING\n",
        "scontrol": "JobId=12 ArrayJobId=12 JobState=OUT_OF_MEMORY Reason=x",
    }
    monkeypatch.setattr(slurm_queue, "_ask", lambda *command: printed.get(command[0]))
    x = slurm_queue.Submission("bpgen-0-x", [["a"]] * 5, job_id="12")
    y = slurm_queue.Submission("bpgen-1-y", [["b"]], job_id="13")
    states = slurm_queue.alive([x, y])
    assert states == {("bpgen-0-x", 3): "RUNNING", ("bpgen-0-x", 4): "PENDING", ("bpgen-1-y", 0): "COMPLETING"}
    first, second = slurm_queue.in_words([x, y], states)
    assert (first, second[:15]) == ("SLURM job 12: 1 pending, 1 running of 5 tasks", "SLURM job 13: 1")
    assert slurm_queue.ended_as(slurm_queue.Task(x, 3)) == "OUT_OF_MEMORY"
    printed.update(scontrol=None, sacct="CANCELLED by 0\n")
    assert slurm_queue.ended_as(slurm_queue.Task(x, 3)) == "CANCELLED"
    printed.clear()
    assert slurm_queue.alive([x]) is None
    assert slurm_queue.ended_as(slurm_queue.Task(x, 3)) == "UNKNOWN"
    assert (slurm_queue.Task(x, 3).id, slurm_queue.Task(y, 0).id) == ("12_3", "13")


def test_options_and_a_missing_slurm_are_said(monkeypatch, tmp_path):
    with pytest.raises(BpgenError, match=r"pack \(--engine.pack\) must be positive, got 0"):
        Slurm(pack=0)
    with pytest.raises(BpgenError, match=r"warning \(--engine.warning\) must not be negative"):
        Slurm(warning=-1)
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BpgenError, match="no SLURM here"):
        list(Slurm().launch(jobs(Path(tmp_path), "a")))
