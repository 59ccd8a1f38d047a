"""Config files: plain data, and every word what its author meant."""

import time

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bpgen.cli import main
from bpgen.cli.options import resolve
from bpgen.errors import BpgenError
from bpgen.run import dialect
from bpgen.run.config import Config
from bpgen.signatures import as_meant, check_options

MEANT = {
    "out: 2026-11-27": ("out", "2026-11-27"),
    "out: 010": ("out", "010"),
    "out: 1:30": ("out", "1:30"),
    "out: off": ("out", "off"),
    "wandb: off": ("wandb", "off"),
    "wandb: 'off'": ("wandb", "off"),
    "wandb: false": ("wandb", "off"),
    "optimizer: {lr: 1e-3}": ("optimizer.lr", 0.001),
    "trainer: {clip: 1}": ("trainer.clip", 1.0),
    "tracking: {machine: yes}": ("tracking.machine", True),
    "tracking: {machine: OFF}": ("tracking.machine", False),
    "tracking: {group: yes}": ("tracking.group", "yes"),
    "tracking: {group: 2026-11-27, tags: [2026-11-27, no]}": ("tracking.tags", ["2026-11-27", "no"]),
    "evaluation: {every: 3}": ("evaluation.every", 3),
    "seed: 0x10": ("seed", 16),
}
REFUSED = {
    "a: !!binary aGk=": "could not determine a constructor",
    "a: !!set {x}": "could not determine a constructor",
    "a: !!timestamp 2026-11-27": "could not determine a constructor",
    "a: !!python/object/apply:os.system ['true']": "could not determine a constructor",
    "network: &n {n_rec: 8, more: *n}": "the value &n contains itself",
    "a: &a [*a]": "contains itself",
    "a: " + "[" * 3000: "nested more than 32 levels deep",
    "a: " + "{a: " * 3000: "nested more than 32 levels deep",
    "a: &a0 [x]\n" + "\n".join(f"b{i}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(9)): "100000 values",
    "seed: 1\nseed: 2": "the key seed stands twice",
    "network: {n_rec: 8, n_rec: 9}": "the key n_rec stands twice",
    "seed: " + "9" * 5000: "5000 digits",
    "out: null": "out must be a text, got None",
    "network: {n_rec: '8'}": "n_rec must be a whole number, got '8'",
    "seed: 010": "seed must be a whole number, got '010'",
    "seed: '1'": "seed must be a whole number, got '1'",
    "seed: 1:30": "seed must be a whole number, got '1:30'",
    "seed: yes": "seed must be a whole number, got 'yes'",
    "threads: [1]": "threads must be a whole number or none",
    "format: true": "has format True",
    "format: 1.0": "has format 1.0",
    "optimizer: {lr: [1]}": "lr must be a number",
    "rule: null": "rule",
    "wandb: true": "unknown wandb mode|wandb",
    "\0": "not valid YAML",
    "- 1": "must be a mapping",
    "? [1]\n: 2": "unhashable",
}


@pytest.mark.parametrize("text", MEANT)
def test_words_are_what_their_author_meant(text, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    key, value = MEANT[text]
    group, _, option = key.rpartition(".")
    plain = resolve(["--config", str(tmp_path / "c.yaml")]).plain()
    got = plain[group][option] if group else plain[option]
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_plain_or_not_meant_is_refused_at_once(text, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(text)
    started = time.process_time()
    assert main(["fit", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "runs"), "--print_config"]) == 2
    assert time.process_time() - started < 15  # 3,000 brackets took 30 s
    error = capsys.readouterr().err
    assert any(part in error for part in REFUSED[text].split("|"))
    assert not (tmp_path / "runs").exists()


def test_anchors_and_merges_that_end_are_taken():
    text = "x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz: [*x, *x]"
    assert dialect.read(text) == {
        "x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}, "z": [{"a": 1, "b": 2}, {"a": 1, "b": 2}],
    }  # fmt: skip


_CATCHES = ["off", "1e3", "010", "0o7", "2026-11-27", "1:30", "~", "null", "yes", ".5", "0x1", "1_0", "="]
_words = st.text(max_size=8) | st.sampled_from(_CATCHES)
_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@example({"\x85": None})
@given(_plain)
def test_what_is_written_is_read_back_by_this_reader_and_by_any_other(content):
    text = dialect.written(content)
    assert dialect.read(text) == content
    assert yaml.safe_load(text) == content


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab:-&*[]{}!<?|>'\"#,% \n\t01.\0\u2028", max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        dialect.read(text)
    except yaml.YAMLError:
        return


def test_truth_values_stay_where_texts_are_asked_for():
    class Part:
        def __init__(self, flag: bool = False, text: str = "", either: bool | str = False) -> None: ...

    given = {"flag": "on", "text": "on", "either": "on"}
    assert as_meant(Part, given) == {"flag": True, "text": "on", "either": "on"}
    assert as_meant(Part, {"flag": "maybe", "other": "on"}) == {"flag": "maybe", "other": "on"}
    with pytest.raises(BpgenError, match="flag must be true or false, got 'maybe'"):
        check_options(Part, {"flag": "maybe"}, "it")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threads", "100000"], "threads must be from 1 to 512"),
        (["--threads", "0"], "threads must be from 1 to 512"),
        (["--loss.l2", "1e308"], "loss.l2 of W_in must be >= 0 and below 1e+30"),
        (["--loss.activity", "1e308"], "activity"),
        (["--out", "a\0b"], "null byte"),
        (["--sharpness.tol", "1.5"], "sharpness.tol must be between 0 and 1"),
        (["--stability.tol", "1"], "stability.tol must be between 0 and 1"),
        (["--spectrum.tol", "0"], "spectrum.tol must be between 0 and 1"),
    ],
)
def test_options_beyond_all_measure_are_refused(options, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--trainer.max_steps", "1", "--wandb", "off", *options]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.rglob("*.yaml")) == []


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", "..", "a\\b", ""])
def test_the_name_of_a_plan_is_the_name_of_a_folder(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"name": name, "axes": {"rule": ["bptt"]}}))
    assert main(["study", "p.yaml", "--dry-run"]) == 2
    assert "must be the name of a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../../x", "/x", ".."])
def test_no_label_of_a_rule_or_task_leaves_the_folder_of_runs(name):
    config = Config.of({"rule": {"name": name}})
    assert "/" not in config.label
    assert config.label.startswith("digits-")
