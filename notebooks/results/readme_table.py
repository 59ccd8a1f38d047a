"""Write notebooks/results/liu2022_overview.md, and its first table into the README, from the verdicts committed here.

    python notebooks/results/readme_table.py

The suite holds both to what this makes (tests/papers/test_side_by_side.py).
"""

from pathlib import Path

from bpgen.papers.liu2022 import Liu2022
from bpgen.papers.side_by_side import overview

HERE = Path(__file__).parent
STUDIES = ("mnist", "mnist_leaky", "digits", "pattern_generation", "delayed_match_to_sample")
START, END = "<!-- table: python notebooks/results/readme_table.py -->\n", "\n<!-- end of table -->"


def all_claims() -> str:
    """What `bpgen reproduce liu2022 --table FOLDER...` prints."""
    return overview(Liu2022(), [HERE / f"liu2022_{study}" for study in STUDIES])


def with_table(readme: str) -> str:
    """A README with the table between its marks."""
    before, rest = readme.split(START)
    _, after = rest.split(END)
    table = all_claims().split("\n\n")[1]
    return f"{before}{START}{table}{END}{after}"


if __name__ == "__main__":
    (HERE / "liu2022_overview.md").write_text(all_claims(), encoding="utf-8")
    readme = HERE.parents[1] / "README.md"
    readme.write_text(with_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
