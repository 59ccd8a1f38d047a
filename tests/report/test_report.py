"""The page of `bpgen report`: complete, whatever state the folders are in; alone, escaped, small; and it works."""

import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.report.charts import Axis, Chart, Line, Point
from bpgen.report.content import gather
from bpgen.report.page import page, write_report
from tests.report import browser
from tests.study import folders

EVIL = '<script>alert("x")<'  # as far as a folder's name may go
WORSE = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"&{{ 7 * 7 }}"
VOID = {"meta", "link", "img", "input", "br", "hr", "path"}


class Parsed(HTMLParser):
    """The tags of a page with their attributes, its text, and whether all tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, attribute):
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]

    def words(self):
        return " ".join("".join(self.text).split())


def written(tmp_path, *places, **options):
    file = tmp_path / "out" / "report.html"
    write_report(gather([str(place) for place in places], **options), file)
    return file


def parsed(file):
    return Parsed(Path(file).read_text(encoding="utf-8"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def mixed(tmp_path, rng):
    """A half-finished study with a failed and a diverged run, and a run of its own."""
    study = folders.study(tmp_path / "leak", rng, name="leak", seeds=4)
    runs = sorted((study / "runs" / "rflo").iterdir())
    folders.edit_summary(type("Run", (), {"path": runs[0]}), status="diverged", message="diverged: loss is nan")
    (runs[1] / "summary.json").unlink()
    folders.run(tmp_path / "own", rng, seed=9)
    return tmp_path


def test_it_says_everything_that_is_there(mixed):
    html = parsed(written(mixed, mixed / "leak", mixed / "own"))
    words = html.words()
    assert "Which is sharper?" in words
    assert "8 runs: 6 finished, 1 diverged, 1 unfinished" in words
    assert "rflo, seed 0 : diverged: loss is nan" in words.replace("seed 0: ", "seed 0 : ")
    assert "sharpness of rflo against bptt" in words
    assert "n = 2 to 4" not in words  # every condition has four runs, whatever came of them
    assert "Learning rules: bptt" in words
    assert "Seeds: 0, 1, 2, 3." in words
    assert "torch 2.13.0" in words
    assert f"bpgen study {mixed}/leak/plan.yaml" in words
    assert f"bpgen fit --config {mixed}/own/digits-rflo-seed9/config.yaml" in words


def test_every_point_leads_to_a_row_and_every_run_has_one(mixed):
    html = parsed(written(mixed, mixed / "leak", mixed / "own"))
    ids = html.all("id")
    assert len(ids) == len(set(ids))
    rows = [i for i in ids if re.fullmatch(r"r\d+", i)]
    assert len(rows) == 9
    marks = Counter(html.all("data-run"))
    assert {f"r{run}" for run in marks} <= set(rows)
    assert all(html.all("aria-label"))
    # finished runs of the study: gap against sharpness, gap, three curves and the accuracy
    assert marks["0"] == 6
    assert all(link[1:] in ids or not link.startswith("#") for link in html.all("href"))


def test_verdicts_are_those_of_the_numbers(tmp_path, rng):
    """Planted: rflo four times as sharp, gaps alike; the sign is flipped to see it follow."""
    study = folders.study(tmp_path / "s", rng, seeds=5)
    for factor, verdict in ((4.0, "larger"), (1 / 16, "smaller")):
        for file in (study / "runs" / "rflo").glob("*/metrics.csv"):
            head, *lines = file.read_text().splitlines()
            at = head.split(",").index("sharpness/lambda_max")
            cells = [line.split(",") for line in lines]
            text = [",".join([*c[:at], repr(float(c[at]) * factor), *c[at + 1 :]]) for c in cells]
            file.write_text("\n".join([head, *text]) + "\n")
        (section,) = gather([str(study)]).sections
        found = {v.text.split()[0]: v for v in section.verdicts}
        assert found["sharpness"].verdict == verdict
        assert found["gap"].verdict == "undecided"
        assert found["sharpness"].n == "4 of 5"  # 80 % of the runs reach the matched loss
        factor_found = float(found["sharpness"].effect.removesuffix(" times"))
        assert factor_found == pytest.approx(4.0 if verdict == "larger" else 0.25, rel=0.2)


def test_nothing_is_asked_for_from_anywhere(mixed):
    html = parsed(written(mixed, mixed))
    assert not {tag for tag, _ in html.tags} & {"link", "iframe", "object", "embed", "base"}
    for address in [*html.all("src"), *html.all("href")]:
        assert re.match(r"data:|#|[^:]*$", address), address
    text = (mixed / "out" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttp|import\(", text)
    assert "default-src 'none'" in text


def test_what_comes_from_outside_stays_text(tmp_path, rng):
    """Names of folders, studies, rules, questions, reasons and options."""
    study = folders.study(tmp_path / EVIL, rng, name=WORSE, question=WORSE, rules=("bptt", WORSE.replace("/", "|")))
    own = folders.run(tmp_path / "own", rng, status="failed", message=WORSE, rule={"name": "rflo", "feedback": WORSE})
    html = parsed(written(tmp_path, study, own.path))
    assert Counter(tag for tag, _ in html.tags)["script"] == 1  # ours
    assert not [attrs for tag, attrs in html.tags if tag == "img"]
    assert not [name for _, attrs in html.tags for name in attrs if name.startswith("on")]
    assert WORSE in html.words()
    assert EVIL in html.words()
    assert "49" not in html.words().split()  # nor does the template run them


def test_three_hundred_runs_fit(tmp_path, rng):
    study = folders.study(tmp_path / "s", rng, rules=("bptt", "rflo", "mdgl"), seeds=1)
    for folder in list(study.glob("runs/*/*")):
        file = folder / "metrics.csv"
        head, *lines = file.read_text().splitlines()
        at = head.split(",").index("step")
        cells = [line.split(",") for line in lines * 10]  # 60 evaluations
        rows = [",".join([*c[:at], str(i), *c[at + 1 :]]) for i, c in enumerate(cells)]
        file.write_text("\n".join([head, *rows]) + "\n")
        config = (folder / "config.yaml").read_text()
        for seed in range(1, 100):
            other = folder.with_name(f"{folder.name}-{seed}")
            shutil.copytree(folder, other)
            (other / "config.yaml").write_text(config.replace("seed: 0", f"seed: {seed}"))
    assert len(gather([str(study)]).sections[0].rows) == 300
    size = written(tmp_path, study).stat().st_size
    assert 100_000 < size < 5_000_000


@pytest.mark.parametrize("state", ["nothing", "one", "unfinished", "damaged"])
def test_partial_folders_have_a_page(tmp_path, rng, state):
    if state == "nothing":
        study = folders.study(tmp_path / "s", rng, seeds=1)
        for file in study.glob("runs/*/*/*"):
            if file.is_file():
                file.unlink()
        assert "0 runs: 2 not begun" in parsed(written(tmp_path, study)).words()
        return
    run = folders.run(tmp_path, rng, status="finished" if state == "one" else "unfinished", evaluations=2)
    if state == "damaged":
        (run.path / "config.yaml").write_text("[")
        run.metrics_file.unlink()
    words = parsed(written(tmp_path, run.path)).words()
    assert f"1 run: 1 {'finished' if state == 'one' else state}" in words


def test_runs_of_the_study_that_were_not_named_are_not_said_to_be_missing(tmp_path, rng):
    study = folders.study(tmp_path / "s", rng, seeds=2)
    shown, gone = sorted(study.glob("runs/bptt/*"))
    shutil.rmtree(gone)
    assert "1 run: 1 finished, 1 not begun, 2 not shown here" in parsed(written(tmp_path, shown)).words()


def test_runs_of_a_sweep_are_told_apart_and_repeated_ones_compared_once(tmp_path, rng):
    for lr in (0.1, 0.2):
        for seed in (0, 1, 2):
            folders.run(tmp_path / "runs", rng, seed=seed, optimizer={"lr": lr})
    folders.run(tmp_path / "runs", rng, seed=0, optimizer={"lr": 0.2})
    (section,) = gather([str(tmp_path / "runs")]).sections
    assert set(section.conditions) == {"rflo, lr=0.1", "rflo, lr=0.2"}
    assert "repeat" in section.notes[0]
    assert {v.n for v in section.verdicts} == {"3"}


def test_a_paper_is_known_by_its_study(tmp_path, rng):
    study = folders.study(tmp_path / "s", rng, rules=("bptt", "three_factor"), seeds=3, name="liu2022_quick")
    (section,) = gather([str(study)]).sections
    assert "Liu" in section.about_verdicts
    assert {v.claim for v in section.verdicts} >= {"(a)"}
    with pytest.raises(BpgenError, match="unknown paper"):
        gather([str(study)], paper="nobody2022")


def test_files_beside_the_page(mixed, capsys):
    assert main(["report", str(mixed / "leak"), "--files"]) == 0
    assert "report.html" in capsys.readouterr().out
    beside = {file.name for file in (mixed / "leak" / "report_files").iterdir()}
    assert {"leak.csv", "leak_gap_by_rule.png", "leak_gap_by_rule.svg"} <= beside
    assert main(["report", str(mixed / "nowhere")]) == 2
    assert (
        main(["report", str(mixed / "leak" / "runs" / "bptt"), "--out", str(mixed / "leak" / "plan.yaml" / "x")]) == 2
    )


def test_rounding_errors_are_not_drawn_as_a_curve():
    axis = Axis("cosine with the true gradient")
    axis.take([1 - 1e-7, 1.0, 1 - 3e-8])
    axis.close()
    labels = [text for _, text in axis.ticks()]
    assert len(set(labels)) == len(labels) > 1
    assert axis.at(1.0) == pytest.approx(axis.at(1 - 1e-7), abs=1e-5)


def test_a_chart_places_what_it_is_given():
    """By hand: on a log axis the middle of 1 and 100 is 10; what has no place is left out."""
    points = [
        Point(i, 0, x, y, "") for i, (x, y) in enumerate([(1, 0), (10, 5), (100, 10), (-1, 5), (5, float("nan"))])
    ]
    drawing = Chart("t", Axis("x", log=True), Axis("y"), points=points).draw()
    at = {point.run: (x, y) for point, x, y in drawing.points}
    assert set(at) == {0, 1, 2}
    assert at[1][0] == pytest.approx((at[0][0] + at[2][0]) / 2, abs=0.2)
    assert at[1][1] == pytest.approx((at[0][1] + at[2][1]) / 2, abs=0.2)
    assert at[0][1] > at[2][1]  # up is more
    assert all(drawing.left <= x <= drawing.right and drawing.top <= y <= drawing.bottom for x, y in at.values())
    line = Line(0, 0, list(range(1000)), [1.0] * 1000, "")
    (_, path), *_ = Chart("t", Axis("x"), Axis("y"), lines=[line]).draw().lines
    assert path.count("L") < 130  # thinned, with its end
    assert path.rsplit("L", 1)[1].startswith(str(round(drawing_right(drawing), 1))[:2])


def drawing_right(drawing):
    return drawing.right - 0.05 * (drawing.right - drawing.left)


@pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium here (Debian: apt install chromium)")
def test_in_a_browser(mixed):
    """Click, Enter, filter and sort do what they say; no message on the console; nothing wider than a phone."""
    file = written(mixed, mixed / "leak", mixed / "own")
    script = """
      const byId = id => document.getElementById(id);
      const click = e => e.dispatchEvent(new MouseEvent("click", {bubbles: true}));
      const result = {};
      const point = document.querySelector(".point[data-run='2']");
      point.dispatchEvent(new MouseEvent("mousemove", {clientX: 50, clientY: 50, bubbles: true}));
      result.tip = byId("tip").textContent;
      result.lit = document.querySelectorAll(".lit").length;
      click(point);
      result.opened = !byId("r2").nextElementSibling.hidden;
      result.marked = byId("r2").className;
      document.querySelector(".line[data-run='3']").dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
      result.focus = document.activeElement.closest("tr").id;
      const input = document.querySelector("input");
      input.value = "rflo diverged"; input.dispatchEvent(new Event("input"));
      result.left = [...document.querySelectorAll("#t1 tr.run")].filter(row => !row.hidden).map(row => row.id);
      click(document.querySelector("a.jump[href='#r5']"));
      result.jumped = !byId("r5").hidden && input.value === "";
      const head = [...document.querySelectorAll("#t1 th button")].find(b => b.textContent === "λ_max");
      const column = [...head.closest("tr").cells].indexOf(head.closest("th"));
      const order = () => [...document.querySelectorAll("#t1 tr.run")].map(row => +row.cells[column].dataset.v);
      click(head); result.up = order(); click(head); result.down = order();
      result.wide = document.documentElement.scrollWidth <= innerWidth;
      result.pictures = [...document.images].every(i => i.complete && i.naturalWidth);
      return result;"""
    result, console = browser.play(file, script, mixed)
    assert console == []
    assert result["tip"].startswith("bptt, seed 2: gap ")
    assert result["lit"] == 6
    assert result["opened"]
    assert "marked" in result["marked"]
    assert result["focus"] == "r3"
    assert result["left"] == ["r4"]
    assert result["jumped"]
    assert result["up"] == sorted(result["up"])
    assert result["down"] == sorted(result["up"], reverse=True)
    assert result["wide"]
    assert result["pictures"]


def test_the_page_is_the_same_twice(mixed):
    report = gather([str(mixed / "leak")])
    file = mixed / "a.html"
    assert page(report, file) == page(report, file)
