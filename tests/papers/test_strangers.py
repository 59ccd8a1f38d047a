"""A stranger's paper is one file and one line: its own plan, check, figure and style, from the command line."""

import pandas as pd
import pytest

from bpgen.cli import main

PAPER = '''
"""Smith 2030: reservoirs stay flat."""
from bpgen.analysis.matching import LOWEST_COMMON
from bpgen.analysis.settings import SHARPNESS, by_rule, settings
from bpgen.analysis.statistics import paired
from bpgen.analysis.verdicts import Check
from bpgen.figures.style import Style
from bpgen.papers import Claim, Experiment, Paper, Size

PLAN = {
    "name": "flat",
    "question": "Do reservoirs stay flat?",
    "base": "digits",
    "axes": {"rule": ["bptt", "readout_only"]},
    "seeds": 3,
    "set": {"trainer.max_steps": 2, "network.n_rec": 8, "evaluation.every": 1, "sharpness.max_products": 4},
    "measure": {"sharpness": {"samples": 16}, "alignment": {"samples": 16}, "gap": {"train_samples": 32}},
}

def start(ax, setting, style_of):
    for condition in setting.conditions:
        ax.plot(setting.of(condition)[SHARPNESS], label=style_of[condition].label)
    return ax

class Smith2030(Paper):
    title = "Reservoirs"
    citation = "Smith 2030"
    claims = {"x": Claim("reservoirs stay flat", "a curvature of zero")}
    remark = "Two steps are not many."
    sizes = {"default": Size([Experiment(PLAN, "task.n_train")], "seconds")}
    styles = {"readout_only": Style("#000000", "o", "a reservoir")}
    figures = {"start": start}

    def checks(self, table, level=LOWEST_COMMON):
        return [
            Check("x", s.name, "flatter than bptt", paired(s.last(), SHARPNESS, "bptt", "readout_only", log=True),
                  "larger", 0.1, "ratio", "start")
            for s in settings(by_rule(table), level)
        ]
'''


@pytest.fixture
def folder(install, tmp_path, monkeypatch):
    install("smith", {"smith2030": "smith_paper:Smith2030"}, "bpgen.papers", smith_paper=PAPER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_papers_are_listed(folder, capsys):
    assert main(["reproduce"]) == 0
    text = capsys.readouterr().out
    assert "smith2030  smith 1.2" in " ".join(text.split()).replace("smith2030 ", "smith2030  ")
    assert "Smith 2030: reservoirs stay flat." in text
    assert "Liu et al. 2022: local rules" in text


def test_help_on_a_paper_says_what_it_runs_and_how_long(folder, capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "smith2030", "--help"])
    text = capsys.readouterr().out
    assert "smith2030: Reservoirs" in text
    assert "seconds" in text


def test_a_strangers_paper_is_reproduced(folder, capsys):
    assert main(["reproduce", "smith2030", "--jobs", "1"]) == 0
    text = capsys.readouterr().out
    for part in ("- (x) reservoirs stay flat; reported: a curvature of zero", "Two steps are not many.", "| (x) "):
        assert part in text
    study = folder / "studies" / "flat"
    verdicts = pd.read_csv(study / "verdicts.csv")
    assert verdicts[["claim", "statement", "n"]].to_numpy().tolist() == [["x", "flatter than bptt", 3]]
    assert (study / "figures" / "start.png").is_file()
    assert (study / "figures" / "gap_by_rule.png").is_file()


def test_a_size_it_does_not_have(folder, capsys):
    assert main(["reproduce", "smith2030", "--full"]) == 2
    assert "no studies for --full: it has them for no option" in capsys.readouterr().err
