"""`bpgen new-rule`: what it writes works as it is, and it overwrites nothing."""

import os
import subprocess
import sys

import pytest

from bpgen.cli import main
from bpgen.cli.new_rule import STYLES, package
from bpgen.conformance import plan


def written_class(style):
    space = {"__name__": f"my_{style}"}
    exec(compile(package("my-rule", style)["my_rule.py"], f"<{style}>", "exec"), space)
    return space["MyRule"]


@pytest.mark.parametrize("style", STYLES)
def test_each_style_conforms(style):
    outcomes = {check.name: check.run() for check in plan(written_class(style))}
    assert [(n, o.message) for n, o in outcomes.items() if o.status == "fail"] == []
    passed = {n for n, o in outcomes.items() if o.status == "pass"}
    own = {
        "credit": "credit does not cross the recurrent weights",
        "online": "its memory does not grow with the sequence",
        "gradient": "stochastic if and only if it says so",
    }
    assert own[style] in passed


def test_it_writes_a_package_and_says_what_is_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new-rule", "my-rule", "--style", "online"]) == 0
    text = capsys.readouterr().out
    assert "pip install -e . --no-deps" in text
    assert "bpgen fit --rule my_rule" in text
    assert {f.name: f.read_text() for f in (tmp_path / "my-rule").iterdir()} == package("my-rule", "online")
    (tmp_path / "my-rule" / "my_rule.py").write_text("my work")
    assert main(["new-rule", "my-rule"]) == 2
    assert "my-rule exists already; nothing was written" in capsys.readouterr().err
    assert (tmp_path / "my-rule" / "my_rule.py").read_text() == "my work"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MyRule", "got 'MyRule'. Try 'my-rule'"),
        ("my rule", "Try 'my-rule'"),
        ("../elsewhere", "Try 'elsewhere'"),
        ("9", "lower-case words"),
        ("", "lower-case words"),
        ("lambda", "a name of Python.*Try 'lambda-rule'"),
        ("torch", "of an installed module.*Try 'torch-rule'"),
        ("credit", "Try 'credit-rule'"),
        ("rflo", "there is a rule 'rflo' already, from bpgen"),
        ("three-factor", "there is a rule 'three_factor' already"),
    ],
)
def test_a_bad_name(name, message, tmp_path, monkeypatch, capsys):
    import re

    monkeypatch.chdir(tmp_path)
    assert main(["new-rule", name]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_help_explains_the_three_styles(capsys):
    with pytest.raises(SystemExit) as end:
        main(["new-rule", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n  {style} " in text for style in STYLES)


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_it_installs_trains_and_passes_its_tests(style, tmp_path):
    site, here = tmp_path / "site", tmp_path / "my-rule"
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*command, cwd=here):
        result = subprocess.run(
            [sys.executable, "-m", *command], cwd=cwd, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run("bpgen", "new-rule", "my-rule", "--style", style, cwd=tmp_path)
    run("pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site), ".")
    assert "bpgen-my-rule 0.1.0" in run("bpgen", "rules")
    assert " passed" in run("pytest", "-q")
    assert "finished" in run("bpgen", "fit", "--rule", "my_rule", "--trainer.max_epochs", "2", "--wandb", "off")
