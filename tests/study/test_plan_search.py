"""Plans that anybody may write: each expands to runs, or is refused by one clear message.

What hypothesis found stays as an example. CI draws the same plans in every run; `just slow` draws new ones.
"""

import contextlib
import copy
import tempfile
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpgen.cli.options import resolve
from bpgen.errors import BpgenError
from bpgen.run.files import read_config
from bpgen.study.plan import read_plan

PLAN = {
    "name": "p",
    "question": "Does it?",
    "base": "digits",
    "set": {"trainer": {"max_epochs": 2}, "network.n_rec": 12},
    "axes": {"rule": ["bptt", {"name": "rflo", "scale": 0.5, "label": "x", "set": {"schedule": {"early_factor": 3}}}]},
    "tune": {"axes": {"optimizer.lr": [0.1]}, "seeds": [1000], "metric": "val/loss", "set": {}},
    "seeds": [3, 4],
    "looks": [],
    "measure": {"sharpness": {"samples": 64}},
}
STRANGE = [
    *("", " ", "p/q", "..", "\0", "é", "rflo", "rule", "!x", "{0}", "9" * 30, "[1", "-", "1e400", "None", "val/loss"),
    *(None, True, False, 0, -1, 3, 2**70, 0.5, -1e308, float("nan"), float("inf")),
    *([], [[]], {}, [None], [1, 1], {"a": 1}, {1: 2}, {None: None}, {"rule": "bptt"}, [{"name": "rflo"}], {"axes": {}}),
    *([True], ["bptt"], {"optimizer.lr": [0.1]}, {"value": 1}, {"neuron.alpha": 0.5}, {"out": "x"}, [0.5, "a", None]),
]
keys = st.sampled_from(["name", "set", "rule", "neuron.alpha", "neuron", "task", "seed", "optimizer", "label", "", "x"])
values = st.recursive(
    st.sampled_from(STRANGE) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2),
    max_leaves=4,
)


@cache
def places() -> list[tuple]:
    """Where something stands in the plan."""

    def inside(node, way):
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        return [way, *(deeper for key, value in items for deeper in inside(value, (*way, key)))]

    return inside(PLAN, ())[1:]


changes = st.lists(st.tuples(st.deferred(lambda: st.sampled_from(places())), values), min_size=1, max_size=2)


def changed(asked) -> dict:
    plan = copy.deepcopy(PLAN)
    for way, value in asked:
        with contextlib.suppress(KeyError, IndexError, TypeError):  # an earlier change took the place away
            node = plan
            for key in way[:-1]:
                node = node[key]
            node[way[-1]] = value
    return plan


def expands_or_is_refused(asked) -> None:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "p.yaml"
        file.write_text(yaml.safe_dump(changed(asked), allow_unicode=True), encoding="utf-8")
        try:
            plan = read_plan(read_config(file, "plan"), "p")
            conditions = plan.conditions(resolve)
        except BpgenError as error:
            assert len(str(error)) > 20  # noqa: PT017 - either way it goes is right
        else:
            assert conditions
            assert len({condition.label for condition in conditions}) == len(conditions)
            assert len(plan.seeds) >= 1
            read_plan(plan.content(), "p")
        assert [path.name for path in Path(place).iterdir()] == ["p.yaml"]


SEARCH = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


@settings(SEARCH, max_examples=40, derandomize=True)
@given(changes)
def test_any_plan_expands_or_is_refused(asked):
    expands_or_is_refused(asked)


@pytest.mark.slow
@settings(SEARCH, max_examples=3000)
@given(changes)
def test_any_plan_expands_or_is_refused_many(asked):
    expands_or_is_refused(asked)
