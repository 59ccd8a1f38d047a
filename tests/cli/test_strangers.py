"""A stranger's neuron, measurement and rule in a run: one file and one line, and nothing here knows of them."""

import json
import sys

import pandas as pd
import pytest
import yaml

import bpgen
from bpgen.cli import main
from bpgen.run.config import Config
from bpgen.study.launchers.base import Job, execute
from tests.cli.test_fit import SMALL
from tests.faults.evil import EVIL, RULE

NEURON = '''"""A neuron that adds up its input and leaks, by a stranger."""
import torch
from bpgen.neurons import Neuron
class Leaking(Neuron):
    """Leaks.

    Args:
        keep: what stays of the potential.
    """
    n_states = 1
    n_currents = 1
    def __init__(self, keep: float = 0.5) -> None:
        super().__init__()
        self.keep = keep
    def f(self, s, I):
        return self.keep * s + I
    def g(self, s):
        return torch.tanh(s).squeeze(-2)
'''
MEASUREMENT = '''"""How large the weights are."""
from bpgen.callbacks import Column, Measurement
class WeightNorm(Measurement):
    """Norms of the weights.

    Args:
        order: of the norm; 0 switches it off.
    """
    name = "weight_norm"
    columns = (
        Column("weight_norm/W_rec", "size of W_rec", "weight", "weights", "{:.3f}"),
        Column("weight_norm/W_out", "size of W_out", "weight", "weights"),
    )
    def __init__(self, order: int = 0) -> None:
        self.order = order
    @property
    def enabled(self):
        return self.order > 0
    def measure(self, evaluation):
        params = evaluation.network.params()
        return {f"weight_norm/{n}": params[n].norm(self.order).item() for n in ("W_rec", "W_out")}
'''


def fit(out, *options, code=0):
    assert main(["fit", *SMALL, "--out", str(out), *options]) == code
    return max(out.iterdir(), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture
def norm(install):
    install("norms", {"weight-norm": "norm_part:WeightNorm"}, "bpgen.measurements", norm_part=MEASUREMENT)


def test_a_neuron_from_the_command_line(install, tmp_path, capsys):
    install("leaks", {"leaking": "leaking_part:Leaking"}, "bpgen.neurons", leaking_part=NEURON)
    run = fit(tmp_path, "--neuron", "leaking", "--neuron.keep", "0.7", "--rule", "three_factor")
    assert yaml.safe_load((run / "config.yaml").read_text())["neuron"] == {"name": "leaking", "keep": 0.7}
    loaded = bpgen.load_run(run)
    assert type(loaded.network.neuron).__name__ == "Leaking"
    assert loaded.network.neuron.keep == 0.7
    table = pd.read_csv(run / "metrics.csv")
    assert table["train/loss"].iloc[-1] < table["train/loss"].iloc[0]
    capsys.readouterr()
    assert main(["sharpness", str(run), "--json", "--samples", "16"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluations"][0]["converged"]
    assert main(["fit", "--neuron", "leaking", "--help"]) == 0
    text = capsys.readouterr().out
    assert "what stays of the potential" in text
    assert "neuron model: alif, gru, leaking, leaky, lif, lstm" in text
    assert main(["fit", "--neuron", "leakin"]) == 2
    assert "Did you mean 'leaking'" in capsys.readouterr().err


@pytest.mark.pictures
def test_a_measurement_from_the_command_line(norm, tmp_path, capsys):
    run = fit(tmp_path, "--weight_norm.order", "2")
    out = capsys.readouterr().out
    assert "weight_norm: size of W_rec, size of W_out" in out
    assert "size of W_rec " in out
    table = pd.read_csv(run / "metrics.csv")
    W_rec = bpgen.load_run(run).network.W_rec
    assert table["weight_norm/W_rec"].iloc[-1] == pytest.approx(W_rec.norm().item())
    assert list(table).index("weight_norm/W_rec") < list(table).index("alignment/rho/W_rec")
    assert (run / "figures" / "weights.png").is_file()  # drawn from what its columns say
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["weight_norm"] == {"order": 2}
    assert "weight_norm" in json.loads((run / "summary.json").read_text())["seconds"]["measuring"]
    again = fit(tmp_path / "again", "--config", str(run / "config.yaml"))
    assert (again / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()


def test_to_install_a_measurement_changes_no_run_and_help_knows_it(capsys, request):
    def printed(*argv):
        assert main(["fit", *argv]) == 0
        return capsys.readouterr().out

    before = printed("--print_config")
    request.getfixturevalue("norm")
    assert printed("--print_config") == before
    assert "weight_norm:\n  order: 1\n" in printed("--print_config", "--weight-norm.order", "1")
    text = printed("--help")
    assert "Norms of the weights:\n  columns: weight_norm/W_rec, weight_norm/W_out" in text
    assert "--weight_norm.order ORDER" in text
    assert main(["fit", "--weight_norm.ordr", "1"]) == 2
    assert "Did you mean '--weight_norm.order'" in capsys.readouterr().err


def test_a_run_whose_measurement_is_no_longer_installed_is_still_read(tmp_path, monkeypatch, request, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        request.getfixturevalue("norm")
        run = fit(tmp_path, "--weight_norm.order", "2")
        path = [place for place in sys.path if "norms" not in place]
    monkeypatch.setattr(sys, "path", path)
    assert bpgen.load_run(run).config["weight_norm"] == {"order": 2}
    capsys.readouterr()
    (run / "summary.json").unlink()
    assert main(["fit", "--resume", str(run)]) == 2
    assert "unknown measurement 'weight_norm'" in capsys.readouterr().err


def test_a_broken_measurement_harms_nobody_but_who_asks_for_it(install, tmp_path, capsys):
    install("evil", {"evil": "evil_part:X"}, "bpgen.measurements", evil_part="import sys; sys.exit(0)")
    fit(tmp_path)
    assert "left out: measurement 'evil' from evil 1.2 is broken" in capsys.readouterr().err
    assert main(["fit", "--evil.samples", "3"]) == 2
    assert "unknown option '--evil.samples'" in capsys.readouterr().err


def test_a_rule_in_a_file(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.py").write_text(RULE)
    monkeypatch.chdir(tmp_path)
    run = fit(tmp_path / "runs", "--rule", "mine.py:Half", "--rule.factor", "1.0")
    assert run.name == "digits-Half-seed0"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["rule"] == {"name": f"{tmp_path / 'mine.py'}:Half", "factor": 1.0}
    bptt = fit(tmp_path / "bptt", "--rule", "bptt")
    for a, b in zip(*(pd.read_csv(f / "metrics.csv")["train/loss"] for f in (run, bptt)), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    monkeypatch.chdir("/")
    assert bpgen.load_run(run).rule.factor == 1.0
    assert "Half on digits" in Config.of(config).title
    capsys.readouterr()
    assert main(["fit", "--rule", "mine.py:Half"]) == 2
    assert "no file" in capsys.readouterr().err


def test_a_rule_that_exits_has_failed_and_not_the_program(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(RULE)
    run = fit(tmp_path / "runs", "--rule", f"{tmp_path / 'mine.py'}:Leaves", code=2)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "rule Leaves failed: SystemExit: 0" in summary["message"]
    assert "mine.py, line" in summary["message"]
    said = capsys.readouterr().out
    for name, file in (("numbers", "metrics.csv"), ("figures", "figures/overview.png")):  # named where they are
        assert (str(run / file) in said) == (run / file).is_file() == (name in said)
    assert not (run / "metrics.csv").exists()


@pytest.fixture
def evil(tmp_path):
    (tmp_path / "evil.py").write_text(EVIL)
    return f"{tmp_path / 'evil.py'}:"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("Built", "cannot be built with its defaults: SystemExit: 0"),
        ("Bound", "rule Bound failed: SystemExit: 0"),
        ("Wrong", "rule Wrong failed: ZeroDivisionError: division by zero"),
        ("InPlace", "it changed W_rec in place. A rule returns gradients"),
        ("ByData", "it changed W_rec in place"),
        ("Late", "it changed W_out in place"),
        ("Double", "torch.float32, like the parameter; it is"),
        ("Bare", "its __init__ has to call super().__init__() first"),
        ("Gone", "rule Gone failed: GeneratorExit: gone"),
    ],
)
def test_a_rule_that_exits_anywhere_has_failed_and_is_named_with_its_line(evil, rule, said, tmp_path, capsys):
    assert main(["fit", *SMALL, "--out", str(tmp_path / "runs"), "--rule", evil + rule]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "evil.py, line" in error or rule == "Bare"
    assert "Traceback" not in error


def test_whoever_stops_a_program_by_hand_has_stopped_it(evil, tmp_path, capsys):
    assert main(["fit", *SMALL, "--out", str(tmp_path / "runs"), "--rule", f"{evil}Stopped"]) == 130
    assert "interrupted: all files so far are whole" in capsys.readouterr().err


@pytest.mark.parametrize("rule", ["Built", "Bound", "Leaves", "Gone"])
def test_a_rule_that_exits_is_one_failed_run_of_a_study(evil, rule, tmp_path):
    config = {"rule": {"name": evil + rule}, "trainer": {"max_steps": 1}, "wandb": "off", "out": str(tmp_path / "runs")}
    job = Job("one", config, None, str(tmp_path / "log"), str(tmp_path / "lock"), 0)
    result = execute(job)
    assert result.status == "failed"
    assert "Exit" in result.message


def test_a_rule_that_exits_fails_its_checks(evil, capsys):
    assert main(["check", f"{evil}Leaves", "--kind", "rule"]) == 1
    assert "it raised SystemExit: 0" in capsys.readouterr().out


def test_nothing_that_exits_ends_a_command_in_silence(monkeypatch, capsys):
    monkeypatch.setattr("bpgen.cli._dispatch", lambda argv: sys.exit(0))
    assert main(["ls"]) == 2
    assert "a part that was loaded ended the program: SystemExit: 0" in capsys.readouterr().err
