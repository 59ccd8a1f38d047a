"""What a run shows of itself in a real Jupyter kernel: one bar, no pile of lines."""

import sys

import pytest

from bpgen.run import screen

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FIT = """\
import bpgen
SMALL = {"sharpness": {"samples": 16, "max_products": 4}, "alignment": {"samples": 16}, "gap": {"train_samples": 32}}
def fit(**options):
    return bpgen.fit(network={"n_rec": 8}, wandb="off", threads=1, out="runs", draw=False, **SMALL, **options)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own machinery
def test_a_notebook_has_one_bar(tmp_path):
    few = "trainer={'max_steps': 9}"
    often = "fit(trainer={'max_steps': 60}, evaluation={'every': 3})"
    cells = [FIT, often, f"fit(quiet=True, {few})", f"fit(optimizer={{'lr': 1e9}}, {few})"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, shown, quiet, diverged = (cell.outputs for cell in notebook.cells)
    text = "".join(output.text for output in shown if output.output_type == "stream")
    assert len(text.splitlines()) < 10  # what is trained and measured, of a run with twenty evaluations
    assert "step 3:" not in text
    (bar,) = [output.data["text/plain"] for output in shown if output.output_type == "display_data"]
    assert "60/60 steps" in bar
    assert "sharpness" in bar
    assert not set("\r\n\x1b") & set(bar)
    assert [output.output_type for output in quiet] == ["execute_result"]
    assert sum(output.output_type == "display_data" for output in diverged) == 1
    assert "diverged" in diverged[-1].data["text/plain"]


@pytest.mark.parametrize("kernel", ["", "4711"])
def test_a_command_below_a_cell_prints_lines(monkeypatch, kernel):
    """`!bpgen fit` runs at a terminal that the kernel made up, where nothing that is printed can be taken back."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    assert screen.at_a_terminal()
    if kernel:
        monkeypatch.setenv("JPY_PARENT_PID", kernel)
        assert not screen.at_a_terminal()
    assert not screen.in_notebook()
