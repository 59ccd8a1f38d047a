"""The locality audit: known answers for known rules, rules that say they are local and are not, the stored table."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from bpgen_rules.bptt import BPTT
from bpgen_rules.three_factor import ThreeFactor

import bpgen
from bpgen.cli import main
from bpgen.conformance.rules.locality import STEPS, audit, confirmed, stored
from tests.rules import mutants

torch.set_num_threads(1)

LATER, SYNAPSES, NEURONS, READOUT = "later errors", "other synapses", "other neurons' states", "readout weights"
ALL = {SYNAPSES: "yes", NEURONS: "yes", READOUT: "yes"}
# rule, options: what its update depends on, from its equations, and its traces
KNOWN = {
    "bptt": ("bptt", {}, {LATER: "yes", **ALL}, (3, 5, 6)),  # min(t, O)
    "rtrl": ("rtrl", {}, ALL, (3, 5, 6)),
    "tbptt": ("tbptt", {}, {LATER: "yes", **ALL}, (3, 5, 6)),
    "sliding": ("tbptt", {"window": 2, "style": "sliding"}, ALL, (2, 2, 2)),
    "e-prop": ("eprop", {}, {READOUT: "yes"}, (1, 1, 1)),
    "e-prop, random": ("eprop", {"feedback": "random"}, {}, (1, 1, 1)),
    "e-prop+, cutoff": ("eprop_plus", {"cutoff": 2}, {READOUT: "yes"}, (1, 1, 1)),
    "e-prop+": ("eprop_plus", {"cutoff": 2, "rate_cost": 1.0}, {READOUT: "yes"}, (2, 2, 2)),  # ē and ē'
    "rflo": ("rflo", {}, {}, (1, 1, 1)),
    "rflo, murray": ("rflo_online", {"trace": "murray"}, {}, (1, 1, 1)),
    "snap-1": ("snap", {}, {READOUT: "yes"}, (1, 1, 1)),
    "snap-2": ("snap", {"n": 2}, ALL, (3, 5, 6)),
    "diffusion": ("diffusive_eprop", {}, {}, (1, 1, 1)),
    "one hop": ("mdgl", {"weights": "true"}, ALL, (2, 2, 2)),
    "node perturbation": ("node_perturbation", {}, dict.fromkeys(ALL, "broadcast"), (1, 1, 1)),
    "hebbian": ("hebbian", {}, {}, None),
}


def answers(found):
    return {d.on: d.measured for d in found.found if d.measured != "no"}


@pytest.mark.parametrize("row", KNOWN)
def test_known_rules_have_their_known_locality(row):
    name, options, expected, traces = KNOWN[row]
    found = audit(name, options)
    assert not found.reason
    assert answers(found) == expected
    assert traces is None or found.found[0].traces == traces
    assert not any(d.denied for d in found.found)


@pytest.mark.parametrize("neuron", ["LSTM", "ALIF"])
def test_neurons_of_many_states_and_currents_are_measured_too(neuron):
    class Local(ThreeFactor):
        traits = replace(ThreeFactor.traits, neurons=(neuron,))

    class Exact(BPTT):
        traits = replace(BPTT.traits, neurons=(neuron,))

    assert answers(audit(Local)) == {READOUT: "yes"}
    assert answers(audit(Exact)) == {LATER: "yes", SYNAPSES: "yes", NEURONS: "yes", READOUT: "yes"}


class LooksAround(mutants.Local):
    """Credit weighed by how steep the others are: no weight of theirs is used, and no check of the suite sees it."""

    def credit(self, trajectory, error):
        others = super().slope(trajectory, torch.ones_like(trajectory.h[1:])).mean(-1, keepdim=True)
        return super().credit(trajectory, error) * others.unsqueeze(-1)


class Buffers(mutants.Local):
    """Credit that goes on to the presynaptic neurons two steps back, through its own random weights."""

    def signal(self, trajectory, error):
        q = super().signal(trajectory, error)
        mixed = q @ torch.linspace(-1, 1, q.shape[-1] ** 2, dtype=q.dtype).view(q.shape[-1], -1).sin()
        return q + torch.cat([mixed[2:], torch.zeros_like(mixed[:2])])


@pytest.mark.parametrize(
    ("rule", "denied"),
    [
        (mutants.BPTTInDisguise, {LATER, SYNAPSES, NEURONS, READOUT}),
        (mutants.CreditCrossesOneSynapse, {SYNAPSES, NEURONS}),
        (mutants.HiddenWeightTransport, {READOUT}),
        (LooksAround, {NEURONS}),
        (mutants.Local, set()),
        (mutants.Trace, set()),
        (mutants.Perturbation, set()),
    ],
)
def test_a_rule_that_is_less_local_than_it_says_is_caught(rule, denied):
    assert {d.on for d in audit(rule).found if d.denied} == denied


def test_a_rule_that_waits_a_fixed_number_of_steps_needs_a_second_trace_and_no_future():
    found = audit(Buffers)
    assert found.found[0].traces == (2, 2, 2)
    assert answers(found) == {}


def test_what_cannot_be_measured_is_said():
    assert "leaves W_rec as it is" in audit("readout_only").reason
    assert "noisy runs of its own" in audit("reinforce").reason
    assert "noisy runs of its own" in audit("rmhl").reason


def test_the_stored_table_is_what_is_measured_now():
    """`just locality` writes it anew."""
    names = {n for n, p in bpgen.registry.plugins("rule").items() if p.class_path.startswith("bpgen_rules")}
    assert set(stored()) == names
    for name in sorted(names):
        assert stored()[name] == json.loads(json.dumps(audit(name).plain())), name


def test_a_mark_is_for_this_rule_and_for_what_was_found_as_declared():
    assert confirmed("rflo", type(bpgen.load_rule("rflo"))) == {"needs_future", "recurrence", "weight_transport"}
    assert confirmed("rflo", mutants.Local) == set()  # a stranger's of that name
    assert confirmed("snap", type(bpgen.load_rule("snap"))) == {"needs_future", "weight_transport"}
    assert confirmed("reinforce", type(bpgen.load_rule("reinforce"))) == set()


def test_the_command_prints_declared_beside_measured_and_fails_where_a_rule_is_less_local(capsys, tmp_path):
    assert main(["check", "--locality", "mdgl"]) == 0
    text = capsys.readouterr().out
    assert "other synapses          yes       YES (updates change by" in text
    assert "no: 2 traces a synapse" in text
    assert main(["check", "--locality", "snap"]) == 0
    assert "Declared and not found, with these options and neurons: other synapses" in capsys.readouterr().out
    (tmp_path / "draft.py").write_text(
        "from bpgen.rules import OfflineRule, Traits, propagate\n\n\nclass Mine(OfflineRule):\n"
        '    traits = Traits(recurrence="diagonal", needs_future=False)\n\n    def credit(self, trajectory, error):\n'
        '        W = trajectory.params["W_rec"]\n'
        '        return propagate(trajectory, error @ trajectory.params["W_out"], carrier=W)\n'
    )
    assert main(["check", "--locality", f"{tmp_path / 'draft.py'}:Mine"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "IS LESS LOCAL THAN IT SAYS: its updates depend on later errors, other synapses, other neurons' states." in text
    )
    assert main(["check", "--locality", "rflo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rflo"]["traces"] == [1] * len(STEPS)
    assert main(["check", "--locality", "--kind", "neuron", "gru"]) == 2
    assert "--locality is measured of rules" in capsys.readouterr().err
