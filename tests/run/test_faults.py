"""What can happen to a run's folder while it is written, and afterwards: nothing is lost, or it is said."""

import errno
import fcntl
import json
import os
import shutil
from contextlib import suppress

import pytest
import torch

from bpgen import durable
from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.run.config import Config
from bpgen.run.folder import RunFolder
from bpgen.run.replay import load_run
from tests.faults.damages import DAMAGES, spoil

pytestmark = pytest.mark.pictures  # a picture is a file that a run writes

TINY = [
    *("--network.n_rec", "8", "--trainer.max_steps", "6", "--evaluation.every", "2", "--wandb", "off"),
    *("--sharpness.samples", "0", "--alignment.samples", "0", "--gap.train_samples", "8", "--gap.test_samples", "8"),
    *("--threads", "1", "--optimizer.momentum", "0.5"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert main(["fit", *TINY, "--out", str(out)]) == 0
    return next(out.iterdir())


@pytest.fixture
def stopped(whole, tmp_path):
    """A run that was killed when it had measured and saved everything but its summary."""
    copy = shutil.copytree(whole, tmp_path / "run")
    (copy / "summary.json").unlink()
    return copy


def same(a, b):
    weights = [[torch.load(file)["network"] for file in RunFolder(run).weights().values()] for run in (a, b)]
    equal = all(torch.equal(x[name], y[name]) for x, y in zip(*weights, strict=True) for name in x)
    return equal and (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()


# one way to write a file


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "a"
    durable.write(file, "old")

    def full(handle, data):
        handle.write(data[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "_to_disk", full)
    with pytest.raises(durable.NotWritten, match="a: No space left on device"):
        durable.write(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_file_before_is_kept(tmp_path):
    for text in ("1", "2", "3"):
        durable.write(tmp_path / "a", text, keep=tmp_path / "b")
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("3", "2")


def test_the_checkpoint_is_written_beside_its_target_and_synced(whole, tmp_path, monkeypatch):
    written, synced, fsync, replace = [], [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (written.append((str(a), str(b))), replace(a, b)))
    assert main(["fit", *TINY, "--out", str(tmp_path)]) == 0
    last = str(tmp_path / whole.name / "checkpoints" / "last.ckpt")
    part = last.replace("last.ckpt", ".last.ckpt.part")
    assert (part, last) in written
    assert part in synced
    assert os.path.dirname(last) in synced
    endings = {os.path.splitext(b)[1] for _, b in written}
    assert endings == {".ckpt", ".pt", ".json", ".yaml", ".png", ".csv"}  # the last is confusion.csv
    assert str(tmp_path / whole.name / "metrics.csv") in synced


# going on from what is there


def test_a_damaged_checkpoint_falls_back_to_the_one_before(whole, stopped, capsys):
    (stopped / "checkpoints" / "last.ckpt").write_bytes(b"half")
    assert main(["fit", "--resume", str(stopped)]) == 0
    assert "last.ckpt is damaged" in capsys.readouterr().out
    assert same(stopped, whole)


def test_what_a_run_took_before_it_was_killed_counts(stopped):
    """A checkpoint knows the seconds so far, those of an earlier kill included."""
    file = stopped / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=False)
    assert 0 < checkpoint["seconds"] < 1000
    torch.save({**checkpoint, "seconds": 5000.0}, file)
    assert main(["fit", "--resume", str(stopped)]) == 0
    seconds = json.loads((stopped / "summary.json").read_text())["seconds"]
    assert 5000 < seconds["total"] < 6000
    assert seconds["training"] == pytest.approx(seconds["total"] - sum(seconds["measuring"].values()), abs=0.01)
    saved = torch.load(file, weights_only=False)["seconds"]
    assert saved >= 5000


def test_rows_that_are_gone_come_back(whole, stopped):
    table = stopped / "metrics.csv"
    for text in (
        None,
        "",
        "\0\n",
        b"\xff\xfe",
        "epoch,step\n",
        *[table.read_text().rsplit("\n", n)[0] for n in (2, 3)],
    ):
        if text is None:
            table.unlink()
        else:
            table.write_bytes(text if isinstance(text, bytes) else text.encode())
        (stopped / "summary.json").unlink(missing_ok=True)
        assert main(["fit", "--resume", str(stopped)]) == 0, text
        assert same(stopped, whole)


def test_networks_that_are_gone_are_named(stopped, capsys):
    weights = stopped / "weights"
    (weights / "step00000002.pt").write_bytes(b"torn")
    (weights / "step00000004.pt").unlink()
    assert main(["fit", "--resume", str(stopped)]) == 0
    said = capsys.readouterr().out
    assert f"lost: {weights / 'step00000002.pt'} is missing or damaged; the run goes on without it" in said
    assert "step00000004.pt is missing" in said


def test_rows_missing_from_a_table_too_large_for_checkpoints_are_counted(tmp_path):
    folder = RunFolder.create(Config(out=str(tmp_path)))
    for step in (0, 1):
        folder.append({"epoch": 0.0, "step": step})
    known = {"rows": 4, "table": None, "weights": {}}
    assert folder.go_back_to(1, known) == [f"{folder.metrics_file} lacks 1 of its rows up to step 1"]


def test_a_table_that_vanishes_under_a_run_is_written_again(tmp_path):
    folder = RunFolder.create(Config(out=str(tmp_path)))
    folder.append({"epoch": 0.0, "step": 0})
    folder.metrics_file.unlink()
    folder.append({"epoch": 0.0, "step": 1})
    assert [row["step"] for row in RunFolder(folder.path).rows()] == [0, 1]


# one writer


def test_a_run_that_is_being_written_is_left_alone(stopped, capsys):
    before = (stopped / "metrics.csv").read_bytes()
    with (stopped / ".lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert main(["fit", "--resume", str(stopped)]) == 2
    assert "is being written by another bpgen process" in capsys.readouterr().err
    assert (stopped / "metrics.csv").read_bytes() == before
    assert main(["fit", "--resume", str(stopped)]) == 0  # the lock ended with its holder


def test_a_run_holds_its_folder_from_its_first_step(tmp_path, monkeypatch):
    held, save = [], RunFolder.save_weights

    def look(self, *given):
        with pytest.raises(BpgenError, match="another bpgen process"), RunFolder(self.path):
            held.append(False)
        held.append(True)
        return save(self, *given)

    monkeypatch.setattr(RunFolder, "save_weights", look)
    assert main(["fit", *TINY, "--out", str(tmp_path)]) == 0
    assert held == [True] * 4


# no room, no folder


def _failing(monkeypatch, name, error, after=0):
    to_write, seen = durable._to_disk, []

    def fail(handle, data):
        if handle.name.endswith(name):
            seen.append(name)
            if len(seen) > after:
                raise error
        return to_write(handle, data)

    monkeypatch.setattr(durable, "_to_disk", fail)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *((name, errno.ENOSPC) for name in ("metrics.csv", "step00000004.pt.part", "last.ckpt.part", ".png.part")),
        *(("summary.json.part", number) for number in (errno.EDQUOT, errno.EACCES, errno.EIO)),
    ],
)
def test_a_full_disk_interrupts_a_run_and_it_goes_on(whole, tmp_path, monkeypatch, capsys, name, number):
    with monkeypatch.context() as patch:
        _failing(
            patch,
            name,
            OSError(number, os.strerror(number)),
            after=2 if name in ("metrics.csv", "last.ckpt.part") else 0,
        )
        assert main(["fit", *TINY, "--out", str(tmp_path)]) == 2
    run = tmp_path / whole.name
    said = capsys.readouterr().err
    assert os.strerror(number) in said
    assert f"continue with: bpgen fit --resume {run}" in said
    if name != ".png.part":  # then it had ended, but for its pictures
        assert main(["fit", "--resume", str(run)]) == 0
    assert same(run, whole)


def test_no_room_from_the_beginning(tmp_path, monkeypatch, capsys):
    _failing(monkeypatch, "config.yaml.part", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert main(["fit", *TINY, "--out", str(tmp_path)]) == 2
    assert "No space left on device. Make room, or choose another --out" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_removed_under_a_run(tmp_path, monkeypatch, capsys):
    save = RunFolder.save_weights

    def remove(self, step, *given):
        if step == 4:
            shutil.rmtree(self.path)
        return save(self, step, *given)

    monkeypatch.setattr(RunFolder, "save_weights", remove)
    assert main(["fit", *TINY, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "its folder is gone. Its folder was removed or moved while it ran" in said
    assert list(tmp_path.iterdir()) == []


# damaged folders


@pytest.mark.parametrize(("name", "content"), [(name, content) for name in DAMAGES for content in DAMAGES[name]])
def test_damaged_folders_are_named(stopped, whole, capsys, name, content):
    file = stopped / name
    shutil.copy(whole / "summary.json", stopped / "summary.json")
    text = (stopped / "summary.json").read_text().replace('"finished"', '"interrupted"')
    (stopped / "summary.json").write_text(text)
    (stopped / "checkpoints" / "previous.ckpt").unlink()
    spoil(file, content)
    kept = shutil.copytree(stopped, stopped.with_name("kept"))
    for act in (
        lambda: main(["fit", "--resume", str(stopped)]),
        lambda: main(["sharpness", str(kept), "--samples", "8"]),
        lambda: len(load_run(kept)) * 0,
        lambda: len(RunFolder(kept).rows()) * 0,
    ):
        with suppress(BpgenError):
            assert act() in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_no_value_of_the_environment_is_in_any_file_of_a_run(tmp_path, monkeypatch):
    secrets = {name: f"secret-{name.lower()}-5d1e7a" for name in ("WANDB_API_KEY", "HF_TOKEN", "MY_OWN", "AWS_SECRET")}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    assert main(["fit", *TINY, "--out", str(tmp_path)]) == 0
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 8
    assert not [file for file in files for value in secrets.values() if value.encode() in file.read_bytes()]
    assert json.loads((next(tmp_path.iterdir()) / "summary.json").read_text())["status"] == "finished"
