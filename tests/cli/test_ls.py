"""What `bpgen ls` lists."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from bpgen.cli import main
from tests.study import folders


@pytest.fixture
def place(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    folders.study(tmp_path / "studies" / "leak", rng, name="leak")
    folders.run(tmp_path / "runs", rng, rule={"name": "rflo"}, seed=7, status="diverged")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_studies_are_a_line_each_and_runs_a_row(place, capsys):
    assert main(["ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("study leak  6 finished of 6 planned, ")
    assert lines[0].endswith("studies/leak")
    assert lines[2].split()[:4] == ["status", "rule", "task", "seed"]
    assert lines[3].split()[:5] == ["diverged", "rflo", "digits", "7", "50"]
    assert lines[3].endswith("runs/digits-rflo-seed7")
    assert len(lines) == 4


def test_a_study_that_is_named_shows_its_runs(place, capsys):
    assert main(["ls", "studies/leak"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 9
    assert main(["ls", "studies/leak/runs/bptt"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["ls", "--all"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_the_members_of_a_sweep_are_told_apart(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for n, lr in ((32, 0.01), (64, 0.03)):
        folders.run(tmp_path, rng, rule={"name": "rflo"}, network={"n_rec": n}, optimizer={"lr": lr})
    folders.run(tmp_path, rng, rule={"name": "bptt"}, network={"n_rec": 16})
    assert main(["ls", str(tmp_path)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[-2:] == ["options", "run"]
    assert ["n_rec=32, lr=0.01" in row for row in rows] == [False, True, False]
    assert ["n_rec=64, lr=0.03" in row for row in rows] == [False, False, True]
    assert "=" not in rows[0]  # the only one of its rule


def test_json_is_whole(place, capsys):
    assert main(["ls", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [study["counts"] for study in found["studies"]] == [{"finished": 6}]
    assert len(found["runs"]) == 7
    assert all(run["last"]["step"] == 50 for run in found["runs"])


def test_one_table_of_everything(place, capsys):
    assert main(["ls", "--table", "all.csv"]) == 0
    assert capsys.readouterr().out == "all.csv: 42 evaluations of 7 runs\n"
    assert len(pd.read_csv("all.csv")) == 42
    assert main(["ls", "--table", "all.txt"]) == 2
    assert main(["ls", "nowhere"]) == 2


def test_an_empty_place_says_what_to_do(tmp_path, capsys):
    assert main(["ls", str(tmp_path)]) == 0
    assert "bpgen fit" in capsys.readouterr().out


def test_it_answers_at_once(place):
    """Nothing heavy is imported, so that listing a thousand runs takes the time of reading them."""
    code = "import sys; from bpgen.cli import main; main(['ls']); print({'torch', 'pandas'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=place).stdout
    assert out.splitlines()[-1] == "set()"
