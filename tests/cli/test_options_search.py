"""Command lines that anybody may type: each is a run that could begin, or exit code 2 with one clear message.

What hypothesis found stays as an example. CI draws the same command lines in every run; `just slow` draws new ones.
"""

import contextlib
import io
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bpgen.cli import main
from bpgen.cli.given import given as given_by
from bpgen.cli.options import _option_names, make_parser, resolve
from bpgen.errors import BpgenError
from bpgen.registry import plugins
from bpgen.run.build import build

AT_HAND = ("digits", "adding", "flip_flop", "perceptual_decision")  # tasks without a file, and quickly drawn
NOT_TYPED = ("out", "resume", "config")
STRANGE = [
    *("", " ", "0", "-1", "1", "2", "3.5", "1e308", "-1e308", "1e-320", "nan", "inf", "-inf", "1e400", "010", "0x10"),
    *(
        "9" * 30,
        "True",
        "None",
        "null",
        "yes",
        "{}",
        "[]",
        "[1, 2]",
        "{'a': 1}",
        "{a: [",
        "rflo",
        "../x",
        "\0",
        "\ud800",
    ),
    *("é", "!!python/object:x", "&a [*a]", "--", "-", "=", "%s", "{0}", "1:30", "2026-11-27", "1_000", "٣", "a,b"),
]
values = st.sampled_from(STRANGE) | st.floats().map(str) | st.integers(-3, 40).map(str) | st.text(max_size=6)


@cache
def names() -> list[str]:
    """Of all options of a run with the default parts, in an order of their own."""
    return sorted(_option_names(make_parser(given_by([]).chosen)) - {*NOT_TYPED})


lines = st.tuples(
    st.sampled_from(sorted(plugins("rule"))) | st.sampled_from(STRANGE),
    st.sampled_from(AT_HAND) | st.sampled_from(STRANGE),
    st.lists(st.tuples(st.deferred(lambda: st.sampled_from(names())), values), max_size=3),
)


def said_of(argv: list[str]) -> tuple[int, str]:
    """Exit code and what is said of a command line; it may have begun, and is not trained."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["fit", *argv, "--print_config"])
        if code == 0:
            try:
                build(resolve(argv))
            except BpgenError as error:
                code = 2
                print(f"bpgen: error: {error}", file=err)
    return code, err.getvalue()


def begun_or_refused(rule: str, task: str, options: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place) / "runs"
        argv = [f"--rule={rule}", f"--task={task}", *[f"--{key}={value}" for key, value in options]]
        code, said = said_of([*argv, "--out", str(runs), *([] if "wandb" in dict(options) else ["--wandb=off"])])
        assert code in (0, 2), said
        assert "Traceback" not in said
        assert not runs.exists()
        if code == 2:
            assert said.count("bpgen: error: ") == 1, said
            assert 20 < len(said) < 2000 + 3 * sum(map(len, argv))


SEARCH = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


@settings(SEARCH, max_examples=20, derandomize=True)
@example(("rflo", "digits", [("rule.feedback", "{0}")]))
@example(("rflo", "digits", [("rule.scale", "(b'a', 1j)")]))
@example(("rflo", "digits", [("tracking.tags", "[" * 5000)]))
@example(("!!python/object:x", "digits", []))
@example(("rflo", "digits", [("network.n_rec", "9" * 30)]))
@given(lines)
def test_any_command_line_begins_or_is_refused(line):
    begun_or_refused(*line)


@pytest.mark.slow
@settings(SEARCH, max_examples=2000)
@given(lines)
def test_any_command_line_begins_or_is_refused_many(line):
    begun_or_refused(*line)
