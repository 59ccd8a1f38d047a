"""Slow: the shipped config of every task trains it above chance with BPTT and with a local rule, as its header says."""

import pytest

from bpgen.cli.options import resolve
from bpgen.run.fit import fit

# What must be exceeded: test accuracy with BPTT and with the three-factor rule. Chance is 0.5 where nothing is said.
ABOVE = {
    "adding": (0.6, 0.12),  # always answering the mean is right in 8 %
    "copy_memory": (0.55, 0.45),  # chance 0.25; of sequences that were not trained
    "flip_flop": (0.9, 0.9),  # always answering 0 is never right
    "perceptual_decision": (0.8, 0.8),  # an ideal observer reaches 0.85
    "context_decision": (0.85, 0.85),  # judging both modalities 0.75
    "delayed_match_to_sample": (0.95, 0.95),
    "romo": (0.95, 0.95),  # the second stimulus alone 0.75
    "cue_accumulation": (0.85, 0.85),  # the last cue alone 0.72
    "spiking_delayed_match": (0.85, 0.75),
}


def trained(task, rule, tmp_path):
    options = ["--sharpness.samples", "0", "--alignment.samples", "0", "--wandb", "off", "--evaluation.every", "100000"]
    config = resolve(["--config", task, "--rule", rule, "--out", str(tmp_path), "--threads", "1", *options])
    outcome = fit(config, say=lambda _: None)
    assert outcome.status == "finished"
    return outcome.folder.rows()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("which", "rule"), [(0, "bptt"), (1, "three_factor")])
@pytest.mark.parametrize("task", ABOVE)
def test_a_task_is_learned(task, which, rule, tmp_path):
    assert trained(task, rule, tmp_path)["test/accuracy"] > ABOVE[task][which]


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["bptt", "three_factor", "rflo"])
def test_a_pattern_is_generated(rule, tmp_path):
    assert trained("pattern_generation", rule, tmp_path)["test/loss"] < 0.05  # answering 0: 0.5


def test_a_constant_answer_does_not_pass(tmp_path):
    config = resolve(["--config", "romo", "--out", str(tmp_path), "--wandb", "off", "--trainer.max_steps", "1"])
    assert fit(config, say=lambda _: None).folder.rows()[0]["test/accuracy"] < ABOVE["romo"][0]
