"""Which plan ran: its hash, and what was changed in it since the first run of its study."""

import pytest
import yaml

from bpgen.study.registered import changes, history, keep, plan_hash, plan_in_words

PLAN = {
    "name": "leak",
    "question": "?",
    "base": ["digits"],
    "set": {"trainer.max_epochs": 5, "task.data_dir": "here"},
    "axes": {"rule": ["bptt", {"name": "rflo", "scale": 0.5}]},
    "tune": {"axes": {"optimizer.lr": [0.1, 0.3]}, "seeds": [1000]},
    "seeds": [0, 1, 2],
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": [0, 1, 2, 3, 4]}, "seeds: with 3, 4"),
        ({"seeds": [2, 1, 0]}, "seeds: in another order"),
        ({"set": {"trainer.max_epochs": 6}}, "trainer.max_epochs: 5, now 6"),
        ({"set": {"trainer.max_epochs": 5, "optimizer.lr": 0.1}}, "optimizer.lr: none, now 0.1"),
        (
            {"axes": {"rule": ["bptt", {"name": "rflo", "scale": 0.7}]}},
            "axes.rule: with {name: rflo, scale: 0.7}, without {name: rflo, scale: 0.5}",
        ),
        ({"axes": {**PLAN["axes"], "neuron.alpha": [1.0]}}, "axes.neuron.alpha: none, now [1.0]"),
        ({"tune": {**PLAN["tune"], "seeds": [7]}}, "tune.seeds: with 7, without 1000"),
        ({"base": ["seqmnist"]}, "base: with seqmnist, without digits"),
    ],
)
def test_what_decides_numbers_changes_the_hash_and_is_named(change, said, tmp_path):
    after = {**PLAN, **change}
    assert changes(PLAN, after) == [said]
    assert plan_hash(after) != plan_hash(PLAN)
    keep(tmp_path, PLAN)
    keep(tmp_path, after)
    words = plan_in_words(tmp_path)
    assert said in words
    assert f"Plan {plan_hash(after)}. At its first run it was {plan_hash(PLAN)}" in words


TRACKED = {**PLAN["set"], "wandb": "online", "tracking.artifacts": True}


@pytest.mark.parametrize(
    "change", [{"name": "other"}, {"question": "!"}, {"set": {"trainer.max_epochs": 5}}, {"set": TRACKED}]
)
def test_names_and_places_do_not(change):
    after = {**PLAN, **change}
    assert plan_hash(after) == plan_hash(PLAN)
    assert changes(PLAN, after) == []


def test_a_plan_that_comes_back_is_its_first_one(tmp_path):
    for plan in (PLAN, PLAN, {**PLAN, "seeds": [0]}, PLAN):
        keep(tmp_path, plan)
    assert len(history(tmp_path)) == 3
    assert plan_in_words(tmp_path) == f"Plan {plan_hash(PLAN)}, as at its first run."
    assert yaml.safe_load((tmp_path / "plan.yaml").read_text()) == PLAN


def test_a_folder_of_before_has_its_plan_as_the_first(tmp_path):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    assert plan_in_words(tmp_path) == f"Plan {plan_hash(PLAN)}, as at its first run."
    keep(tmp_path, {**PLAN, "seeds": [0]})
    assert "since then: seeds: without 1, 2." in plan_in_words(tmp_path)


@pytest.mark.parametrize("text", ["", "a: [", "5", "[1, 2]"])
def test_no_plan_no_words(text, tmp_path):
    assert plan_in_words(tmp_path) == ""
    (tmp_path / "plans.yaml").write_text(text)
    assert plan_in_words(tmp_path) == ""
