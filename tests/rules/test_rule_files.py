"""Every built-in rule is one short file whose docstring says what a reader has to know before trusting it."""

import ast
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "plugins" / "bpgen_rules"
FILES = sorted(FOLDER.glob("*.py"))
RULES = [file for file in FILES if not file.name.startswith("_")]
NEEDED = {
    "numbered equations": r"^ +\(1\) .*[=≈~]",
    "a source with its year": r"\b(Source|source)[^\n]*(\n[^\n]+)?\b(19|20)\d\d\b",
    "shapes": r"\bShapes: ",
    "cost": r"\bCost\b",
    "memory": r"\bmemory\b",
    "the limit in which it is exact": r"\bExact\b",
    "the neurons it is defined for": r"\bNeurons\b",
}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_a_rule_file_is_short(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("file", RULES, ids=lambda f: f.name)
def test_a_rule_file_says_what_a_reader_has_to_know(file):
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    missing = [what for what, pattern in NEEDED.items() if not re.search(pattern, doc, re.MULTILINE)]
    assert not missing, f"{file.name} lacks {', '.join(missing)}"
    assert doc.splitlines()[0].endswith(".")
    assert doc.splitlines()[1] == ""


def test_control_the_patterns_find_nothing_in_a_docstring_that_only_restates_a_name():
    doc = "A rule.\n\nThis module implements a rule by Nobody 2020. It needs (1) patience."
    assert [what for what, pattern in NEEDED.items() if re.search(pattern, doc, re.MULTILINE)] == []
