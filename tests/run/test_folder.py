"""The run folder: never overwritten, readable by others, and continued without a trace."""

import errno
import json
import os

import pytest

from bpgen import durable
from bpgen.errors import BpgenError
from bpgen.network import Network
from bpgen.neurons import Leaky
from bpgen.rules import load_rule
from bpgen.run.config import Config, config_hash
from bpgen.run.files import read_config
from bpgen.run.folder import RunFolder
from bpgen.run.replay import load_run


def new(out):
    return RunFolder.create(Config(out=str(out)))


def test_an_existing_run_is_never_overwritten(tmp_path):
    names = [new(tmp_path).path.name for _ in range(3)]
    assert names == ["digits-rflo-seed0", "digits-rflo-seed0-2", "digits-rflo-seed0-3"]


def test_rows_keep_every_column_and_full_precision(tmp_path):
    folder = new(tmp_path)
    columns = ["epoch", "step", "sharpness/lambda_max", "train/loss"]
    folder.append({"epoch": 0.0, "step": 0, "train/loss": 1 / 3, "extra": float("nan")}, columns)
    folder.append({"epoch": 1.0, "step": 10, "train/loss": 0.1})
    assert folder.columns() == [*columns, "extra"]
    first, second = folder.rows()
    assert first["train/loss"] == 1 / 3
    assert first["extra"] != first["extra"]
    assert "extra" not in second
    assert second["step"] == 10


def test_what_was_measured_after_the_checkpoint_is_forgotten(tmp_path):
    folder = new(tmp_path)
    for step in (0, 10, 20):
        folder.append({"epoch": step / 10, "step": step})
        (folder.path / "weights" / f"step{step:08d}.pt").touch()
    with folder.metrics_file.open("a") as file:
        file.write("3.0,3")  # the write was cut off
    assert folder.go_back_to(10, {}) == []
    assert [row["step"] for row in folder.rows()] == [0, 10]
    assert list(folder.weights()) == [0, 10]


def test_a_summary_is_valid_json_whatever_was_measured(tmp_path):
    folder = new(tmp_path)
    folder.write_summary({"status": "diverged", "last": {"train/loss": float("inf")}})
    assert json.loads((folder.path / "summary.json").read_text())["last"] == {"train/loss": None}


def test_config_round_trip_and_other_formats(tmp_path):
    file = tmp_path / "config.yaml"
    config = Config.of({"rule": {"name": "rflo", "scale": 1e-7}, "seed": 3})
    file.write_text(config.yaml())
    assert read_config(file) == config.plain()
    assert Config.of(read_config(file)) == config
    for text, message in (
        ("format: 2\nrule: rflo", "format 2"),
        ("rule: [rflo", "not valid YAML at line"),
        ("- rflo", "mapping"),
    ):
        file.write_text(text)
        with pytest.raises(BpgenError, match=message):
            read_config(file)
    with pytest.raises(BpgenError, match="cannot read"):
        read_config(tmp_path / "none.yaml")


def test_the_config_hash_knows_what_decides_the_numbers():
    config = {"seed": 0, "out": "a", "wandb": "off", "tracking": {}, "network": {"n_rec": 3}}
    same = {**config, "out": "b", "wandb": "online"}
    assert config_hash(config) == config_hash(same)
    assert config_hash(config) != config_hash({**config, "seed": 1})


def test_places_that_cannot_be_written_or_read(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BpgenError, match="cannot write"):
        new(tmp_path / "file" / "deeper")
    with pytest.raises(BpgenError, match="cannot write"):
        new(tmp_path / "file")
    with pytest.raises(BpgenError, match="not a run folder"):
        load_run(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(BpgenError, match="Permission denied"):
        new(tmp_path)


def test_a_network_cut_halfway_leaves_the_one_before(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    folder, net = RunFolder(tmp_path), Network(Leaky(0.5), 2, 3)
    rule = load_rule("bptt").bind(net)
    folder.save_weights(3, net, rule)
    before = folder.weights()[3].read_bytes()

    def cut(handle, data):
        handle.write(data[:2])
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(durable, "_to_disk", cut)
    for step in (3, 6):
        with pytest.raises(durable.NotWritten, match="disk full"):
            folder.save_weights(step, net, rule)
    assert list(folder.weights()) == [3]
    assert folder.weights()[3].read_bytes() == before
