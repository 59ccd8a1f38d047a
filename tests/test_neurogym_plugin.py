"""The adapter for neurogym, with a stand-in for it: neurogym itself asks for versions that do not go with these."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from bpgen.conformance import plan
from bpgen.errors import BpgenError

sys.path.insert(0, str(Path(__file__).parents[1] / "plugins" / "neurogym"))
from bpgen_neurogym import NeuroGym


class Env:
    """Two classes after 3 to 6 steps of evidence; answers are 0 (fixation) before."""

    action_space = types.SimpleNamespace(n=3)
    gt = ob = None

    def __init__(self, answers: str = "classes", **options: object) -> None:
        self.answers = answers
        if options:
            raise TypeError(f"unexpected {sorted(options)}")

    @property
    def unwrapped(self):
        return self

    def seed(self, seed):
        self.random = np.random.default_rng(seed)

    def reset(self, seed=None):
        self.new_trial()

    def new_trial(self):
        steps, side = int(self.random.integers(3, 7)), int(self.random.integers(1, 3))
        self.ob = self.random.normal(side, 1, (steps, 2)).astype(np.float32)
        self.gt = np.zeros(steps, np.int64)
        self.gt[-1] = side
        if self.answers == "values":
            self.gt = self.random.normal(0, 1, (steps, 2)).astype(np.float32)
        if self.answers == "none":
            self.gt = None


@pytest.fixture(autouse=True)
def neurogym(monkeypatch):
    module = types.ModuleType("neurogym")
    module.make = lambda name, **options: Env(**options)
    monkeypatch.setitem(sys.modules, "neurogym", module)


SMALL = {"env": "Any-v0", "n_train": 40, "n_val": 10, "n_test": 10}


@pytest.mark.parametrize("answers", ["classes", "values"])
def test_the_contract(answers):
    examined = plan(NeuroGym, **SMALL, env_options={"answers": answers})
    assert [(c.name, o.message) for c in examined for o in [c.run()] if o.status == "fail"] == []


def test_padding_has_no_weight_and_steps_the_same():
    task = NeuroGym(**SMALL)
    split = task.split("train")
    assert (task.n_steps, task.n_in, task.n_out, task.loss) == (6, 2, 3, "cross_entropy")
    lengths = (split.mask > 0).sum(0)
    assert set(lengths.tolist()) == {3, 4, 5, 6}
    for i, length in enumerate(lengths.tolist()):
        assert split.target[length - 1, i] > 0
        assert not split.x[length:, i].any()
        assert split.mask[:length, i].eq(1 / 6).all()


def test_only_decisions_count_and_long_trials_are_drawn_again():
    split = NeuroGym(**SMALL, decision_only=True, n_steps=4).split("train")
    assert bool(((split.mask > 0) == (split.target > 0)).all())
    assert split.mask.gt(0).sum(0).eq(1).all()
    assert len(split.x) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env_options": {"dt": 5}}, "cannot make 'Any-v0'"),
        ({"env_options": {"answers": "none"}}, "no right answers"),
        ({"n_steps": 2}, "at least 3"),
        ({"env_options": {"answers": "values"}, "decision_only": True}, "needs classes"),
    ],
)
def test_what_cannot_be_is_said(options, message):
    with pytest.raises(BpgenError, match=message):
        NeuroGym(**SMALL | options)
