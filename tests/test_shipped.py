"""The configs that come with bpgen are found in a checkout, without a link that some systems cannot check out."""

from pathlib import Path

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
