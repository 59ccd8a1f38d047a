"""`bpgen plot`: the lines of a figure are the numbers of the runs."""

import numpy as np
import pytest

from bpgen.cli import main
from bpgen.figures.together import together
from bpgen.study.loading import load
from tests.study import folders


@pytest.fixture
def place(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for rule in ("bptt", "rflo"):
        for seed in (0, 1):
            folders.run(tmp_path / "runs", rng, rule={"name": rule}, seed=seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_line_a_run_with_its_numbers(place):
    table = load(place)
    figure = together(table.assign(label=table["condition"]))
    panels = {ax.get_title(): ax for ax in figure.axes}
    assert set(panels) == {
        "Test accuracy",
        "Training loss",
        "Gap, noisy test inputs",
        "Sharpness",
        "Alignment with BPTT",
    }
    lines = panels["Test accuracy"].get_lines()
    drawn = sorted(tuple(line.get_ydata()) for line in lines)
    assert drawn == sorted(tuple(100 * own["test/accuracy"]) for _, own in table.groupby("run"))
    assert len({line.get_color() for line in lines}) == 2
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 4
    assert panels["Sharpness"].get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bptt", "rflo"]


def test_the_command(place, capsys):
    assert main(["plot", "runs", "--columns", "train/loss,lr"]) == 0
    assert "4 runs" in capsys.readouterr().out
    assert (place / "runs.png").stat().st_size > 5000
    assert main(["plot", "runs", "--columns", "train/los"]) == 2
    assert "Did you mean 'train/loss'" in capsys.readouterr().err
    assert main(["plot", "runs", "--out", "a.gif"]) == 2
    assert main(["plot", "nowhere"]) == 2
