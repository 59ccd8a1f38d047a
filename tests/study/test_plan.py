"""Plans: what they expand to, and what is wrong with a wrong one."""

import pytest
import yaml

from bpgen.cli import main
from bpgen.cli.options import resolve
from bpgen.cli.study import EXAMPLE
from bpgen.errors import BpgenError
from bpgen.run.files import read_config
from bpgen.shipped import plans
from bpgen.study.plan import read_plan

PLAN = """
name: p
base: digits
set: {trainer: {max_epochs: 2}, network.n_rec: 12}
axes:
  rule: [bptt, {name: rflo, scale: 0.5}, {name: three_factor, label: early, set: {schedule: {early_factor: 3}}}]
  neuron.alpha: [1.0, 0.5]
tune: {axes: {optimizer.lr: [0.1, 0.2]}, seeds: [1000]}
seeds: [3, 4]
measure: {sharpness: {samples: 64}}
"""


def plan(text=PLAN, **changes):
    return read_plan({**yaml.safe_load(text), **changes}, "file")


def test_conditions_are_the_product_of_the_axes():
    conditions = {c.label: c for c in plan().conditions(resolve)}
    assert list(conditions) == [
        *("bptt, alpha=1.0", "bptt, alpha=0.5", "rflo (scale=0.5), alpha=1.0", "rflo (scale=0.5), alpha=0.5"),
        *("early, alpha=1.0", "early, alpha=0.5"),
    ]
    for c in conditions.values():
        assert c.config.network["n_rec"] == 12
        assert c.config.trainer.max_epochs == 2
        assert c.config.measurements["sharpness"]["samples"] == 64
        assert c.config.threads == 1
        assert c.config.schedule.early_factor == (3 if "early" in c.label else 1)
    assert conditions["rflo (scale=0.5), alpha=0.5"].config.rule.options["scale"] == 0.5
    assert conditions["bptt, alpha=1.0"].config.neuron.options["alpha"] == 1.0


def test_a_written_plan_reads_back_as_itself():
    assert read_plan(plan().content(), "other").content() == plan().content()


@pytest.mark.parametrize("name", sorted(plans()))
def test_shipped_plans_are_plans(name):
    content = read_plan(read_config(plans()[name]), name)
    assert content.name == name
    reference = content.axes["rule"][0]
    assert (reference if isinstance(reference, str) else reference["name"]) in ("bptt", "three_factor")
    if name.startswith("digits_"):
        assert len(content.conditions(resolve)) in (4, 6, 9)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"axis": 1}, "Did you mean 'axes'?"),
        ({"axes": None}, "axes must be a mapping"),
        ({"axes": {"rule": "bptt"}}, "axes.rule must be a list"),
        ({"seeds": 0}, "seeds must be a positive number"),
        ({"seeds": [1, 1]}, "names a seed twice"),
        ({"seeds": [1000]}, "share [1000]"),
        ({"tune": {"axes": {"optimizer.lr": [1]}, "seeds": [9], "metric": "test/loss"}}, "measured on validation data"),
        ({"tune": {"axis": {}}}, "Did you mean 'axes'?"),
        ({"measure": {"optimizer": {"lr": 1}}}, "is not a measurement"),
        ({"set": [1]}, "must be a mapping of options"),
        ({"axes": {"rule": ["bptt", "bptt"]}}, "two conditions called 'bptt'"),
        ({"axes": {"rule": ["bpt"]}}, "Did you mean 'bptt'?"),
        ({"axes": {"optimizer.rate": [1, 2]}}, "--optimizer.rate"),
        ({"axes": {"rule": [{"scale": 3}]}}, "needs a name"),
        ({"axes": {"rule": ["bptt"], "optimizer.name": [{"value": "adam", "st": {}}]}}, "Did you mean 'set'?"),
    ],
)
def test_bad_plans(changes, says):
    with pytest.raises(BpgenError) as error:
        plan(**changes).conditions(resolve)
    assert says in str(error.value)


def test_a_value_of_an_axis_can_bring_other_options_with_it():
    values = ["sgd", {"value": "adam", "set": {"optimizer.lr": 0.001}}]
    values.append({"value": "sgd", "label": "heavy", "set": {"optimizer.momentum": 0.9}})
    few = plan(axes={"rule": ["bptt"], "optimizer.name": values}, tune=None).conditions(resolve)
    assert [c.factors["optimizer.name"] for c in few] == ["sgd", "adam", "heavy"]
    assert [c.label for c in few] == ["bptt, name=sgd", "bptt, name=adam", "bptt, name=heavy"]
    chosen = [c.config.optimizer for c in few]
    assert [o.name for o in chosen] == ["sgd", "adam", "sgd"]
    assert [o.momentum for o in chosen] == [0, 0, 0.9]
    assert chosen[1].lr == 0.001 != chosen[0].lr == chosen[2].lr


def test_everything_installed_can_be_measured(install):
    measure = {name: {"samples": 64} for name in ("sharpness", "alignment", "stability", "spectrum")}
    (condition,) = plan(axes={"rule": ["bptt"]}, tune=None, measure=measure).conditions(resolve)
    assert [condition.config.measurements[name]["samples"] for name in measure] == [64] * 4
    install("theirs", {"energy": "energy:Energy"}, "bpgen.measurements")
    assert plan(measure={"energy": {"every": 2}}).overrides["energy.every"] == 2


def test_an_axis_cannot_be_set(tmp_path, capsys):
    file = tmp_path / "p.yaml"
    file.write_text(PLAN)
    assert main(["study", str(file), "--out", str(tmp_path / "s"), "--set", "neuron.alpha=0.3"]) == 2
    assert "neuron.alpha is an axis of the plan p" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["study", "liu2002"], "Did you mean 'liu2022'?"),
        (["study", "list.yaml"], "plan list.yaml must be a mapping"),
        (["study", "none.yaml"], "there is no plan file none.yaml"),
        (["study", "liu2022", "--jobs", "0"], "(--jobs) must be positive"),
        (["study", "liu2022", "--seeds", "0"], "--seeds must be positive"),
        (["study", "liu2022", "--set", "seeds"], "--set needs key=value"),
        (["study", "liu2022", "--set", "seeds=x"], "seeds must be a positive number of seeds"),
        (["compare", "--rules", "bptt,bptt"], "names a rule twice"),
        (["compare", "--rules", "bptt,rfol"], "Did you mean 'rflo'?"),
        (["compare", "--seeds", "0"], "--seeds must be positive"),
        (["reproduce", "lui2022"], "Did you mean 'liu2022'?"),
        (["reproduce", "liu2022", "--quick", "--full"], "not allowed with"),
        (["reproduce", "liu2022", "--data-dir", "/nowhere"], "/nowhere"),
        (["reproduce", "liu2022", "--data-dir", "/nowhere", "--engine", "ray"], "unknown launcher 'ray'"),
    ],
)
def test_bad_commands(argv, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("[]")
    assert main(argv) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"base": 3}, "base must be a config"),
        ({"seeds": True}, "seeds must be a positive number"),
        ({"seeds": [0, 0]}, "names a seed twice"),
    ],
)
def test_bad_bases_and_seeds_are_refused(content, message):
    with pytest.raises(BpgenError, match=message):
        read_plan({"axes": {"rule": ["rflo"]}, **content}, "p")


@pytest.mark.parametrize("option", ["seed", "out"])
def test_what_the_study_gives_cannot_be_set_or_varied(option):
    plan = read_plan({"axes": {"rule": ["rflo"]}}, "p").with_options({option: "1"})
    with pytest.raises(BpgenError, match=f"{option} cannot be set or varied"):
        plan.conditions(lambda argv: {})


def test_the_plan_in_the_help_is_one():
    text = "\n".join(EXAMPLE.split("\n\n")[0].splitlines()[1:])
    plan = read_plan(yaml.safe_load(text), "leak")
    assert (plan.name, list(plan.axes), plan.seeds) == ("leak", ["rule", "neuron.alpha"], [0, 1, 2])
    assert len(plan.conditions(resolve)) == 4
