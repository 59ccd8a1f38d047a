"""Rules are compared where all else is equal: which settings a study's table falls into."""

import pytest

from bpgen.analysis.settings import settings
from bpgen.cli.options import resolve
from bpgen.study.launchers import Launcher, execute
from bpgen.study.plan import read_plan
from bpgen.study.progress import PrintedProgress
from bpgen.study.study import Study

FAST = {"trainer.max_steps": 2, "network.n_rec": 4, "evaluation.every": 2, "task.n_train": 16}
OFF = {name: {"samples": 0} for name in ("sharpness", "alignment")}
ADAM = {"value": "adam", "set": {"optimizer.lr": 0.001}}
WRITERS = {"name": "digits", "label": "new writers", "held_out": "writers"}


class Here(Launcher):
    def launch(self, jobs):
        return map(execute, jobs)


@pytest.mark.parametrize(
    ("axes", "names"),
    [
        ({"rule": ["bptt", "rflo"], "neuron.alpha": [1.0, 0.5]}, ["digits, alpha=1", "digits, alpha=0.5"]),
        (
            {"rule": ["bptt", "rflo"], "optimizer.name": ["sgd", ADAM]},
            ["digits, alpha=0.5, optimizer.name=sgd", "digits, alpha=0.5, optimizer.name=adam"],
        ),
        (
            {"task": ["digits", WRITERS], "rule": ["bptt", "rflo"]},
            ["digits, alpha=0.5", "digits, alpha=0.5, new writers"],
        ),
        ({"neuron": ["leaky", "gru"], "rule": ["bptt", "tbptt"]}, ["digits, alpha=0.5, leaky", "digits, gru"]),
        ({"rule": ["bptt"], "optimizer.name": ["sgd", ADAM]}, ["digits, alpha=0.5"]),  # these are what is compared
    ],
    ids=["alpha", "optimizer", "task", "neuron", "one rule"],
)
def test_every_other_axis_makes_settings_of_its_own(axes, names, tmp_path):
    content = {"base": "digits", "axes": axes, "seeds": 1, "set": FAST, "measure": OFF}
    table = Study(read_plan(content, "p"), tmp_path, resolve).run(Here(), PrintedProgress()).table
    found = settings(table)
    assert [setting.name for setting in found] == names
    assert all(len(setting.conditions) == 2 for setting in found)
