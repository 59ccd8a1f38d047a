"""Seeds are added until decided: which runs a study does at its looks, and what it remembers of them."""

from collections import Counter

import pandas as pd
import pytest
import yaml

from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.study.plan import read_plan
from bpgen.study.study import StudyResults
from bpgen.study.until import run_until_decided

PLAN = {
    "base": "digits",
    "axes": {"rule": ["bptt", "rflo"]},
    "set": {"trainer.max_steps": 2, "network.n_rec": 8, "evaluation.every": 2, "sharpness.max_products": 4},
    "measure": {"sharpness": {"samples": 16}, "alignment": {"samples": 16}, "gap": {"train_samples": 32}},
}


class Recorded:
    """A study of three conditions whose runs cost nothing."""

    def __init__(self, plan):
        self.plan, self.seeds_of, self.ran = plan, {}, []
        self.conditions = [type("C", (), {"label": label}) for label in "abc"]

    def run(self, launcher, progress, retry):
        self.ran.append(dict(self.seeds_of))
        return StudyResults(self.plan, None, [], [], pd.DataFrame({"look": [len(self.ran)]}))


def test_each_condition_gets_seeds_until_it_is_decided(capsys):
    needs = {1: set("abc"), 2: set("ab"), 3: set("abc"), 4: set()}  # what was let go does not come back
    study = Recorded(read_plan(PLAN, "p").until_decided(64))
    done = run_until_decided(study, lambda table: needs[table["look"].iloc[0]], None, None)
    a, b, c = ([looks[label] for looks in study.ran] for label in "abc")
    assert a == b == [5, 10, 20, 40]
    assert c == [5, 10, 10, 10]
    assert done.plan.seeds == list(range(40))
    assert "look 3 of 5: 20 seeds of a, b" in capsys.readouterr().out


def test_looks_are_part_of_the_plan_and_of_its_hash():
    plan = read_plan(PLAN, "p")
    assert plan.looks == []
    assert "looks" not in plan.content()
    looks = plan.until_decided(12)
    assert looks.content()["looks"] == [5, 10, 12]
    again = read_plan(looks.content(), "p")
    assert (again.looks, again.seeds) == ([5, 10, 12], list(range(12)))
    for wrong in ([5, 5], [0, 2], ["5"], [9, 3]):
        with pytest.raises(BpgenError, match="rising numbers"):
            read_plan({**PLAN, "looks": wrong}, "p")


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(PLAN))
    return lambda *options: main(["study", "p.yaml", "--out", "s", "--jobs", "1", *options])


def test_a_study_runs_to_its_last_look_and_says_what_it_spent(command, tmp_path, capsys):
    """Two steps of training decide nothing: all seeds are run, in two looks."""
    looks = ["--until", "decided", "--max-seeds", "3", "--set", "seeds=2"]
    assert command(*looks) == 2
    assert "give --max-seeds instead" in capsys.readouterr().err
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({**PLAN, "looks": [1, 2]}))
    assert command("--commands") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2  # the first look's
    assert command() == 0
    out = capsys.readouterr().out
    assert "look 2 of 2: 2 seeds of bptt, rflo" in out
    table = pd.read_csv(tmp_path / "s" / "table.csv")
    assert Counter(zip(table["seed"], table["look"], strict=True)).keys() == {(0, 1), (1, 2)}
    assert set(table["looks"]) == {"1 2"}
    summary = (tmp_path / "s" / "summary.md").read_text()
    assert "2 of 2 looks, planned at 1, 2 seeds" in summary
    assert "spent 2.5 of 2.5 %" in summary
    capsys.readouterr()
    assert command("--status") == 0
    assert command("--commands") == 0
    assert "nothing left to run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--max-seeds", "9"], "--max-seeds needs --until decided"),
        (["--until", "decided", "--max-seeds", "1"], "--max-seeds must be 2 or more"),
        (["--until", "decided", "--seeds", "4"], "give --max-seeds instead of --seeds"),
    ],
)
def test_bad_looks(command, options, says, capsys):
    assert command(*options) == 2
    assert says in capsys.readouterr().err
