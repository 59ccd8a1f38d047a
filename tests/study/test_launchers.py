"""A stranger's launcher works from the command line: one file and one line, its options from its constructor."""

import pytest
import yaml

from bpgen.cli import main

SERIAL = '''
"""Everything in this process, one after the other."""
from pathlib import Path
from bpgen.study.launchers import Launcher, execute

class Serial(Launcher):
    """In order.

    Args:
        diary: a file with the names of what was done.
        first: how many jobs at most.
    """

    def __init__(self, diary: str, first: int = 100):
        self.diary, self.first = Path(diary), first

    def launch(self, jobs):
        for job in jobs[: self.first]:
            with self.diary.open("a") as file:
                file.write(f"{job.config['rule']['name']} {job.config['seed']}\\n")
            yield execute(job)
'''
PLAN = {
    "base": "digits",
    "axes": {"rule": ["bptt", "rflo"]},
    "seeds": 2,
    "set": {"trainer.max_steps": 2, "network.n_rec": 8, "evaluation.every": 2, "sharpness.max_products": 4},
    "measure": {"sharpness": {"samples": 16}, "alignment": {"samples": 16}, "gap": {"train_samples": 32}},
}


@pytest.fixture
def command(install, tmp_path, monkeypatch):
    install("engines", {"serial": "serial_engine:Serial"}, "bpgen.launchers", serial_engine=SERIAL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(PLAN))
    return lambda *options: main(["study", "p.yaml", "--engine", "serial", "--out", "s", *options])


def test_a_strangers_launcher_does_the_runs(command, tmp_path, capsys):
    assert command("--engine.diary", "diary", "--engine.first=3") == 0
    assert (tmp_path / "diary").read_text().splitlines() == ["bptt 0", "rflo 0", "bptt 1"]
    assert "3 finished" in capsys.readouterr().out
    assert command("--engine.diary", "diary", "--seeds", "2") == 0
    assert (tmp_path / "diary").read_text().splitlines()[3:] == ["rflo 1"]
    assert "4 finished; 3 of them done by an earlier call" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "needs --engine.diary"),
        (["--engine.diary", "d", "--engine.first", "x"], "first must be a whole number, got 'x'"),
        (["--engine.diary", "d", "--engine.last", "x"], "unrecognized arguments: --engine.last"),
        (["--engine.diary", "d", "--jobs", "2"], "does not take --jobs"),
        (["--engine", "seriel"], "Did you mean 'serial'?"),
        (["--engine", "local", "--engine.processes", "0"], "must be positive, got 0"),
    ],
)
def test_bad_engines(command, options, says, capsys):
    assert command(*options) == 2
    assert says in capsys.readouterr().err


def test_help_shows_the_options_of_the_chosen_engine(command, capsys):
    with pytest.raises(SystemExit):
        command("--help")
    text = capsys.readouterr().out
    assert "a file with the names of what was done. (required)" in " ".join(text.split())
    assert "serial" in text
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    assert "--engine.processes" in capsys.readouterr().out
