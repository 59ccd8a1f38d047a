"""The configs that come with bpgen are found in a checkout, without a link that some systems cannot check out."""

import subprocess
from pathlib import Path

import pytest
from setuptools import find_packages

from bpgen import shipped

ROOT = Path(__file__).parents[1]


def test_no_symbolic_links():
    linked = [path for folder in ("bpgen", "plugins", "configs") for path in (ROOT / folder).rglob("*")]
    assert len(linked) > 100
    assert [path for path in (ROOT / "bpgen", *linked) if path.is_symlink()] == []


def test_configs_and_plans_are_found_by_name():
    assert {"digits", "seqmnist", "liu2022_bptt"} <= set(shipped.configs())
    assert {"liu2022", "liu2022_quick"} <= set(shipped.plans())
    assert not set(shipped.configs()) & {"studies", "liu2022_quick"}
    for file in (*shipped.configs().values(), *shipped.plans().values()):
        assert file.read_text(encoding="utf-8").startswith("#")


def test_every_package_is_installed():
    """They are listed by hand, because configs/ becomes a package only in a wheel."""
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [*find_packages(ROOT, include=["bpgen*"]), *find_packages(ROOT / "plugins", include=["bpgen_rules*"])]
    assert sorted(listed) == sorted([*found, "bpgen.configs", "bpgen.configs.studies"])


def test_the_top_level_is_what_it_says():
    git = subprocess.run(["git", "ls-tree", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("not a checkout")
    usual = {".ci", ".gitignore", "LICENSE", "CHANGELOG.md", "justfile"}
    given = {"pyproject.toml", "bpgen", "plugins", "configs", "tests", "notebooks", "README.md"}
    assert set(git.stdout.split()) - usual == given
