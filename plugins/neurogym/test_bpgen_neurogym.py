"""The contract of tasks over every kind of neurogym environment."""

import numpy as np
import pytest
import torch
from bpgen_neurogym import NeuroGym

from bpgen.conformance import plan
from bpgen.errors import BpgenError

SMALL = {"n_train": 30, "n_val": 10, "n_test": 10}
ENVS = ("PerceptualDecisionMaking-v0", "DelayMatchSample-v0", "ReadySetGo-v0", "ContextDecisionMaking-v0")


@pytest.mark.parametrize("env", [*ENVS, "ReachingDelayResponse-v0"])
def test_the_contract(env):
    assert [
        (c.name, o.message) for c in plan(NeuroGym, env=env, **SMALL) for o in [c.run()] if o.status == "fail"
    ] == []


def test_trials_are_those_of_the_environment_and_padding_has_no_weight():
    task = NeuroGym("ReadySetGo-v0", **SMALL)
    split = task.split("train")
    env = task._made(0)
    lengths = (split.mask > 0).sum(0)
    assert len(lengths.unique()) > 1
    for i in range(split.size):
        assert not split.mask[lengths[i] :, i].any()
        assert not split.x[lengths[i] :, i].any()
    env.new_trial()
    assert split.x.shape[2] == np.asarray(env.ob).shape[1]
    assert torch.allclose(split.mask[split.mask > 0], torch.tensor(1 / task.n_steps))


def test_only_decisions():
    split = NeuroGym("PerceptualDecisionMaking-v0", decision_only=True, **SMALL).split("train")
    assert bool(((split.mask > 0) == (split.target > 0)).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "NoSuchTask-v0"}, "cannot make 'NoSuchTask-v0'"),
        ({"env": "Bandit-v0"}, "no right answers"),
        ({"n_steps": 2}, "at least"),
        ({"env": "ReachingDelayResponse-v0", "decision_only": True}, "needs classes"),
    ],
)
def test_what_cannot_be_is_said(options, message):
    with pytest.raises(BpgenError, match=message):
        NeuroGym(**options)
