"""Methods in words, from the configs alone: what a paper's supplement needs, and what differed between the runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bpgen.registry import KindName, plugins
from bpgen.study.catalogue import RunEntry, StudyEntry
from bpgen.study.registered import plan_in_words

_NOT_METHODS = ("seed", "name", "out", "wandb", "tracking", "threads", "format")
_Config = Mapping[str, Any]
_MATCHING = """\
Comparisons are made within seeds and at matched training loss: values are interpolated, linearly in the logarithm of \
the loss, where the monotone curve closest to a run's log loss comes down to the lowest loss that 80 % of all planned \
seeds reach under each of the conditions compared. A run that never gets there has no value and is counted."""


def differing(configs: Sequence[_Config]) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Options that differ between the runs with their values, and all options with theirs, in their order."""
    values: dict[str, dict[str, None]] = {}
    flats = [_flat(config) for config in configs]
    for flat in flats:
        for key, value in flat.items():
            values.setdefault(key, {})[_text(value)] = None
    differ = {key: list(own) for key, own in values.items() if len(own) > 1}
    return differ, [(key, ", ".join(_few(list(own)))) for key, own in values.items()]


def methods(runs: Sequence[RunEntry], study: StudyEntry | None) -> list[str]:
    """Paragraphs on task, network, rules, training, seeds, plan, measures and tuning."""
    configs = [run.config for run in runs if not run.problem]
    if not configs:
        return []
    values = _Values(configs)
    paragraphs = [
        _parts("Task", "task", configs),
        _network(values, configs),
        _parts("Learning rules", "rule", configs),
        _training(values),
        _seeds(runs),
        "" if study is None else plan_in_words(study.path),
        _measures(values),
        _tuning(study),
        _MATCHING if len(configs) > 1 else "",
    ]
    return [paragraph for paragraph in paragraphs if paragraph]


class _Values:
    """The values of an option over all runs, as a text."""

    def __init__(self, configs: Sequence[_Config]) -> None:
        self._flats = [_flat(config) for config in configs]

    def of(self, key: str) -> str:
        """Its values, joined; empty where no run has the option."""
        seen = dict.fromkeys(_text(flat[key]) for flat in self._flats if key in flat)
        return " or ".join(_few(list(seen)))

    def has(self, key: str) -> bool:
        """Whether some run has it, and not switched off."""
        return any(flat.get(key) not in (None, 0, 0.0, False) for flat in self._flats)


def _network(v: _Values, configs: Sequence[_Config]) -> str:
    sentence = f"Networks have {v.of('network.n_rec') or 'the default number of'} recurrent neurons"
    parts = [sentence + f" and were drawn by init = {v.of('network.init')}" if v.of("network.init") else sentence]
    if v.has("network.sigma_rec"):
        parts.append(f"Current noise had a standard deviation of {v.of('network.sigma_rec')}.")
    for option, words in (
        ("network.dale", "Dale's law"),
        ("network.ring", "a ring"),
        ("network.torus", "a torus"),
        ("network.cell_types", "types"),
    ):
        if v.has(option):
            parts.append(f"Connectivity: {words} ({v.of(option)}).")
    density = v.of("network.density")
    parts += [f"Density of recurrent connections: {density}."] if density not in ("", "1.0") else []
    first = parts[0] + "." if not parts[0].endswith(".") else parts[0]
    return " ".join([first, *parts[1:], _parts("Neurons", "neuron", configs)])


def _training(v: _Values) -> str:
    rate = f"learning rate {v.of('optimizer.lr')}" if v.of("optimizer.lr") else "the default learning rate"
    text = f"Training: {v.of('optimizer.name') or 'sgd'} with {rate}"
    text += f", momentum {v.of('optimizer.momentum')}" if v.has("optimizer.momentum") else ""
    text += f", batches of {v.of('trainer.batch_size')}" if v.of("trainer.batch_size") else ""
    steps, epochs = v.of("trainer.max_steps"), v.of("trainer.max_epochs")
    if v.has("trainer.max_steps") and steps not in ("-1", "none"):
        text += f", at most {steps} steps"
    elif epochs:
        text += f", {epochs} epochs"
    text += f", gradients clipped at {v.of('trainer.clip')}" if v.has("trainer.clip") else ""
    schedule = v.of("schedule.name")
    text += f", learning rate schedule {schedule}" if schedule not in ("", "constant", "none") else ""
    when = {"last": "at the last time step", "all": "at all time steps"}.get(v.of("loss.when"), v.of("loss.when"))
    loss = f" Loss: {v.of('loss.kind').replace('_', ' ')}, {when}." if v.of("loss.kind") else ""
    l2 = f" L2 penalty {v.of('loss.l2')}, part of the loss." if v.has("loss.l2") else ""
    return f"{text}.{loss}{l2}"


def _measures(v: _Values) -> str:
    parts = []
    if v.has("sharpness.samples"):
        parts.append(
            f"sharpness: the largest eigenvalue of the Hessian of the true loss for {v.of('sharpness.block')}, on "
            f"{v.of('sharpness.samples')} training samples, to a relative residual of {v.of('sharpness.tol')}"
        )
    if v.of("gap.train_samples"):
        parts.append("generalization gap: test against training performance of the same weights")
    if v.has("alignment.samples"):
        parts.append(f"alignment with the true gradient (BPTT) on {v.of('alignment.samples')} samples")
    if v.has("stability.samples"):
        parts.append(f"stability of the rule's update on {v.of('stability.samples')} samples")
    every = {"log": ", at steps spaced evenly in their logarithm", "epoch": ", after every epoch"}
    when = v.of("evaluation.every")
    shown = every.get(when, f", every {when} steps" if when else "")
    return f"Measures{shown}: {'; '.join(parts)}." if parts else ""


def _seeds(runs: Sequence[RunEntry]) -> str:
    seeds = sorted({s for run in runs if isinstance(s := run.config.get("seed"), int)})
    named = ", ".join(_few([str(s) for s in seeds], 40))
    return f"Seeds: {named}. The same seed gives the same initial weights and batches under every condition."


def _tuning(study: StudyEntry | None) -> str:
    tune = None if study is None else study.plan.get("tune")
    if not isinstance(tune, Mapping):
        return ""
    axes = tune.get("axes")
    tried = "; ".join(f"{k}: {', '.join(map(_text, v))}" for k, v in axes.items()) if isinstance(axes, Mapping) else ""
    seeds = ", ".join(map(str, tune.get("seeds") or []))
    return (
        f"Nuisance parameters were chosen anew for every condition by the lowest {tune.get('metric', 'val/loss')} on "
        f"validation data, mean over seeds {seeds}, none of which is one of the study's. Tried: {tried}."
    )


def _parts(title: str, kind: KindName, configs: Iterable[_Config]) -> str:
    """Every part of a kind with the values of its options, and its own words about itself."""
    known = plugins(kind)
    seen: dict[str, dict[str, dict[str, None]]] = {}
    for config in configs:
        part = config[kind] if isinstance(config.get(kind), Mapping) else {}
        options = seen.setdefault(str(part.get("name", "?")), {})
        for key, value in part.items():
            if key not in ("name", "data_dir"):
                options.setdefault(str(key), {})[_text(value)] = None
    described = []
    for name, options in seen.items():
        values = ", ".join(f"{key} = {' or '.join(_few(list(own)))}" for key, own in options.items())
        summary = f": {known[name].summary.rstrip('.')}" if name in known else ""
        described.append(f"{name}{f' ({values})' if values else ''}{summary}")
    return f"{title}: {'; '.join(_few(described, 24))}."


def _flat(config: _Config) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key not in _NOT_METHODS:  # nor is a data folder one: it is a place on somebody's machine
            options = value if isinstance(value, Mapping) else {"": value}
            flat |= {f"{key}.{k}".rstrip("."): v for k, v in options.items() if k != "data_dir"}
    return flat


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value, default=str)


def _few(texts: list[str], most: int = 8) -> list[str]:
    """A long list cut short, with the number of the rest."""
    return texts if len(texts) <= most else [*texts[:most], f"{len(texts) - most} more"]
