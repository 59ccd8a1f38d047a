"""The life of one run, from a config to a finished folder: what `bpgen fit` does."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import lightning.pytorch as pl
import pandas as pd
import torch

from bpgen._version import __version__
from bpgen.callbacks.best import EarlyStopping, best_of
from bpgen.errors import DivergedError, RuleError, raised_in, require
from bpgen.figures.run import run_figures
from bpgen.run.build import Experiment, build
from bpgen.run.config import Config, config_hash, differences
from bpgen.run.files import load_file
from bpgen.run.folder import RunFolder
from bpgen.run.progress import ProgressBar, ProgressLines
from bpgen.run.record import Interrupt, Record, RunInterrupted
from bpgen.run.time_left import TimeLeft
from bpgen.run.tracked import hand_over
from bpgen.threads import using
from bpgen.tracking.batch_loss import BatchLoss
from bpgen.training.module import RuleTraining
from bpgen.training.trainer import quiet_lightning, trainer_for

Say = Callable[[str], None]
say_at_once: Say = partial(print, flush=True)  # also where the output is a file
_EXIT_CODES = {"finished": 0, "failed": 2, "diverged": 3}


class Audience(NamedTuple):
    """Who watches a run; see `fit`."""

    say: Say
    terminal: bool
    draw: bool


class Ending(NamedTuple):
    """How a run ended: its folder, status, what there is to say about it, and the exit code that says so."""

    folder: RunFolder
    status: str
    message: str
    exit_code: int


class Before(NamedTuple):
    """What an earlier part of the same run left.

    hash: of its config. seconds: it took so far. wandb_id: of its W&B run. checkpoint: where to go on.
    threads: on which it computed; they decide the last bit of large products.
    """

    hash: str
    seconds: float = 0.0
    wandb_id: str | None = None
    checkpoint: str | None = None
    threads: int | None = None


def fit(config: Config, say: Say = say_at_once, terminal: bool = False, draw: bool = True) -> Ending:
    """Train and measure one network, in a new folder.

    Args:
        config: all of it, e.g. `Config.of({"rule": {"name": "rflo"}, "seed": 3})`.
        say: where lines for the user go.
        terminal: draw a progress bar instead of a line per evaluation.
        draw: draw the figures of the run; a study draws its own.

    Raises:
        BpgenError: bad input; found before anything is written.
    """
    experiment = build(config)
    folder = RunFolder.create(experiment.config)
    return _carry_out(experiment, folder, Before(experiment.config.hash), Audience(say, terminal, draw))


def resume(path: str, say: Say = say_at_once, terminal: bool = False, draw: bool = True) -> Ending:
    """Continue an interrupted run in its own folder, bit for bit as if it had not been interrupted; see `fit`.

    Raises:
        BpgenError: not a run, one that is finished, one without a checkpoint, or one whose config was edited.
    """
    folder = RunFolder.existing(path)
    summary = folder.summary()
    status = summary.get("status", "interrupted")  # killed outright, it had no time to write one
    require(
        status == "interrupted", f"{path} is {status}: there is nothing to continue. Start a new run with `bpgen fit`."
    )
    require(
        folder.checkpoint.is_file(), f"{path} has no checkpoint yet: start it again with --config {path}/config.yaml."
    )
    checkpoint = load_file(folder.checkpoint, "start again with its config.yaml")
    _refuse_edits(folder, checkpoint.get("hyper_parameters"), summary.get("config_hash"))
    experiment = build(folder.config())
    same = [tuple(v.shape) for v in checkpoint["state_dict"].values()] == [
        tuple(v.shape) for v in experiment.module.state_dict().values()
    ]
    require(same, f"{path}/config.yaml does not fit the checkpoint: was it edited? Start a new run with it instead.")
    folder.forget_after(checkpoint["global_step"])
    seconds = summary.get("seconds", {}).get("total", 0.0)
    threads = checkpoint.get("threads", torch.get_num_threads())
    before = Before(
        config_hash(folder.plain_config()), seconds, summary.get("wandb_id"), str(folder.checkpoint), threads
    )
    return _carry_out(experiment, folder, before, Audience(say, terminal, draw))


def _refuse_edits(folder: RunFolder, began: dict[str, Any] | None, known: str | None) -> None:
    """A run goes on as it began: what stands in its config must be what it was trained with.

    Args:
        folder: of the run.
        began: the config that the checkpoint was made under; None in those of version 0.1.
        known: the hash in the summary, if there is one.
    """
    now = folder.plain_config()
    known = known if began is None else config_hash(began)
    if known is None or known == config_hash(now):
        return
    changed = "" if began is None else f" ({', '.join(differences(began, now))})"
    file = folder.path / "config.yaml"
    require(
        False,
        f"{file} was edited since the run began{changed}: a run goes on as it began. Undo the edit, or start a new run "
        f"with it: bpgen fit --config {shlex.quote(str(file))}.",
    )


def _carry_out(experiment: Experiment, folder: RunFolder, before: Before, audience: Audience) -> Ending:
    """Train, and write down, draw and track how it went, on the threads that suit the run."""
    with using(experiment.config.threads or before.threads, experiment.multiplications) as chosen:
        for line in experiment.announcements():
            audience.say(line)
        if chosen is not None:
            audience.say(str(chosen))
        return _trained(experiment, folder, before, audience)


def _trained(experiment: Experiment, folder: RunFolder, before: Before, audience: Audience) -> Ending:
    config, say = experiment.config, audience.say
    experiment.module.save_hyperparameters(config.plain(), logger=False)  # into every checkpoint
    logger = experiment.tracked(folder.path, say, before.wandb_id)
    started = time.perf_counter()
    ending = _train(experiment, folder, audience, logger, before.checkpoint)
    summary = _summary(experiment, ending, before, time.perf_counter() - started)
    if logger is not None:
        summary["wandb_id"] = logger.experiment.id
    folder.write_summary(summary)
    if audience.draw and folder.metrics_file.exists():
        for name, figure in run_figures(pd.read_csv(folder.metrics_file), config.title, experiment.columns).items():
            figure.savefig(folder.path / "figures" / f"{name}.png")
    if logger is not None:
        hand_over(folder, experiment.columns, logger, config.tracking.artifacts)
        logger.finish(ending.status)
    return ending


def _train(
    experiment: Experiment, folder: RunFolder, audience: Audience, logger: Any, checkpoint: str | None
) -> Ending:
    """From the first step, or from the checkpoint, to the end, whatever it is."""
    module, config = experiment.module, experiment.config
    clock = experiment.clock.attach(Record(folder, experiment.columns))
    callbacks: list[pl.Callback] = [clock, Interrupt(folder)]
    if logger is not None:
        callbacks.append(BatchLoss(logger))
    if config.trainer.patience is not None:
        callbacks.append(EarlyStopping(config.trainer.best_by, config.trainer.patience))
    if audience.terminal:
        callbacks.append(ProgressBar(experiment.columns))
    else:
        clock.attach(ProgressLines(audience.say, experiment.columns))
        callbacks.append(TimeLeft(audience.say, clock))

    def ended(status: str, message: str = "") -> Ending:
        return Ending(folder, status, message, _EXIT_CODES[status])

    with quiet_lightning():
        trainer = trainer_for(config.trainer, callbacks, logger, str(folder.path))
        try:
            trainer.fit(module, datamodule=experiment.data, ckpt_path=checkpoint, weights_only=True)
        except DivergedError as error:
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            cure = _smaller(module, lr, folder.rows())
            return ended("diverged", f"diverged: {error}, with learning rate {lr:g}. Try {cure}.")
        except (RunInterrupted, KeyboardInterrupt) as stop:
            again = f"continue with: bpgen fit --resume {shlex.quote(str(folder.path))}"
            message = f"interrupted at step {trainer.global_step}; {again}"
            return Ending(folder, "interrupted", message, 128 + getattr(stop, "signum", 2))
        except RuleError as error:
            return ended("failed", f"rule {config.rule.label} failed: {error}")
        except (Exception, SystemExit) as error:  # a rule that exits has failed, not the program
            where = raised_in(error, type(module.rule))
            if where is None:
                raise  # ours, not the rule's
            return ended("failed", f"rule {config.rule.label} failed: {type(error).__name__}: {error} ({where})")
    return ended("finished")


def _smaller(module: RuleTraining, lr: float, rows: list[dict[str, float]]) -> str:
    """What to try when a run diverged at a learning rate: nothing that the curvature at the start forbids."""
    rule = module.rule
    if module.finished_steps:
        return "smaller steps by the options of the rule (bpgen fit --rule NAME --help)"
    curvature = rows[0].get("sharpness/lambda_max", 0.0) if rows else 0.0
    steep = curvature * lr > 3  # then 1/λ is below lr/3
    smaller = f"a smaller --optimizer.lr (e.g. {lr / 3:.1g})"
    if steep:
        allowed = f"e.g. {1 / curvature:.1g}: the sharpness at the start was {curvature:.2g}"
        smaller = f"inputs and targets scaled to about 1, a smaller --optimizer.lr ({allowed})"
    advice = f"{smaller}, {rule.when_diverged}" if rule.when_diverged else smaller
    return f"{advice} or --trainer.clip 1"


def _summary(experiment: Experiment, ending: Ending, before: Before, spent: float) -> dict[str, Any]:
    rows = ending.folder.rows()
    measuring = {name: round(seconds, 3) for name, seconds in experiment.clock.seconds.items()}
    seconds = before.seconds + spent
    by = experiment.config.trainer.best_by
    best = best_of(rows, by)
    return {
        "status": ending.status,
        "message": ending.message,
        "last": rows[-1] if rows else {},
        "best": {} if best is None else {"column": by, **best._asdict()},
        "seconds": {
            "total": round(seconds, 3),
            "training": round(seconds - sum(measuring.values()), 3),
            "measuring": measuring,
        },
        "seed": experiment.config.seed,
        "threads": torch.get_num_threads(),
        "config_hash": before.hash,
        "versions": {
            "bpgen": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": pl.__version__,
        },
    }
