"""A stranger's package, as `bpgen new rule` writes it: `pip install` makes its rule listed, checked and trainable."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bpgen.cli.new import package

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "plugins" / "example"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of installed packages with the example in it."""
    folder = tmp_path_factory.mktemp("site")
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "example")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", folder, source], check=True, capture_output=True)
    return folder


def bpgen(site, *argv):
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-m", "bpgen", *argv]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


def test_the_example_is_what_bpgen_new_writes():
    files = {f.name: f.read_text(encoding="utf-8") for f in EXAMPLE.iterdir() if f.is_file()}
    assert files == package("rule", "sign-feedback", "credit")


def test_it_passes_its_own_tests_untouched(site, tmp_path):
    own = shutil.copytree(EXAMPLE, tmp_path / "sign-feedback")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=own, env=environment)
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout


def test_it_is_listed_with_its_package_and_first_line(site):
    (line,) = [line for line in bpgen(site, "rules").stdout.splitlines() if line.startswith("sign_feedback")]
    assert "bpgen-sign-feedback 0.1.0" in line
    assert "three-factor rule whose error travels through" in line  # and what follows, on the next line


def test_its_options_are_in_the_help_and_its_rule_trains(site, tmp_path):
    assert "--rule.scale" in bpgen(site, "fit", "--rule", "sign_feedback", "--help").stdout
    measured = "--evaluation.every 300 --sharpness.samples 0 --alignment.samples 64"
    options = f"--trainer.max_epochs 8 {measured} --wandb off".split()
    result = bpgen(site, "fit", "--rule", "sign_feedback", "--rule.scale", "0.5", *options, "--out", str(tmp_path))
    assert result.returncode == 0, result.stderr
    rows = (tmp_path / "digits-sign_feedback-seed0" / "metrics.csv").read_text().splitlines()
    at = rows[0].split(",").index("test/accuracy")
    first, last = (float(rows[i].split(",")[at]) for i in (1, -1))
    assert last > 0.6 > first


def test_a_broken_plugin_is_named_and_harms_nobody(site, tmp_path):
    broken = shutil.copytree(site, tmp_path / "broken")
    (broken / "sign_feedback.py").write_text('"""A rule that cannot be imported."""\nimport nowhere\n')
    listed = bpgen(broken, "rules")
    assert "sign_feedback" in listed.stdout
    assert "rflo" in listed.stdout
    chosen = bpgen(broken, "fit", "--rule", "sign_feedback")
    assert chosen.returncode == 2
    assert "bpgen-sign-feedback 0.1.0 is broken: ModuleNotFoundError" in chosen.stderr
    assert "Traceback" not in chosen.stderr
    checked = bpgen(broken, "check", "sign_feedback")
    assert (checked.returncode, "is broken: ModuleNotFoundError" in checked.stderr) == (2, True)
    assert bpgen(broken, "fit", "--rule", "rflo", "--print_config").returncode == 0
