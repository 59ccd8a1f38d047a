"""Every notebook runs from top to bottom in a fresh kernel, and says in its first line which question it asks."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own machinery
@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * ("cluster" in p.stem)) for p in NOTEBOOKS]
)
def test_it_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source.startswith("# ")
    assert "?" in notebook.cells[0].source.splitlines()[0]
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any(cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code")


def test_there_is_one_for_each_door_and_the_readme_links_to_it():
    doors = {"rule", "neuron", "task", "measurement", "paper"}
    guides = {"first_run", "own_training_script", "does_the_leak_matter", "curvature_by_hand", "from_run_to_cluster"}
    assert guides | {f"write_a_{door}" for door in doors} == {path.stem for path in NOTEBOOKS}
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for guide in ("own_training_script", "from_run_to_cluster", *(f"write_a_{door}" for door in doors)):
        assert f"notebooks/{guide}.ipynb" in readme


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_is_saved_with_its_outputs_small_and_without_places_of_one_machine(path):
    notebook, text = nbformat.read(path, as_version=4), path.read_text(encoding="utf-8")
    assert path.stat().st_size < 150_000
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    for place in ("/home/", "/Users/", "/root/", "/tmp/", "site-packages"):
        assert place not in text
