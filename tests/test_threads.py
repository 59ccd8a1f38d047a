"""The number of threads: one for small products, as many as are idle for large ones, and the user's word before all."""

import json
import os
import subprocess
import sys

import pytest
import torch

from bpgen import threads
from bpgen.cli import main
from bpgen.threads import LARGE, choose, using
from tests.cli.test_fit import SMALL

UNSAID = [option for option in SMALL if option not in ("--threads", "1")]


@pytest.fixture
def machine(monkeypatch):
    """Four processors, of which others keep some busy; nobody has set OMP_NUM_THREADS."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "processors", lambda: 4)
    return lambda busy: monkeypatch.setattr(threads, "others_busy", lambda: busy)


@pytest.mark.parametrize(("busy", "number"), [(0.0, 4), (0.4, 4), (0.6, 3), (1.7, 2), (3.0, 1), (9.0, 1)])
def test_large_products_take_what_is_idle_and_small_ones_one_thread(machine, busy, number):
    machine(busy)
    assert choose(LARGE).number == number
    assert choose(LARGE - 1).number == 1


def test_the_number_holds_inside_and_is_given_back_whatever_happens(machine):
    machine(0.0)
    before = torch.get_num_threads()
    with using(None, LARGE) as chosen:
        assert (chosen.number, torch.get_num_threads()) == (4, 4)
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), using(4, LARGE):
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == before
    with using(3, LARGE) as chosen:
        assert (chosen, torch.get_num_threads()) == (None, 3)


def test_a_number_in_the_environment_is_left_alone(machine, monkeypatch):
    machine(0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    with using(None, LARGE) as chosen:
        assert (chosen, torch.get_num_threads()) == (None, before)


def test_the_work_of_others_is_seen_and_ones_own_is_not():
    """On a machine of any load: one process that works must be seen, and one's own work taken for nobody's."""
    began, later = threads._Clock(0.0, 100.0, 1.0), threads._Clock(10.0, 115.0, 6.0)  # 15 s of work, 5 s of it ours
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "_began", [began])
        patch.setattr(threads, "_now", lambda: later)
        assert threads.others_busy() == pytest.approx(1.0)
    now = threads._now()
    assert now.busy == -1 or now.busy > now.own > 0


@pytest.mark.parametrize(("given", "kept"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(given, kept):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    program = "import os, sys; from bpgen.cli import main; main(['plugins', 'nothing']); "
    program += "print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == kept


def test_a_run_says_its_choice_and_a_continued_one_keeps_it(machine, tmp_path, capsys, monkeypatch):
    machine(2.0)
    monkeypatch.setattr(threads, "LARGE", 1)
    before = torch.get_num_threads()
    assert main(["fit", *UNSAID, "--out", str(tmp_path)]) == 0
    assert "threads: 2 (2 of 4 processors are idle); --threads N decides otherwise" in capsys.readouterr().out
    (run,) = tmp_path.iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["threads"], torch.get_num_threads()) == (2, before)
    assert "threads: null" in (run / "config.yaml").read_text()  # a choice is no option: the run keeps its name
    machine(0.0)
    (run / "summary.json").unlink()
    assert main(["fit", "--resume", str(run)]) == 0
    assert "threads:" not in capsys.readouterr().out
    assert json.loads((run / "summary.json").read_text())["threads"] == 2
    assert main(["sharpness", str(run), "--samples", "8"]) == 0
    assert "threads: 4" in capsys.readouterr().err
    assert main(["sharpness", str(run), "--samples", "8", "--threads", "1"]) == 0
    assert "threads" not in capsys.readouterr().err
    assert main(["stability", str(run), "--samples", "8", "--threads", "0"]) == 2
    assert "--threads must be from 1 to 512" in capsys.readouterr().err
