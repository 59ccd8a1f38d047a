"""One run, from a resolved config to a finished folder: what `bpgen fit` does."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import lightning.pytorch as pl
import pandas as pd
import torch

import bpgen
from bpgen.callbacks import Alignment, EvaluationClock, GeneralizationGap, Measurement, Sharpness, Spectrum, Stability
from bpgen.callbacks.interrupt import Interrupt, RunInterrupted
from bpgen.callbacks.progress import ProgressBar, ProgressLines
from bpgen.callbacks.record import Record
from bpgen.errors import DivergedError, raised_in, require
from bpgen.figures.run import run_figures
from bpgen.rules import check_chunks, chunk_note
from bpgen.tasks import Task
from bpgen.tracking import wandb as tracking
from bpgen.training.build import TrainerOptions, make_loss, make_network, make_rule, make_task
from bpgen.training.data import TaskData, fitted
from bpgen.training.module import RuleTraining
from bpgen.training.optim import Optimizer, Schedule
from bpgen.training.run_folder import RunFolder, config_hash, load_file
from bpgen.training.trainer import quiet_lightning, trainer_for

Say = Callable[[str], None]
EXIT_CODES = {"finished": 0, "failed": 2, "diverged": 3, "interrupted": 130}


class Outcome(NamedTuple):
    """How a run ended: its folder, status, the exit code that says so, and a message if it did not finish."""

    folder: RunFolder
    status: str
    exit_code: int
    message: str


class Parts(NamedTuple):
    """What a run is made of, and its config with what it left to the task filled in."""

    module: RuleTraining
    data: TaskData
    measurements: list[Measurement]
    config: dict[str, Any]


def fit(config: dict[str, Any], say: Say = print, terminal: bool = False, draw: bool = True) -> Outcome:
    """Train and measure one network, in a new folder.

    Args:
        config: all options, as `bpgen fit --print_config` shows them.
        say: where lines for the user go.
        terminal: draw a progress bar instead of a line per evaluation.
        draw: draw the figures of the run; a study draws its own.

    Raises:
        BpgenError: bad input; found before anything is written.
    """
    _set_threads(config)
    parts = _parts(config)
    config = parts.config
    name = f"{config['task']['name']}-{config['rule']['name']}-seed{config['seed']}"
    folder = RunFolder.create(config["out"], name)
    folder.write_config(config)
    return _train(parts, folder, say, terminal, draw=draw)


def resume(path: str, say: Say = print, terminal: bool = False, draw: bool = True) -> Outcome:
    """Continue an interrupted run in its own folder, bit for bit as if it had not been interrupted.

    Raises:
        BpgenError: not a run, one that is finished, or one without a checkpoint.
    """
    folder = RunFolder.existing(path)
    status = folder.summary().get("status", "interrupted")  # killed outright, it had no time to write one
    require(
        status == "interrupted", f"{path} is {status}: there is nothing to continue. Start a new run with `bpgen fit`."
    )
    require(
        folder.checkpoint.is_file(), f"{path} has no checkpoint yet: start it again with --config {path}/config.yaml."
    )
    config = folder.config()
    _set_threads(config)
    parts = _parts(config)
    checkpoint = load_file(folder.checkpoint, "start again with its config.yaml")
    same = [tuple(v.shape) for v in checkpoint["state_dict"].values()] == [
        tuple(v.shape) for v in parts.module.state_dict().values()
    ]
    require(same, f"{path}/config.yaml does not fit the checkpoint: was it edited? Start a new run with it instead.")
    folder.forget_after(checkpoint["global_step"])
    return _train(parts, folder, say, terminal, resumed=True, draw=draw)


def filled(config: dict[str, Any], task: Task | None = None) -> dict[str, Any]:
    """The config with what it leaves to the task: what a run writes down, and what `config_hash` names."""
    task = task or make_task(config)
    options = config["loss"]
    loss = {**options, "kind": options["kind"] or task.loss, "when": options["when"] or task.when}
    return {**config, "loss": loss}


def _set_threads(config: dict[str, Any]) -> None:
    threads = config.get("threads")
    if threads is not None:
        require(threads >= 1, f"threads must be positive, got {threads}.")
        torch.set_num_threads(threads)


def _parts(config: dict[str, Any]) -> Parts:
    """Build everything, and find all bad input before anything is written."""
    task = make_task(config)
    config = filled(config, task)
    loss = make_loss(**config["loss"])
    options = TrainerOptions(**config["trainer"])
    require(
        options.accelerator != "gpu" or torch.cuda.is_available() or torch.backends.mps.is_available(),
        "trainer.accelerator is gpu, and torch finds none here: use cpu or auto.",
    )
    network = make_network(config, task)
    optimizer, schedule = Optimizer(**config["optimizer"]), Schedule(**config["schedule"])
    optimizer.build(network.named_parameters())  # a wrong weight name is bad input: found here, not in training
    measurements: list[Measurement] = [
        GeneralizationGap(**config["gap"]),
        Sharpness(**config["sharpness"]),
        Alignment(**config["alignment"]),
        Stability(**config.get("stability", {})),  # runs of earlier versions have none
        Spectrum(**config.get("spectrum", {})),
    ]
    EvaluationClock(**config["evaluation"])
    tracking.Tracking(**config["tracking"])
    module = RuleTraining(network, make_rule(config), loss, optimizer, schedule, config["seed"])
    module.check_trainer(options.clip, options.accumulate)
    fitted(task.split("train"), loss, task.n_out)  # loads the data: if they fail or do not fit, it is found here
    for measurement in measurements:
        if measurement.enabled:
            measurement.check(module, task)
    data = TaskData(task, loss, options.batch_size, config["seed"], options.chunk, options.stream)
    if options.chunk is not None:
        check_chunks(module.rule, network)
        data.train_dataloader()  # a task without a stream says so now
    return Parts(module, data, measurements, config)


def _train(
    parts: Parts, folder: RunFolder, say: Say, terminal: bool, resumed: bool = False, draw: bool = True
) -> Outcome:
    module, data, measurements, config = parts
    before = folder.summary()
    note = chunk_note(module.rule, data.chunk) if data.chunk else ""
    if note:
        say(note)
    if module.finished_steps:
        say(f"{config['rule']['name']} hands over finished weight changes: optimizer.lr is not used")
    for measurement in measurements:
        if measurement.enabled:
            measurement.spiking = module.network.neuron.spiking
            say(measurement.describe(data.task))
    run_id = before.get("wandb_id")
    track = tracking.Tracking(**config["tracking"])
    logger = tracking.start(config["wandb"], track, folder.path, config, say, run_id)
    clock = EvaluationClock(**config["evaluation"]).attach(*measurements, Record(folder))
    callbacks: list[pl.Callback] = [clock, Interrupt(folder)]
    if terminal:
        callbacks.append(ProgressBar())
    else:
        clock.attach(ProgressLines())
    options = TrainerOptions(**config["trainer"])
    status, message, code = "finished", "", 0
    started = time.perf_counter()
    try:
        with quiet_lightning():
            trainer = trainer_for(options, callbacks, logger, str(folder.path))
            trainer.fit(
                module, datamodule=data, ckpt_path=str(folder.checkpoint) if resumed else None, weights_only=True
            )
    except DivergedError as error:
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        status = "diverged"
        smaller = f"a smaller --optimizer.lr (e.g. {lr / 3:.1g})"
        if module.finished_steps:
            smaller = f"smaller steps by the options of the rule (bpgen fit --rule {config['rule']['name']} --help)"
        elif "scale" in config["rule"]:
            smaller += ", a smaller --rule.scale or --trainer.clip 1"
        else:
            smaller += " or --trainer.clip 1"
        message = f"diverged: {error}, with learning rate {lr:g}. Try {smaller}."
    except (RunInterrupted, KeyboardInterrupt) as stop:
        status, code = "interrupted", 128 + getattr(stop, "signum", 2)
        run = shlex.quote(str(folder.path))
        message = f"interrupted at step {trainer.global_step}; continue with: bpgen fit --resume {run}"
    except Exception as error:
        where = raised_in(error, type(module.rule))
        if where is None:
            raise  # ours, not the rule's
        status = "failed"
        message = f"rule {config['rule']['name']} failed: {type(error).__name__}: {error} ({where})"
    seconds = before.get("seconds", {}).get("total", 0.0) + time.perf_counter() - started
    summary = _summary(config, folder, clock, status, message, seconds)
    if logger is not None:
        summary["wandb_id"] = logger.experiment.id
    folder.write_summary(summary)
    if draw:
        _draw(config, folder)
    if logger is not None:
        for picture in sorted((folder.path / "figures").glob("*.png")):
            logger.log_image(f"figures/{picture.stem}", [str(picture)])
        logger.experiment.summary["status"] = status
        logger.experiment.finish(exit_code=0 if status == "finished" else 1)
    return Outcome(folder, status, code or EXIT_CODES[status], message)


def _summary(
    config: dict[str, Any], folder: RunFolder, clock: EvaluationClock, status: str, message: str, seconds: float
) -> dict[str, Any]:
    rows = folder.rows()
    measuring = {name: round(spent, 3) for name, spent in clock.seconds.items()}
    return {
        "status": status,
        "message": message,
        "last": rows[-1] if rows else {},
        "seconds": {
            "total": round(seconds, 3),
            "training": round(seconds - sum(measuring.values()), 3),
            "measuring": measuring,
        },
        "seed": config["seed"],
        "threads": torch.get_num_threads(),
        "config_hash": config_hash(config),
        "versions": {
            "bpgen": bpgen.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": pl.__version__,
        },
    }


def _draw(config: dict[str, Any], folder: RunFolder) -> None:
    """The pictures of a run, from its table."""
    if not folder.metrics_file.exists():
        return
    table = pd.read_csv(folder.metrics_file)
    title = f"{config['rule']['name']} on {config['task']['name']}, seed {config['seed']} (n = 1 run)"
    for name, figure in run_figures(table, title).items():
        figure.savefig(folder.path / "figures" / f"{name}.png")
