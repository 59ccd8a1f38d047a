"""The claims of a study in words and numbers, and those of several side by side."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from bpgen.analysis.verdicts import judge
from bpgen.figures.study import study_figures
from bpgen.papers.claims import claims_section
from bpgen.papers.liu2022 import Liu2022
from bpgen.papers.side_by_side import overview
from bpgen.run.config import Config
from tests.analysis import planted

RULES = {"bptt": (0.03, 3.0, 1, 0, 1.0), "three_factor": (0.10, 4.5, 1, 0, 0.05)}


def results(folder, task, n):
    folder.mkdir()
    table = planted.study(np.random.default_rng(0), n, RULES, settings=((1.0, task),))
    run = SimpleNamespace(config=Config(measurements={"sharpness": {"block": "W_rec", "samples": 512}}))
    return SimpleNamespace(table=table, folder=folder, runs=[run])


def test_what_is_planted_is_written(tmp_path):
    one = results(tmp_path / "one", "digits", 12)
    text = "\n".join(claims_section(Liu2022(), one.table, one.folder, one.runs))
    (line,) = [row for row in text.split("## Would")[0].splitlines() if "larger gap than bptt (noisy" in row]
    assert "supported" in line.split("|")[4]
    assert "points" in line.split("|")[5]
    assert "W_rec on 512 training samples" in text
    written = pd.read_csv(tmp_path / "one" / "verdicts.csv")
    claimed = written[written["statement"].str.contains("larger gap") & written["statement"].str.contains("noisy")]
    assert claimed["verdict"].tolist() == ["supported"]
    assert 5 < claimed["effect"].item() < 9  # 7 points were planted


def test_settings_stand_side_by_side(tmp_path):
    studies = [results(tmp_path / "one", "digits", 12), results(tmp_path / "two", "romo", 3)]
    for one in studies:
        claims_section(Liu2022(), one.table, one.folder)
    text = overview(Liu2022(), [one.folder for one in studies]).split("\n\n")[2]
    rows = [[cell.strip() for cell in row.split("|")] for row in text.splitlines() if row.startswith("|")]
    assert rows[0][1:-1] == ["claim", "statement", "digits, alpha=1, n = 12", "romo, alpha=1, n = 3"]
    (gap,) = [row for row in rows if row[2].startswith("three_factor has a larger gap than bptt (noisy")]
    assert gap[3].startswith("supported")
    assert "of 12" in gap[3]  # some never reach the matched loss
    assert gap[4].endswith("n = 3")
    assert [row[1] for row in rows[2:]] == sorted(row[1] for row in rows[2:])


def test_a_study_whose_losses_come_down_to_zero_is_reported(tmp_path):
    one = results(tmp_path / "one", "digits", 6)
    one.table.loc[one.table["step"] >= 800, "train/loss"] = 0.0
    assert "three_factor is sharper than bptt" in "\n".join(claims_section(Liu2022(), one.table, one.folder, one.runs))
    assert set(study_figures(one.table)) >= {"gap_by_rule", "sharpness_against_loss"}


def test_controls_of_the_step_are_judged_against_what_they_match():
    """Short steps of BPTT against the rule, long steps of the rule against BPTT; what is planted is found."""
    flat, sharp = (0.05, 3.0, 1, 0, 1.0), (0.05, 4.5, 1, 0, 0.1)
    rules = {"bptt": flat, "bptt, half the rate": sharp, "three_factor": sharp, "norm_matched": flat, "unscaled": flat}
    table = planted.study(np.random.default_rng(0), 60, rules)
    said = {v.check.text: v.decision for v in judge(Liu2022().checks(table)) if "as sharp as" in v.check.text}
    assert {text: decision == "not supported" for text, decision in said.items()} == {
        "norm_matched is as sharp as three_factor at matched training loss": True,
        "bptt, half the rate is as sharp as three_factor at matched training loss": False,
        "unscaled is as sharp as bptt at matched training loss": False,
    }
