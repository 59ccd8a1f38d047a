"""`bpgen rules`: traits as tables, everything about one rule."""

import json

import pytest

import bpgen
from bpgen.cli import main
from bpgen.registry import find, plugins


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
    credit, cost = [line for line in plain if line.startswith("rflo ")]
    assert credit.split()[1:3] == ["fixed_random", "broadcast"] or "broadcast" in credit
    assert cost.split("  ")[-1].strip() == "W_rec = 0 with symmetric feedback"
    assert max(map(len, plain)) <= 120
    rows = [line for line in out(capsys, "rules", "--markdown").splitlines() if line.startswith("|")]
    assert len(rows) == len(table) + 2 - 2  # eprop and d_rtrl are other names
    assert len({row.count("|") for row in rows}) == 1
    assert rows[0].startswith("| rule ")
    assert set(rows[1]) == set("| -")


@pytest.mark.parametrize("columns", [80, 100, 120, 200])
def test_no_row_of_traits_is_wider_than_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    plain = out(capsys, "rules", "--traits").splitlines()
    tables = [line.split() for line in plain if line.startswith("rflo ")]
    assert max(len(line) for line in plain if line.startswith(("rule ", "rflo ", "snap ", "--"))) <= columns
    assert (len(tables) > 2) is (columns < 107)
    assert sum("broadcast" in cells for cells in tables) == 1


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


def test_two_names_of_one_rule_are_one_rule(capsys):
    listed = out(capsys, "rules").splitlines()
    assert [line.split()[0] for line in listed if line[:1].strip()].count("eprop") == 0
    assert "Also called eprop." in " ".join(" ".join(listed).split())
    plain = out(capsys, "rules", "--traits")
    assert not any(line.startswith("eprop ") for line in plain.splitlines()[:-1])
    assert plain.strip().endswith("eprop is another name of three_factor.")
    assert find("rule", "eprop").same_as == "three_factor"
    assert find("rule", "three_factor").same_as == ""
    assert [p.name for p in plugins("rule").values() if p.same_as] == ["d_rtrl", "eprop"]
