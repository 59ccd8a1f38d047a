"""Run folders as one typed table: the same values as read one by one, whatever state the folders are in."""

import time

import numpy as np
import pandas as pd
import pytest

import bpgen.study
from bpgen.analysis.settings import settings
from bpgen.cli.options import resolve
from bpgen.errors import BpgenError
from bpgen.run.folder import RunFolder
from bpgen.study.catalogue import entries, studies
from bpgen.study.loading import write_table
from tests.study import folders


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_every_value_is_the_one_that_the_run_wrote(tmp_path, rng):
    """Read the slow way, run by run, as the oracle; columns that only some runs have are missing in the others."""
    one = folders.run(tmp_path, rng, rule={"name": "rflo", "scale": 0.5}, seed=3)
    two = folders.run(tmp_path, rng, rule={"name": "bptt"}, neuron={"name": "leaky", "alpha": 0.5}, evaluations=2)
    two.append({"epoch": 9.0, "step": 90, "lr": 0.1, "train/loss": float("nan"), "sharpness/residual": float("inf")})
    table = bpgen.study.load(tmp_path)
    for folder in (one, two):
        own = table[table["run"] == str(folder.path)]
        rows = folder.rows()
        assert len(own) == len(rows) > 0
        for (_, found), row in zip(own.iterrows(), rows, strict=True):
            assert all(found[name] == value or np.isnan(value) for name, value in row.items())
            assert {name for name in row if np.isnan(row[name])} <= set(found.index[found.isna()])
        config = folder.config()
        assert set(own["rule"]) == {config.rule.name}
        assert set(own["seed"]) == {config.seed}
    assert table.groupby("run")["alpha"].first().dropna().to_dict() == {str(two.path): 0.5}
    assert set(table.loc[table["run"] == str(one.path), "rule.scale"]) == {0.5}
    assert table.loc[table["run"] == str(two.path), "rule.scale"].isna().all()


def test_types(tmp_path, rng):
    folders.run(tmp_path, rng, rule={"name": "rflo", "scale": 1}, tracking={"tags": ["a"]}, network={"dale": True})
    folders.run(tmp_path, rng, rule={"name": "bptt"}, network={"dale": False, "n_rec": 8}, loss={"l2": {"W_rec": 1.0}})
    table = bpgen.study.load(tmp_path)
    assert table["seed"].dtype == table["step"].dtype == "int64"
    assert table["train/loss"].dtype == "float64"
    assert table["network.dale"].dtype == "bool"
    assert table["network.n_rec"].dtype == "Int64"
    assert isinstance(table["rule"].iloc[0], str)
    assert '{"W_rec": 1.0}' in set(table["loss.l2"])  # a mixture of numbers and mappings is text
    assert not [column for column in table if table[column].map(type).isin([list, dict]).any()]


def test_a_row_per_run_has_its_last_evaluation_and_its_fate(tmp_path, rng):
    folders.run(tmp_path, rng, seed=0)
    folders.run(tmp_path, rng, seed=1, status="diverged", message="diverged: loss is nan", evaluations=2)
    folders.run(tmp_path, rng, seed=2, status="unfinished", evaluations=0)
    runs = bpgen.study.load(tmp_path, per="run")
    assert runs["status"].tolist() == ["finished", "diverged", "unfinished"]
    assert runs["reason"].tolist() == ["", "loss is nan", ""]
    assert runs["step"].tolist()[:2] == [50, 10]
    assert np.isnan(runs["step"].iloc[2])
    assert runs["seconds"].tolist()[:2] == [2.5, 2.5]
    assert runs["bpgen"].iloc[0] == "0.1.0"
    assert len(bpgen.study.load(tmp_path)) == 8  # a run without an evaluation has no row


def test_damaged_and_cut_folders_stop_nobody(tmp_path, rng):
    good = folders.run(tmp_path, rng, seed=0)
    cut = folders.run(tmp_path, rng, seed=1, status="unfinished")
    with cut.metrics_file.open("a") as file:
        file.write("3.0,60,0.1,0.0")  # killed while it wrote
    bad = folders.run(tmp_path, rng, seed=2)
    (bad.path / "summary.json").write_text("{")
    worse = folders.run(tmp_path, rng, seed=3)
    (worse.path / "config.yaml").write_text("rule: [")
    runs = bpgen.study.load(tmp_path, per="run").set_index("run")
    assert runs["status"].to_dict() == {
        str(good.path): "finished",
        str(cut.path): "unfinished",
        str(bad.path): "damaged",
        str(worse.path): "damaged",
    }
    assert runs.loc[str(cut.path), "step"] == 50
    assert "summary.json" in runs.loc[str(bad.path), "reason"]
    assert "config.yaml" in runs.loc[str(worse.path), "reason"]


def test_a_study_names_its_conditions_and_keeps_its_tuning_apart(tmp_path, rng):
    study = folders.study(tmp_path / "s", rng, name="leak")
    folders.run(study / "runs" / "tuning" / "bptt" / "lr=0.1", rng, seed=1000)
    table = bpgen.study.load(tmp_path)
    assert set(table["study"]) == {"leak"}
    assert set(table["condition"]) == {"bptt", "rflo"}
    assert set(bpgen.study.load(tmp_path, tuning=True, per="run")["stage"]) == {"", "tuning"}
    assert [s.name for s in studies([tmp_path])] == ["leak"]
    part = bpgen.study.load(study / "runs" / "rflo")  # a part of a study still belongs to it
    assert set(part["study"]) == {"leak"}
    assert set(part["condition"]) == {"rflo"}
    (setting,) = settings(table)
    assert len(setting.matched()) == 6  # what statistics want is there


def test_a_condition_is_found_by_its_folder_before_a_run_has_a_summary(tmp_path, rng):
    study = folders.study(tmp_path / "s", rng, rules=("bptt",), status="unfinished")
    (study / "runs" / "bptt").rename(study / "runs" / "weak_bptt")
    (study / "runs.csv").write_text('condition,rule,config_hash\n"weak, bptt",strong name,x\n')
    table = bpgen.study.load(study)
    assert set(table["condition"]) == {"weak, bptt"}
    assert set(table["rule"]) == {"strong name"}
    (study / "runs.csv").unlink()
    assert set(bpgen.study.load(study)["condition"]) == {"weak_bptt"}


def test_folders_that_overlap_are_read_once(tmp_path, rng):
    folder = folders.run(tmp_path, rng)
    assert len(list(entries([tmp_path, folder.path, tmp_path]))) == 1


def test_bad_input_is_said(tmp_path):
    with pytest.raises(BpgenError, match="no folder"):
        bpgen.study.load(tmp_path / "nowhere")
    with pytest.raises(BpgenError, match="no run in"):
        bpgen.study.load(tmp_path)
    with pytest.raises(BpgenError, match=r"\.csv or \.parquet"):
        write_table(pd.DataFrame(), tmp_path / "a.xlsx")


def test_files_hold_the_table(tmp_path, rng):
    folders.study(tmp_path / "s", rng)
    table = bpgen.study.load(tmp_path)
    write_table(table, tmp_path / "a.csv")
    again = pd.read_csv(tmp_path / "a.csv")
    assert list(again) == list(table)
    assert np.array_equal(again["train/loss"], table["train/loss"])
    pytest.importorskip("pyarrow", reason="parquet is an extra: pip install bpgen[parquet]")
    write_table(table, tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), table)


@pytest.mark.slow
def test_a_thousand_runs(tmp_path, rng, capsys):
    """10 s are the promise; the seconds are printed."""
    configs = [resolve([f"--rule={rule}"]).plain() for rule in ("bptt", "rflo")]
    for seed in range(1000):
        folders.run(tmp_path, rng, evaluations=20, **{**configs[seed % 2], "seed": seed})
    started = time.perf_counter()
    table = bpgen.study.load(tmp_path)
    seconds = time.perf_counter() - started
    with capsys.disabled():
        print(f"\n1,000 folders, {len(table)} rows, {table.shape[1]} columns: {seconds:.1f} s")
    assert len(table) == 20_000
    assert len(RunFolder(table["run"].iloc[-1]).rows()) == 20
