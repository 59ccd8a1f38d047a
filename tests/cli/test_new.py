"""`bpgen new`: what it writes works as it is, from installation to training, and it overwrites nothing."""

import importlib
import os
import subprocess
import sys

import pytest

from bpgen.cli import main
from bpgen.cli.new import PARTS, STYLES, package
from bpgen.conformance import plan

EVERY = [("rule", style) for style in STYLES] + [(kind, "") for kind in PARTS if kind != "rule"]
every_part = pytest.mark.parametrize(("kind", "style"), EVERY, ids=lambda value: value or None)
ONE_OF_A_KIND = [  # other styles of a rule take as long and are no other way to install
    pytest.param(*part, marks=pytest.mark.slow) if part[1] not in ("", next(iter(STYLES))) else part for part in EVERY
]
QUICK = ["--trainer.max_steps", "6", "--sharpness.samples", "0", "--alignment.samples", "8", "--wandb", "off"]
USE = {
    "rule": ["--rule", "my_rule"],
    "task": ["--task", "my_task"],
    "neuron": ["--neuron", "my_neuron"],
    "measurement": ["--my_measurement.samples", "16"],
}


def command(kind, style):
    return ["new", kind, f"my-{kind}", *(["--style", style] if style else [])]


def pip(site, folder):
    install = ["pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site), "."]
    subprocess.run([sys.executable, "-m", *install], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Writes a part into a folder here and installs it for this process."""

    def install(kind, style):
        monkeypatch.chdir(tmp_path)
        assert main(command(kind, style)) == 0
        pip(tmp_path / "site", tmp_path / f"my-{kind}")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, f"my_{kind}", raising=False)

    yield install
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


@pytest.mark.parametrize(("kind", "style"), ONE_OF_A_KIND, ids=lambda value: value or None)
def test_it_installs_conforms_and_trains(kind, style, installed, tmp_path, capsys):
    installed(kind, style)
    assert main(["plugins"]) == 0
    assert f"my_{kind}" in capsys.readouterr().out
    if kind != "measurement":
        outcomes = {check.name: check.run() for check in plan(f"{kind}:my_{kind}")}
        assert [(n, o.message) for n, o in outcomes.items() if o.status == "fail"] == []
        assert sum(o.status == "pass" for o in outcomes.values()) >= 12
    assert main(["fit", *USE[kind], *QUICK, "--out", str(tmp_path / "runs")]) == 0
    assert "finished" in capsys.readouterr().out
    (run,) = (tmp_path / "runs").iterdir()
    rows = (run / "metrics.csv").read_text().splitlines()
    if kind == "measurement":
        at = rows[0].split(",").index("my_measurement/dimension")
        assert [1 < float(row.split(",")[at]) < 64 for row in rows[1:]] == [True] * (len(rows) - 1)
    else:
        assert f"my_{kind}" in (run / "config.yaml").read_text()


@pytest.mark.slow
@every_part
def test_it_passes_its_own_tests_untouched(kind, style, tmp_path):
    site, here = tmp_path / "site", tmp_path / f"my-{kind}"
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*command, cwd=here):
        result = subprocess.run(
            [sys.executable, "-m", *command], cwd=cwd, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run("bpgen", *command(kind, style), cwd=tmp_path)
    pip(site, here)
    assert " passed" in run("pytest", "-q", "-p", "no:cacheprovider")
    assert f"my_{kind}" in run("bpgen", "plugins")


@pytest.mark.parametrize("style", STYLES)
def test_each_style_of_a_rule_is_checked_where_it_is_written_so(style):
    space = {"__name__": f"my_{style}"}
    exec(compile(package("rule", "my-rule", style)["my_rule.py"], f"<{style}>", "exec"), space)
    checks = plan(space["MyRule"])
    outcomes = {check.name: check.run() for check in checks}
    own = {
        "credit": "credit does not cross the recurrent weights",
        "online": "its memory does not grow with the sequence",
        "gradient": "stochastic if and only if it says so",
    }
    assert outcomes[own[style]].status == "pass"
    assert checks[0].case.remarks(outcomes) == []  # nothing was left unchecked


def test_it_writes_a_package_and_says_what_is_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "rule", "my-rule", "--style", "online"]) == 0
    text = capsys.readouterr().out
    assert "pip install -e . --no-deps" in text
    assert "bpgen fit --rule my_rule" in text
    assert {f.name: f.read_text() for f in (tmp_path / "my-rule").iterdir()} == package("rule", "my-rule", "online")
    (tmp_path / "my-rule" / "my_rule.py").write_text("my work")
    assert main(["new", "rule", "my-rule"]) == 2
    assert "my-rule exists already; nothing was written" in capsys.readouterr().err
    assert (tmp_path / "my-rule" / "my_rule.py").read_text() == "my work"


def test_new_rule_is_another_name_of_new_rule(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new-rule", "other-rule", "--style", "gradient"]) == 0
    assert {f.name: f.read_text() for f in (tmp_path / "other-rule").iterdir()} == package(
        "rule", "other-rule", "gradient"
    )


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("rule", "MyRule", "a rule's name is .* got 'MyRule'. Try 'my-rule'"),
        ("rule", "my rule", "Try 'my-rule'"),
        ("rule", "../elsewhere", "Try 'elsewhere'"),
        ("rule", "9", "lower-case words"),
        ("rule", "", "lower-case words"),
        ("rule", "lambda", "a name of Python.*Try 'lambda-rule'"),
        ("rule", "torch", "of an installed module.*Try 'torch-rule'"),
        ("rule", "credit", "Try 'credit-rule'"),
        ("rule", "rflo", "there is a rule 'rflo' already, from bpgen"),
        ("rule", "three-factor", "there is a rule 'three_factor' already"),
        ("task", "digits", "there is a task 'digits' already"),
        ("neuron", "LSNN", "a neuron's name is .* Try 'lsnn'"),
        ("neuron", "lif", "there is a neuron 'lif' already"),
        ("measurement", "column", "of bpgen's own.*Try 'column-measurement'"),
        ("launcher", "mine", "invalid choice: 'launcher'"),
    ],
)
def test_a_bad_name(kind, name, message, tmp_path, monkeypatch, capsys):
    import re

    monkeypatch.chdir(tmp_path)
    assert main(["new", kind, name]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_style_is_for_rules(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "task", "my-task", "--style", "online"]) == 2
    assert "--style is for rules" in capsys.readouterr().err


def test_help_explains_kinds_and_styles(capsys):
    with pytest.raises(SystemExit) as end:
        main(["new", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in (*PARTS, *STYLES))
