"""A plan: what to compare, what to re-tune for each condition, which seeds; read from a small YAML file.

    name: leak                      folder and title
    question: one sentence          stands above the report
    base: digits                    a shipped config, a file, or a list of them; later ones win
    set: {trainer: {max_epochs: 5}} overrides of the base, nested or dotted (trainer.max_epochs: 5)
    axes:                           SCIENTIFIC: every combination of values is one condition
      rule: [bptt, {name: rflo, scale: 0.5, label: rflo weak, set: {schedule.early_factor: 3}}]
      neuron.alpha: [1.0, 0.5]
      optimizer.name: [sgd, {value: adam, set: {optimizer.lr: 0.003}}]
    tune:                           NUISANCE: chosen anew for every condition, on validation data only
      axes: {optimizer.lr: [0.01, 0.03], rule.scale: [0.5, 1]}
      seeds: [1000, 1001]           its own seeds, none of the study's
      metric: val/loss              smaller is better; taken at the last evaluation, mean over seeds
      set: {trainer.max_epochs: 3}  what tuning runs do differently
    seeds: 5                        0 ... 4, or a list
    measure: {evaluation: {every: epoch}, sharpness: {samples: 512}, gap: {}, alignment: {}}

Whatever is not an axis is fixed. The same seed means the same initial weights and batches in every condition.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bpgen.analysis.spending import planned_looks
from bpgen.errors import BpgenError, choice, require, unknown
from bpgen.registry import plugins
from bpgen.run.config import Config
from bpgen.run.files import as_text
from bpgen.study.seeds import read_looks, read_seeds

Overrides = dict[str, Any]  # dotted option -> value
Resolver = Callable[[list[str]], Config]  # the arguments of `bpgen fit` -> its resolved config
_KEYS = ("format", "name", "question", "base", "set", "axes", "tune", "seeds", "looks", "measure")
_GIVEN = {
    "seed": "seeds are given by `seeds`",
    "out": "every run has its place in the folder of the study (--out)",
    "name": "runs of a study are named by condition and seed",
    "config": "configs are given by `base`",
}
_PARTS = ("rule", "neuron", "task")  # axes whose values are parts, with options of their own
_TUNE_KEYS = ("axes", "seeds", "metric", "set")


@dataclass(frozen=True)
class Tuning:
    """The nuisance parameters of a study and how they are chosen; see the module's docstring."""

    axes: dict[str, list[Any]]
    seeds: list[int]
    metric: str = "val/loss"
    overrides: Overrides = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """One cell of the scientific axes.

    Attributes:
        label: what figures and tables call it.
        factors: its value on every axis, for the table.
        overrides: its options on top of the plan's.
        config: the resolved config, with the seed of no run in particular.
    """

    label: str
    factors: dict[str, Any]
    overrides: Overrides
    config: Config


@dataclass(frozen=True)
class Plan:
    """A study as its author wrote it.

    looks: numbers of seeds at which it is looked whether all is decided; empty where all seeds are run at once.
    """

    name: str
    base: list[str]
    axes: dict[str, list[Any]]
    seeds: list[int]
    overrides: Overrides = field(default_factory=dict)
    tune: Tuning | None = None
    question: str = ""
    looks: list[int] = field(default_factory=list)

    def with_options(self, overrides: Overrides, seeds: list[int] | None = None) -> Plan:
        """The plan with further overrides, as `--set` gives them.

        Raises:
            BpgenError: an override of something the plan varies.
        """
        varied = [*self.axes, *(self.tune.axes if self.tune else ())]
        for key in overrides:
            require(key not in varied, f"{key} is an axis of the plan {self.name}: change it there.")
        return replace(self, overrides={**self.overrides, **overrides}, seeds=seeds or self.seeds)

    def content(self) -> dict[str, Any]:
        """The plan as a YAML file would hold it."""
        tune = self.tune and {
            "axes": self.tune.axes,
            "seeds": self.tune.seeds,
            "metric": self.tune.metric,
            "set": self.tune.overrides,
        }
        head = {"name": self.name, "question": self.question, "base": self.base, "set": self.overrides}
        looks = {"looks": self.looks} if self.looks else {}
        return {**head, "axes": self.axes, **({"tune": tune} if tune else {}), "seeds": self.seeds, **looks}

    def until_decided(self, most: int) -> Plan:
        """The plan with seeds 0, 1, ... that are added in looks, up to a largest number.

        Raises:
            BpgenError: it is too small.
        """
        require(most >= 2, f"--max-seeds must be 2 or more, got {most}.")
        tuned_on = [seed for seed in (self.tune.seeds if self.tune else []) if seed < most]
        require(not tuned_on, f"seeds {tuned_on} are those of the tuning: fewer --max-seeds, or other tune.seeds.")
        return replace(self, seeds=list(range(most)), looks=planned_looks(most))

    def conditions(self, resolve: Resolver) -> list[Condition]:
        """All combinations of the scientific axes, resolved.

        Raises:
            BpgenError: an option no run has, or two conditions of the same name.
        """
        varied = {axis for axis, values in self.axes.items() if len(values) > 1}
        conditions: list[Condition] = []
        for values in itertools.product(*self.axes.values()):
            factors, parts, overrides = {}, [], dict(self.overrides)
            for axis, value in zip(self.axes, values, strict=True):
                shown, changes = _axis_value(axis, value)
                overrides.update(changes)
                factors[axis] = shown
                if axis == "rule" or axis in varied:
                    parts.append(str(shown) if axis == "rule" else f"{axis.split('.')[-1]}={shown}")
            label = ", ".join(parts) or self.name
            require(
                label not in [c.label for c in conditions],
                f"plan {self.name} has two conditions called {label!r}: give one of them a label.",
            )
            conditions.append(Condition(label, factors, overrides, self.resolved(resolve, overrides)))
        return conditions

    def resolved(self, resolve: Resolver, overrides: Overrides) -> Config:
        """The resolved config of the base with these overrides: one thread, no tracking service."""
        for key in overrides:
            require(key not in _GIVEN, f"{key} cannot be set or varied in a study: {_GIVEN.get(key)}.")
        argv = [part for config in self.base for part in ("--config", config)]
        fixed = {"threads": 1, "wandb": "off"}
        options = (f"--{key}={as_text(value)}" for key, value in {**fixed, **overrides}.items())
        return resolve([*argv, *options])


def read_plan(content: Mapping[str, Any], default_name: str) -> Plan:
    """A plan from the content of its YAML file.

    Raises:
        BpgenError: unknown keys, no axes, or seeds used twice.
    """
    for key in content:
        if key not in _KEYS:
            raise unknown("key in a plan", str(key), _KEYS)
    axes = _axes(content.get("axes"), "axes")
    measure = flatten(content.get("measure") or {}, "measure")
    measuring = ["evaluation", *plugins("measurement")]
    for key in measure:
        require(key.split(".")[0] in measuring, f"measure.{key} is not a measurement: expected {', '.join(measuring)}.")
    seeds = read_seeds(content.get("seeds", 5), "seeds")
    looks = read_looks(content.get("looks") or [])
    seeds = list(range(looks[-1])) if looks else seeds
    tune = content.get("tune")
    base = content.get("base", "digits")
    base = [base] if isinstance(base, str) else base
    named = isinstance(base, list) and bool(base) and all(isinstance(config, str) for config in base)
    require(named, f"base must be a config or a list of configs, e.g. base: digits, got {base!r}.")
    name = str(content.get("name", default_name))
    require(
        bool(name.strip(". ")) and not set(name) & set("/\\\0"),
        f"name of a plan must be the name of a folder, without / and \\, got {name!r}.",
    )
    return Plan(
        name=name,
        question=str(content.get("question", "")),
        base=list(base),
        axes=axes,
        seeds=seeds,
        overrides={**flatten(content.get("set") or {}, "set"), **measure},
        tune=None if tune is None else _tuning(tune, seeds),
        looks=looks,
    )


def _tuning(content: Any, seeds: Sequence[int]) -> Tuning:
    require(isinstance(content, dict), "tune must be a mapping with axes and seeds.")
    for key in content:
        if key not in _TUNE_KEYS:
            raise unknown("key in tune", str(key), _TUNE_KEYS)
    own = read_seeds(content.get("seeds", [1000]), "tune.seeds")
    both = sorted(set(own) & set(seeds))
    require(not both, f"tune.seeds and seeds share {both}: what was tuned on a seed must not be tested on it.")
    metric = str(content.get("metric", "val/loss"))
    require(metric.startswith("val/"), f"tune.metric must be measured on validation data (val/...), got {metric}.")
    return Tuning(_axes(content.get("axes"), "tune.axes"), own, metric, flatten(content.get("set") or {}, "tune.set"))


def _axes(content: Any, where: str) -> dict[str, list[Any]]:
    require(
        isinstance(content, dict) and bool(content),
        f"{where} must be a mapping of options to lists of values, e.g. {{rule: [bptt, rflo]}}.",
    )
    for axis, values in content.items():
        require(isinstance(values, list) and bool(values), f"{where}.{axis} must be a list of values, got {values!r}.")
    return dict(content)


def _axis_value(axis: str, value: Any) -> tuple[Any, Overrides]:
    """How a value of an axis is called, and what it changes."""
    if not isinstance(value, dict) or (axis not in _PARTS and "value" not in value):
        return value, {axis: value}
    if axis not in _PARTS:
        for key in value:
            choice(f"key in a value of the axis {axis}", str(key), ("value", "label", "set"))
        return value.get("label", value["value"]), {axis: value["value"], **flatten(value.get("set") or {}, "set")}
    require("name" in value, f"a value of the axis {axis} needs a name, got {value}.")
    options = {k: v for k, v in value.items() if k not in ("label", "set")}
    changes = {f"{axis}.{k}" if k != "name" else axis: v for k, v in options.items()}
    given = ", ".join(f"{k}={v}" for k, v in options.items() if k != "name")
    label = value.get("label") or (f"{value['name']} ({given})" if given else value["name"])
    return str(label), {**changes, **flatten(value.get("set") or {}, "set")}


def flatten(content: Any, where: str) -> Overrides:
    """`{trainer: {max_epochs: 5}}` -> `{"trainer.max_epochs": 5}`; dotted keys stay."""
    if not isinstance(content, dict):
        raise BpgenError(f"{where} must be a mapping of options, e.g. {{optimizer.lr: 0.1}}, got {content!r}.")
    flat: Overrides = {}
    for key, value in content.items():
        if isinstance(value, dict) and "." not in key:
            flat.update({f"{key}.{option}": v for option, v in value.items()})
        else:
            flat[str(key)] = value
    return flat
