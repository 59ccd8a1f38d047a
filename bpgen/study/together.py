"""Which runs of a study are done at once: seeds of one condition, where that is faster by the rule of thumb."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bpgen.registry import find
from bpgen.study.launchers import Job, Launcher
from bpgen.study.runs import Run
from bpgen.training.at_once import slower

MOST = 8  # seeds at once: more gain little more, and are lost together when their process is killed


def jobs_of(runs: Iterable[Run], study: Path, launcher: Launcher) -> list[Job]:
    """The jobs of runs in their order, with those seeds put beside the first of them that are better done at once.

    Every process keeps something to do: fewer seeds are at once where there are few runs.

    Args:
        runs: that are to be done.
        study: its folder.
        launcher: who does them.
    """
    if not launcher.seeds_at_once:
        return [run.job(study) for run in runs]
    alike: dict[tuple[str, str], list[Job]] = {}
    for run in runs:
        key = replace(run.config, seed=0).hash if _may_be_grouped(run) else run.hash
        alike.setdefault((key, run.config.out), []).append(run.job(study))
    size = max(1, min(MOST, sum(map(len, alike.values())) // launcher.processes))
    parts = [same[i : i + size] for same in alike.values() for i in range(0, len(same), size)]
    return [replace(first, beside=tuple(others)) for first, *others in parts]


def _may_be_grouped(run: Run) -> bool:
    """Whether it begins now, is small, and ends when all its seeds do."""
    config, options = run.config, run.config.trainer
    if run.folder is not None or options.chunk is not None or options.patience is not None:
        return False
    measuring = (find("measurement", name).make(**given) for name, given in config.measurements.items())
    if any(measurement.enabled and measurement.alone for measurement in measuring):
        return False
    N = int(config.network.get("n_rec", 128))
    return not slower(options.batch_size * config.neuron.make().n_currents * N * N, options.accelerator)
