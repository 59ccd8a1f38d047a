"""A few of each kind of fault; `just faults` tries all of them."""

import subprocess
import sys

import pytest

from tests.faults.broken import At, begun, config_of, forked, resumed, run_in, same

pytestmark = pytest.mark.pictures  # a picture is a file that a run writes


def test_no_fault_loses_anything():
    ended = subprocess.run([sys.executable, "-m", "tests.faults", "--short"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " 0 rows lost, 0 wrong" in ended.stdout


def test_the_bench_sees_a_lost_row_and_other_bits(tmp_path):
    run = None
    for out in ("a", "b"):
        assert forked(lambda out=out: begun(config_of(), tmp_path / out)).code == 0
    a, b = (run_in(tmp_path / out) for out in ("a", "b"))
    assert same(a, b)
    table = (b / "metrics.csv").read_text()
    (b / "metrics.csv").write_text(table.rsplit("\n", 2)[0] + "\n")
    assert not same(a, b)
    other = forked(lambda: begun(config_of("--seed", "1"), tmp_path / "c"))
    assert other.code == 0
    assert not same(a, run_in(tmp_path / "c"))
    with At(tmp_path, 0) as at:
        (tmp_path / "free").write_text("")
        assert at.seen == 0  # reads and what is not touched by open, fsync, replace do not count
    assert run is None
    assert resumed(a).code == 2  # finished
