"""The config of a run: everything that decides it, as one frozen value.

rule, task, neuron               parts that are chosen by name, each with its options (`Choice`)
network, evaluation              options of a constructor
loss, optimizer, ..., tracking   values of their own
gap, sharpness, ...              the options of each measurement, by its name
seed, name, out, wandb, threads  of the run itself; `config.yaml` has these keys in this order, one level deep
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, NamedTuple

from bpgen._version import __version__
from bpgen.callbacks.clock import EvaluationClock
from bpgen.errors import choice, require
from bpgen.network import Network
from bpgen.registry import KindName, find
from bpgen.run import dialect
from bpgen.run.files import FORMAT
from bpgen.run.names import CHOSEN, RUN, checked_name
from bpgen.signatures import check_options, options_of
from bpgen.tasks import Task
from bpgen.threads import MOST
from bpgen.tracking.wandb import Mode, Tracking
from bpgen.training.options import LossOptions, Optimizer, Schedule, TrainerOptions

Options = Mapping[str, Any]
GROUPS: dict[str, type] = {  # the class whose constructor takes the options
    "network": Network,
    "loss": LossOptions,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "trainer": TrainerOptions,
    "evaluation": EvaluationClock,
    "tracking": Tracking,
}
GIVEN = {"network": frozenset({"neuron", "n_in", "n_out", "seed", "dtype"})}  # arguments that are no options
HEAD = f"# bpgen {__version__}; run again with: bpgen fit --config THIS_FILE\n"  # of a config file
_NOT_DECIDING = ("name", "out", "wandb", "tracking")


class Younger(NamedTuple):
    """An option that came after version 0.1, of a group or of one part, and the value that leaves all as it was."""

    group: str
    part: str | None
    name: str
    as_before: Any


_YOUNGER = (
    Younger("network", None, "areas", None),
    Younger("network", None, "torus", None),
    Younger("network", None, "readout_density", 1.0),
    Younger("network", None, "input_density", 1.0),
    Younger("network", None, "rescale", True),
    Younger("neuron", None, "adaptive", 1.0),
    Younger("neuron", None, "learn_alpha", False),
    Younger("neuron", "alif", "adaptation", "plain"),
    Younger("trainer", None, "best_by", "val/loss"),
    Younger("trainer", None, "patience", None),
    Younger("task", "copy_memory", "held_out", False),
    Younger("task", "cue_accumulation", "perturbation", "gaussian"),
    Younger("task", "cue_accumulation", "side", 0.7),
    Younger("task", "digits", "n_train", 1197),
    Younger("task", "pattern_generation", "input_rate", None),
    Younger("task", "npz", "step_weights", "sum"),
    Younger("task", "npz", "class_weights", "equal"),
    Younger("task", "npz", "mask_weights", "given"),
)


@dataclass(frozen=True)
class Choice:
    """A part chosen by name, with its options."""

    kind: KindName
    name: str
    options: Options = field(default_factory=dict)

    def make(self) -> Any:
        """The part itself.

        Raises:
            BpgenError: no such part or option, or a value that it refuses.
        """
        return find(self.kind, self.name).make(**self.options)

    @property
    def label(self) -> str:
        """Its name, as a folder may bear it: of FILE.py:Class the class."""
        return self.name.rpartition(":")[2]


@dataclass(frozen=True)
class Config:
    """See the module's docstring. Fields in the order of a config file.

    Raises:
        BpgenError: an option does not exist, or is of the wrong type or out of its range.
    """

    rule: Choice = Choice("rule", CHOSEN["rule"])
    task: Choice = Choice("task", CHOSEN["task"])
    neuron: Choice = Choice("neuron", CHOSEN["neuron"])
    network: Options = field(default_factory=dict)
    loss: LossOptions = field(default_factory=LossOptions)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    evaluation: Options = field(default_factory=dict)
    measurements: Mapping[str, Options] = field(default_factory=dict)
    tracking: Tracking = field(default_factory=Tracking)
    seed: int = 0
    name: str | None = None
    out: str = "runs"
    wandb: Mode = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("network", "evaluation"):
            check_options(GROUPS[name], getattr(self, name), name)
        few = self.threads is None or 1 <= self.threads <= MOST
        require(few, f"threads must be from 1 to {MOST}, got {self.threads}.")
        if self.name is not None:
            checked_name(self.name)
        choice("wandb mode", self.wandb, Mode)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Config:
        """From a plain dictionary; what it leaves out takes its default.

        A group that is none of the config's own is a measurement's, be it installed or not.

        Raises:
            BpgenError: a group is no mapping, or see `Config`.
        """
        fields: dict[str, Any] = {}
        measurements: dict[str, Options] = {}
        for key, value in plain.items():
            if key == "format":  # of a config file
                continue
            require(key in RUN or isinstance(value, Mapping), f"{key} in a config must be a mapping of options.")
            if key in CHOSEN:
                options = {option: v for option, v in value.items() if option != "name"}
                fields[key] = Choice(key, value.get("name", CHOSEN[key]), options)
            elif key in GROUPS and is_dataclass(GROUPS[key]):
                check_options(GROUPS[key], value, key)
                fields[key] = GROUPS[key](**value)
            elif key in GROUPS or key in RUN:
                fields[key] = value
            else:
                measurements[key] = value
        return cls(**fields, measurements=measurements)

    def plain(self) -> dict[str, Any]:
        """As a plain dictionary."""
        plain: dict[str, Any] = {}
        for name in [f.name for f in fields(self)]:
            value = getattr(self, name)
            if name == "measurements":
                plain |= {measurement: dict(options) for measurement, options in value.items()}
            elif isinstance(value, Choice):
                plain[name] = {"name": value.name, **value.options}
            elif isinstance(value, Mapping):
                plain[name] = dict(value)
            elif name != "name" or value is not None:
                plain[name] = asdict(value) if is_dataclass(value) else value  # type: ignore[arg-type]
        return plain

    def yaml(self) -> str:
        """As a config file."""
        return HEAD + dialect.written({"format": FORMAT, **self.plain()})

    def make_task(self) -> Task:
        """The task itself; its option data_seed may be "run", which is the seed of the run.

        Raises:
            BpgenError: see `Choice.make`.
        """
        options = dict(self.task.options)
        if options.get("data_seed") == "run":
            options["data_seed"] = self.seed
        task: Task = replace(self.task, options=options).make()
        return task

    @property
    def hash(self) -> str:
        """A short name of everything that decides the run's numbers, see `config_hash`."""
        return config_hash(self.plain())

    @property
    def label(self) -> str:
        """What the run's folder is called: one name, whatever the parts are called."""
        return self.name or re.sub(r"[/\\\0]", "_", f"{self.task.label}-{self.rule.label}-seed{self.seed}")

    @property
    def title(self) -> str:
        """What its figures are headed."""
        parts = f"{self.rule.label} on {self.task.label}, seed {self.seed} (n = 1 run)"
        return f"{self.name}: {parts}" if self.name else parts

    def completed(self, task: Task) -> Config:
        """The same config with what it leaves to the task: what a run writes down."""
        loss = replace(self.loss, kind=self.loss.kind or task.loss, when=self.loss.when or task.when)
        said = {name for group, part, name, _ in _YOUNGER if group == "task" and part == self.task.name}
        young = {o.name: o.default for o in options_of(type(task)) if o.name in said}
        return replace(self, loss=loss, task=replace(self.task, options={**young, **self.task.options}))


def config_hash(plain: Mapping[str, Any]) -> str:
    """A short name of everything in a plain config that decides a run's numbers.

    Where a run is written and tracked does not. An option that came later counts where it changes something, so that
    the runs of earlier versions keep their names.
    """
    deciding: dict[str, Any] = {key: value for key, value in plain.items() if key not in _NOT_DECIDING}
    for group, part, name, as_before in _YOUNGER:
        given = deciding.get(group, {})
        if part in (None, given.get("name")) and name in given and given[name] == as_before:
            deciding[group] = {key: value for key, value in given.items() if key != name}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:12]


def as_begun(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The plain config of a saved run with the options that it lacks because it began before they came."""
    begun = dict(saved)
    for group, part, name, as_before in _YOUNGER:
        if part is not None and part == begun.get(group, {}).get("name"):
            begun[group] = {name: as_before, **begun[group]}
    return begun


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What decides a run's numbers and differs between two plain configs: `optimizer.lr: 0.02, now 0.5`."""
    old, new = _flat(before), _flat(after)
    changed = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    return [f"{key}: {old.get(key)}, now {new.get(key)}" for key in changed]


def _flat(plain: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if key not in _NOT_DECIDING:
            options = {f"{key}.{option}": v for option, v in value.items()} if isinstance(value, Mapping) else None
            flat |= {key: value} if options is None else options
    return flat
