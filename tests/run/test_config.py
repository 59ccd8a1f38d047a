"""The typed config: the same files and names as version 0.1, and every mistake where it is made."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from bpgen.cli.options import resolve
from bpgen.errors import BpgenError
from bpgen.network import Network
from bpgen.registry import find, plugins
from bpgen.run import names
from bpgen.run.config import GROUPS, Choice, Config, as_begun, config_hash, differences
from bpgen.run.parts import groups
from bpgen.signatures import options_of
from bpgen.training.options import Optimizer

HASHES = json.loads(Path(__file__).with_name("hashes_of_0.1.json").read_text())


CHANGED = {  # tasks that are no longer what they were, and the options that make them so
    "adding": ["--task.noise_sd", "0.1"],
    "copy_memory": ["--task.held_out", "false"],
    "cue_accumulation": ["--task.perturbation", "gaussian"],
}


@pytest.mark.parametrize("options", HASHES)
def test_runs_keep_the_names_that_version_0_1_gave_them(options):
    config = resolve(options.split())
    if config.task.name in CHANGED:
        assert config.completed(config.make_task()).hash != HASHES[options]
        config = resolve([*options.split(), *CHANGED[config.task.name]])
    rule = find("rule", config.rule.name).load()
    if rule.suits:  # such a rule has defaults of its own now, and at those of version 0.1 its old name
        assert config.completed(config.make_task()).hash != HASHES[options]
        usual = resolve([]).plain() | {"rule": {o.name: o.default for o in options_of(rule)}}
        values = {key: usual[key.split(".")[0]][key.split(".")[1]] for key in rule.suits}
        written = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        config = resolve([*options.split(), *(f"--{key}={value}" for key, value in written.items())])
    assert config.completed(config.make_task()).hash == HASHES[options]


@pytest.mark.parametrize(
    ("name", "option", "before", "now"),
    [("copy_memory", "held_out", False, True), ("cue_accumulation", "perturbation", "gaussian", "spikes")],
)
def test_a_run_that_began_before_an_option_came_is_without_it(name, option, before, now):
    fresh = Config.of({"task": {"name": name}})
    written = fresh.completed(fresh.make_task()).plain()
    assert written["task"][option] == now  # also where Python left it out: what is written says how it began
    assert Config.of(as_begun(written)).task.options[option] == now
    lacking = {**written, "task": {"name": name}}
    assert Config.of(as_begun(lacking)).task.options[option] == before
    assert config_hash(as_begun(lacking)) == config_hash(lacking) != config_hash(written)
    assert as_begun({**lacking, "task": {"name": "romo"}})["task"] == {"name": "romo"}


def test_names_that_are_checked_early_are_those_of_the_config():
    assert tuple(GROUPS) == names.GROUPS
    mine = {*names.CHOSEN, *names.GROUPS, *names.RUN, "measurements"}
    assert {field.name for field in fields(Config)} == mine


def test_what_suits_a_rule_applies_where_the_user_gave_nothing_and_stands_in_the_config(tmp_path):
    force = resolve(["--rule", "force"])
    assert force.loss.kind == "mse"
    assert resolve([]).loss.kind is None  # another rule's is no business of this one's
    assert resolve(["--rule", "force", "--loss.kind", "cross_entropy"]).loss.kind == "cross_entropy"
    assert resolve(["--rule", "force", "--loss.kind=cross_entropy"]).loss.kind == "cross_entropy"
    mine = tmp_path / "mine.yaml"
    mine.write_text("rule: force\nloss: {kind: cross_entropy}")
    assert resolve(["--config", str(mine)]).loss.kind == "cross_entropy"
    mine.write_text(force.yaml())
    assert resolve(["--config", str(mine)]) == force


@pytest.mark.parametrize("name", plugins("rule"))
def test_what_suits_a_rule_are_options_of_a_run(name):
    suits = find("rule", name).load().suits
    config = resolve(["--rule", name]).plain()
    assert {key: config[key.split(".")[0]][key.split(".")[1]] for key in suits} == suits


UNDECIDING = ("out", "wandb", "tracking")


def edited(value):
    """Something else in the place of an option."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return "another" if value is None or isinstance(value, (str, list, dict)) else None


@pytest.mark.parametrize(
    "parts",
    [
        ["--rule", "rflo", "--task", "digits", "--neuron", "leaky"],
        ["--rule", "tbptt", "--task", "npz", "--task.file", "a.npz", "--neuron", "alif"],
        ["--rule", "kernl", "--task", "cue_accumulation", "--neuron", "lif"],
        ["--rule", "modprop", "--task", "adding", "--neuron", "gru"],
    ],
    ids=lambda parts: parts[1],
)
def test_an_edit_of_any_option_is_another_run_and_is_named(parts):
    """All options of four resolved configs, one after the other: what a resumed run compares (`bpgen fit --resume`)."""
    before, n = resolve(parts).plain(), 0
    for group, value in before.items():
        edits = (
            [(option, {**value, option: edited(v)}) for option, v in value.items()] if isinstance(value, dict) else []
        )
        for option, after in edits or [(None, edited(value))]:
            key = group if option is None else f"{group}.{option}"
            found = differences(before, {**before, group: after})
            assert (config_hash({**before, group: after}) == config_hash(before)) == (group in UNDECIDING), key
            assert [line.split(":")[0] for line in found] == ([] if group in UNDECIDING else [key])
            n += 1
    assert n >= 75  # options that were tried


def test_plain_and_back():
    config = resolve(["--rule", "tbptt", "--rule.window", "3", "--optimizer.lr_scale", '{"W_out": 0.1}'])
    written = yaml.safe_load(config.yaml())
    assert written.pop("format") == 1
    again = Config.of({**written, "seed": 4})
    assert again != config
    assert Config.of({**again.plain(), "seed": 0}) == config
    assert again.plain() == {**config.plain(), "seed": 4}
    assert list(config.plain()) == [
        *("rule", "task", "neuron", "network", "loss", "optimizer", "schedule", "trainer", "evaluation"),
        *("gap", "sharpness", "alignment", "stability", "spectrum", "tracking", "seed", "out", "wandb", "threads"),
    ]
    assert config.rule == Choice("rule", "tbptt", {"window": 3, "style": "blocks"})
    assert config.optimizer == Optimizer(lr_scale={"W_out": 0.1})


def test_the_table_of_parts_has_every_group_of_a_config():
    config = resolve([])
    named = [group.name for group in groups({"rule": "rflo", "task": "digits", "neuron": "leaky"})]
    named.remove("preconditioned")  # a config holds it, as any measurement younger than 0.1, where it is switched on
    assert named == [key for key, value in config.plain().items() if isinstance(value, dict)]
    assert "preconditioned" in resolve(["--preconditioned.samples", "8"]).plain()


def test_what_is_left_out_takes_its_default():
    config = Config.of({"rule": {"name": "bptt"}, "network": {"n_rec": 8}})
    assert (config.rule, config.neuron.name, config.seed) == (Choice("rule", "bptt"), "leaky", 0)
    assert config.label == "digits-bptt-seed0"
    assert Config.of({"rule": {"scale": 0.5}}).rule == Choice("rule", "rflo", {"scale": 0.5})


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        ({"optimizer": {"lrr": 1.0}}, "unknown option of optimizer 'lrr'.*Did you mean 'lr'"),
        ({"optimizer": {"lr": "fast"}}, "optimizer: lr must be a number, got 'fast'"),
        ({"optimizer": 0.1}, "optimizer in a config must be a mapping"),
        ({"network": {"n_recs": 3}}, "unknown option of network 'n_recs'.*Did you mean 'n_rec'"),
        ({"evaluation": {"points": None}}, "evaluation: points must be a whole number"),
        ({"threads": 0}, "threads must be from 1 to 512, got 0"),
        ({"wandb": "onlin"}, "unknown wandb mode 'onlin'.*Did you mean 'online'"),
    ],
)
def test_mistakes_are_found_where_the_config_is_made(plain, says):
    with pytest.raises(BpgenError, match=says):
        Config.of(plain)


def test_the_hash_is_of_what_decides_the_numbers():
    plain = resolve([]).plain()
    for changed in ({"out": "b"}, {"wandb": "online"}, {"tracking": {"group": "g"}}):
        assert config_hash({**plain, **changed}) == config_hash(plain)
    for changed in ({"seed": 1}, {"threads": 2}, {"network": {**plain["network"], "areas": {"a": {}}}}):
        assert config_hash({**plain, **changed}) != config_hash(plain)
    assert differences(plain, {**plain, "out": "b", "seed": 1}) == ["seed: 0, now 1"]
    fewer = {**plain, "network": {"n_rec": 3}}
    assert "network.n_rec: 128, now 3" in differences(plain, fewer)


def test_networks_options_are_those_of_its_constructor():
    options = resolve([]).plain()["network"]
    assert Network(resolve([]).neuron.make(), 3, n_out=2, seed=0, **options).n_rec == 128
