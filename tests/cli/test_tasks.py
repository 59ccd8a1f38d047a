"""`bpgen tasks NAME`: what a task says of itself, and its picture."""

import numpy as np
import pytest

from bpgen.cli import main
from bpgen.registry import find, plugins
from bpgen.tasks.picture import picture

OFFLINE = [name for name in plugins("task") if name not in ("seqmnist", "npz", "spike_events")]


def test_a_task_says_what_it_asks_with_source_and_options(capsys):
    assert main(["tasks", "cue-accumulation"]) == 0
    text = capsys.readouterr().out
    assert "Bellec et al. (2020)" in text
    assert "--task.cues int (default: 7)" in text
    assert "--task.n_train int (default: 2000)" in text  # handed on to the base class
    assert "next: bpgen fit --task cue_accumulation" in text
    assert main(["tasks", "npz"]) == 0
    assert "--task.file str (required)" in capsys.readouterr().out


@pytest.mark.parametrize("name", OFFLINE)
def test_every_panel_of_a_picture_has_its_axis_named(name):
    figure = picture(find("task", name).load()(), name)
    assert len(figure.axes) >= 3
    for ax in figure.axes:
        row = ax.get_subplotspec().rowspan.start
        assert ax.has_data()
        assert ax.get_xlabel() or row < 2
    assert all("(" in ax.get_ylabel() for ax in figure.axes if ax.get_subplotspec().colspan.start == 0)


def test_noisy_spikes_are_as_black_as_the_others():
    """Also where two fall into one step."""
    figure = picture(find("task", "encoded").load()(), "encoded")
    assert {ax.images[0].get_clim() for ax in figure.axes if ax.images} == {(0, 1)}


def test_counts_of_spikes_are_not_joined_by_lines(tmp_path):
    random = np.random.default_rng(0)
    np.savez(tmp_path / "counts.npz", x=random.poisson(0.7, (12, 40, 3)), y=random.integers(2, size=40))
    top = picture(find("task", "npz").make(file=str(tmp_path / "counts.npz")), "counts").axes[0]
    assert top.images
    assert not top.lines


def test_a_picture_is_drawn_with_the_options_given(tmp_path, capsys):
    file = tmp_path / "a.png"
    assert main(["tasks", "adding", "--plot", str(file), "--task.length", "7"]) == 0
    assert file.stat().st_size > 10_000
    assert str(file) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tasks", "addin"], "Did you mean 'adding'?"),
        (["tasks", "--plot"], "need a task"),
        (["tasks", "adding", "--task.length", "7"], "need --plot"),
        (["tasks", "adding", "--plot", "no/such/folder/a.png"], "No such file"),
        (["tasks", "adding", "--plot", "a.xyz"], "not supported"),
        (["tasks", "adding", "--plot", "a.png", "--task.lenght", "7"], "Did you mean '--task.length'"),
        (["tasks", "npz", "--plot", "a.png"], "file"),
    ],
)
def test_bad_input_is_named(argv, message, capsys):
    assert main(argv) == 2
    assert message in capsys.readouterr().err
