"""The README's table, and what is told from verdicts.csv alone; verdicts judged again from a table alone."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bpgen.analysis.verdicts import judge
from bpgen.cli import main
from bpgen.papers.liu2022 import Liu2022
from bpgen.papers.liu2022_checks import CHECKS
from bpgen.papers.side_by_side import overview, write_verdicts
from bpgen.registry import find, plugins
from bpgen.study.collect import write_tables
from tests.analysis import planted
from tests.analysis.test_verdicts import YES

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "notebooks" / "results"
EVERYTHING = {
    **YES,
    **{"scaled_bptt, recurrent": YES["scaled_bptt"], "noisy_bptt, remainder": YES["noisy_bptt"]},
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("readme_table", RESULTS / "readme_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readmes_table_is_that_of_the_committed_verdicts(script):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script.with_table(readme) == readme, "run: python notebooks/results/readme_table.py"
    table = readme.split(script.START)[1].split(script.END)[0]
    assert script.with_table(readme.replace(table, table.replace("**yes** ×", "**no** ×"))) == readme


def test_the_committed_overview_is_what_the_command_prints(script, capsys):
    folders = [str(RESULTS / f"liu2022_{study}") for study in script.STUDIES]
    assert main(["reproduce", "liu2022", "--table", *folders]) == 0
    assert capsys.readouterr().out == (RESULTS / "liu2022_overview.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", sorted(f.parent.name for f in RESULTS.glob("*/table.csv.gz")))
def test_committed_tables_give_the_committed_verdicts(folder, tmp_path):
    """Where the table of the runs was kept, every verdict is one command away."""
    paper = find("paper", next((p for p in plugins("paper") if folder.startswith(p)), "liu2022")).make()
    write_verdicts(judge(paper.checks(pd.read_csv(RESULTS / folder / "table.csv.gz"))), tmp_path, {})
    same_verdicts(tmp_path / "verdicts.csv", RESULTS / folder / "verdicts.csv")


def same_verdicts(one, other):
    first, second = (pd.read_csv(f, keep_default_na=False, na_values=[""]) for f in (one, other))
    for column in ("claim", "setting", "verdict", "n", "planned"):
        assert first[column].tolist() == second[column].tolist()
    np.testing.assert_allclose(first["effect"].astype(float), second["effect"].astype(float), rtol=1e-3, atol=2e-4)


def test_every_headline_is_a_check():
    table = planted.study(np.random.default_rng(0), 6, EVERYTHING)
    for part in ("gap_robustness", "gap_generalization"):
        table[f"{part}/accuracy"] = table["gap_noisy/accuracy"] / 2
    texts = {check.text.split(", at training loss")[0] for check in Liu2022().checks(table)}
    assert len(CHECKS) == len(Liu2022.claims)
    for statements in Liu2022.headlines.values():
        assert set(statements) <= texts


def verdicts(folder, *rows, **more):
    """A verdicts.csv with rows of (statement, verdict, unit, effect, n), of 20 planned seeds."""
    folder.mkdir()
    columns = ("statement", "verdict", "unit", "effect", "n")
    same = {
        "claim": "a",
        "setting": "digits, alpha=1",
        "planned": 20,
        "kind": "larger",
        "low": math.nan,
        "high": math.nan,
    }
    table = pd.DataFrame(rows, columns=columns).assign(**{**same, **more})
    table.to_csv(folder / "verdicts.csv", index=False)
    return folder


@pytest.mark.parametrize(
    ("verdict", "unit", "effect", "said"),
    [
        ("undecided", "points", -2.847, "**?** −2.8 points (4)"),
        ("supported", "points", 1.949, "**yes** +1.9 points (4)"),
        ("undecided", "points", -0.04, "**?** +0.0 points (4)"),
        ("supported", "ratio", 4.5, "**yes** × 4.5 (4)"),
        ("supported", "ratio", 1.995, "**yes** × 2.0 (4)"),
        ("not supported", "ratio", 0.0182, "**no** × 0.018 (4)"),
        ("not supported", "ratio", 0.5949, "**no** × 0.59 (4)"),
        ("undecided", "ratio", 62.4, "**?** × 62 (4)"),
        ("undecided", "r", -0.083, "**?** r = −0.08 (4)"),
        ("supported", "loss", 0.0276, "**yes** loss +0.028 (4)"),
        ("not testable", "ratio", 0.5, "not testable × 0.50 (4)"),
        ("n/a", "points", math.nan, "not defined"),
        ("undecided", "points", math.nan, "**?** (4)"),
    ],
)
def test_a_cell_says_no_more_than_its_verdict(tmp_path, verdict, unit, effect, said):
    statement = Liu2022.headlines["sharper at the same training loss (λ_max)"][0]
    rows = (f"{statement}, at training loss 0.3", verdict, unit, effect, 4)
    text = overview(Liu2022(), [verdicts(tmp_path / "s", rows, family=1)])
    row = next(line for line in text.splitlines() if line.startswith("| sharper"))
    assert row.split("|")[2].strip() == said
    assert "†" not in text


def test_what_was_not_run_and_what_is_old_is_said(tmp_path):
    one, other = Liu2022.headlines["MDGL; ModProp (true weights): flatter"]
    folder = verdicts(tmp_path / "s", (other, "supported", "ratio", 2.0, 20), remark="assumes normality")
    text = overview(Liu2022(), [folder])
    row = next(line for line in text.splitlines() if line.startswith("| MDGL"))
    assert row.split("|")[2].strip() == "not run; **yes**‡ × 2.0 (20)"
    assert "digits, α = 1, n = 20 †" in text
    assert "\n† Version 0.1" in text
    assert "\n‡ assumes normality" in text
    assert one not in text


def test_a_table_alone_gives_the_verdicts_of_the_study(tmp_path, capsys):
    from bpgen.papers.claims import claims_section

    study = tmp_path / "study"
    study.mkdir()
    table = planted.study(np.random.default_rng(0), 6, YES)
    write_tables(table, study)
    claims_section(Liu2022(), table, study)
    for name in ("table.csv", "table.csv.gz"):
        argv = ["reproduce", "liu2022", "--from", str(study / name), "--out", str(tmp_path / name)]
        assert main(argv) == 0
        same_verdicts(tmp_path / name / "study" / "verdicts.csv", study / "verdicts.csv")
    assert "three_factor is sharper than bptt" in capsys.readouterr().out
    again = tmp_path / "again"
    again.mkdir()
    write_tables(table, again)
    assert (again / "table.csv.gz").read_bytes() == (study / "table.csv.gz").read_bytes()


@pytest.mark.parametrize("option", ["--from", "--table"])
def test_what_is_no_table_is_named(tmp_path, option, capsys):
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,2\n")
    assert main(["reproduce", "liu2022", option, str(file)]) == 2
    assert str(file) in capsys.readouterr().err


def test_over_settings_it_is_the_mean_of_random_effects(tmp_path):
    """Three settings, ratios; a fourth whose effect was not measured counts for nothing."""
    from scipy import stats

    from bpgen.analysis.synthesis import random_effects

    logs, errors, folders = [0.7, 1.1, 0.2], [0.1, 0.2, 0.3], []
    half = stats.t.ppf(0.975, 9)
    for i, (y, se) in enumerate(zip([*logs, math.nan], [*errors, math.nan], strict=True)):
        row = ("it is sharper, at training loss 0.1", "supported", "ratio", math.exp(y), 10)
        ends = {"low": math.exp(y - half * se), "high": math.exp(y + half * se), "kind": "larger"}
        folders.append(verdicts(tmp_path / str(i), row, family=1, **ends))
    text = overview(Liu2022(), folders)
    row = next(line for line in text.split("## Over settings")[1].splitlines() if "it is sharper" in line)
    found, cells = random_effects(logs, errors), [cell.strip() for cell in row.split("|")]
    assert cells[3] == f"x {math.exp(found.mean):.3g}"
    assert cells[4] == f"{math.exp(found.low):.3g} to {math.exp(found.high):.3g}"
    assert cells[7] == "3"
    assert "## Over settings" not in overview(Liu2022(), folders[:2])
