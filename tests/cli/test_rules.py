"""`bpgen rules` and `bpgen check`: traits as tables, everything about one rule, the conformance report."""

import json

import pytest

import bpgen
from bpgen.cli import main
from bpgen.conformance import plan
from tests.rules import mutants


def out(capsys, *argv, code=0):
    assert main(list(argv)) == code
    captured = capsys.readouterr()
    return captured.err if code == 2 else captured.out


def test_the_table_has_every_rule_with_its_traits(capsys):
    table = json.loads(out(capsys, "rules", "--json"))
    assert set(table) == set(bpgen.list_rules())
    assert table["rflo"]["weight_transport"] is False
    assert table["bptt"]["exact_when"] == "always"
    plain = out(capsys, "rules", "--traits").splitlines()
    (rflo,) = [line for line in plain if line.startswith("rflo ")]
    assert rflo.split("  ")[-1].strip() == "W_rec = 0 with symmetric feedback"
    rows = [line for line in out(capsys, "rules", "--markdown").splitlines() if line.startswith("|")]
    assert len(rows) == len(table) + 2
    assert len({row.count("|") for row in rows}) == 1
    assert rows[0].startswith("| rule ")
    assert set(rows[1]) == set("| -")


def test_one_rule_is_shown_with_equations_options_and_traits(capsys):
    text = out(capsys, "rules", "rflo")
    for part in (
        "(1) p_t = (1-α) p_{t-1}",
        "Murray 2019",
        "--rule.feedback symmetric|random|sparse (default: random)",
        "--rule.seed int | None (default: none)",
        "an entry of random feedback has standard deviation scale/√N",
        "weight transport  no",
        "W_rec = 0 with symmetric feedback",
    ):
        assert part in text, part
    described = json.loads(out(capsys, "rules", "tbptt", "--json"))
    assert described["options"][0] == {
        "name": "window",
        "default": 10,
        "type": "int",
        "text": "number of steps k that credit may travel back, the loss's own step included.",
    }
    assert "no options" in out(capsys, "rules", "bptt")
    assert "Did you mean 'rflo'" in out(capsys, "rules", "rflow", code=2)


def test_a_report_names_every_check_and_counts(capsys):
    text = out(capsys, "check", "three-factor")
    for check in plan("three_factor"):
        assert check.name in text
    assert "three_factor: " in text
    assert " 0 failed" in text
    assert "its traits say exact_when='W_rec = 0'" in text


def test_a_failure_is_reported_and_is_exit_code_1(capsys, monkeypatch):
    monkeypatch.setattr("bpgen.conformance.plan", lambda name, **options: plan(mutants.SignOfTheLeak))
    text = out(capsys, "check", "mine", code=1)
    assert "FAIL      the leak carries credit back with the right factor and sign" in text
    assert "2 failed" in text
    rows = json.loads(out(capsys, "check", "mine", "--json", code=1))["checks"]
    assert {row["status"] for row in rows} == {"pass", "fail", "skipped"}
    assert all(row["why"] for row in rows)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nope"], "unknown rule, neuron or task 'nope'"),
        ([], "required"),
        (["tbptt", "window"], "OPTION=VALUE"),
        (["tbptt", "windw=3"], "Did you mean 'window'"),
        (["tbptt", "window=0"], "must be a positive number"),
    ],
)
def test_bad_input_is_exit_code_2(argv, message, capsys):
    assert message in out(capsys, "check", *argv, code=2)


def test_options_reach_the_rule(capsys):
    assert " 0 failed" in out(capsys, "check", "tbptt", "style=sliding", "window=2")
