"""A run that goes on in its own folder: `bpgen fit --resume RUN`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import torch

from bpgen.errors import BpgenError, require
from bpgen.run import data
from bpgen.run.build import build
from bpgen.run.changes import FILE as CHANGES
from bpgen.run.changes import changed, known_hashes, longer, record
from bpgen.run.config import Config, as_begun, config_hash, differences
from bpgen.run.experiment import Before, Ending, Experiment, Say
from bpgen.run.files import load_file
from bpgen.run.fit import Audience, carry_out, say_at_once
from bpgen.run.folder import RunFolder

_HOLDS = ("state_dict", "global_step", "optimizer_states", "loops")


def resume(
    path: str,
    say: Say = say_at_once,
    terminal: bool = False,
    draw: bool = True,
    changes: Mapping[str, Any] | None = None,
) -> Ending:
    """Continue an interrupted run in its own folder, bit for bit as if it had not been interrupted; see `fit`.

    Args:
        path: its folder.
        say: where lines for the user go.
        terminal: draw a progress bar instead of a line per evaluation.
        draw: draw the figures of the run.
        changes: what is to be another from here on, of `bpgen.run.changes.ALLOWED`; it is recorded. More steps let a
            finished run go on, too.

    Raises:
        BpgenError: not a run, one that is finished, one without a checkpoint, one whose config or data were edited, or
            one that another process is writing.
    """
    with RunFolder.existing(path) as folder:
        summary = folder.summary()
        status = _status(path, summary, changes)
        file, checkpoint = _checkpoint(folder, say)
        _refuse_edits(folder, checkpoint.get("hyper_parameters"), summary.get("config_hash"))
        step, before = checkpoint["global_step"], folder.plain_config()
        plain, what = changed(before, changes) if changes else (before, {})
        require(
            status != "finished" or longer(before, plain, step),
            f"{path} is finished at step {step}: it only goes on for longer, --set trainer.max_steps=N.",
        )
        experiment = build(folder.placed(plain))
        _see_that_it_fits(folder, checkpoint, experiment)
        for line in folder.go_back_to(step, checkpoint.get("folder", {})):
            say(f"lost: {line}; the run goes on without it")
        if what:  # in this order, so that a run goes on wherever it is killed between them
            folder.write_summary({**summary, "status": "interrupted", "message": ""})
            record(folder.path, step, before, plain, what)
            folder.write_config(plain)
        for key, (old, new) in what.items():
            say(f"from step {step} on: {key} {new} (before: {old}); recorded in {folder.path / CHANGES}")
        known = summary.get("seconds", {}).get("total")
        seconds = checkpoint.get("seconds", 0.0) if known is None else known  # killed, it wrote none
        threads = checkpoint.get("threads", torch.get_num_threads())
        begun = Config.of(as_begun(plain)).plain()
        went = Before(config_hash(plain), seconds, summary.get("wandb_id"), file, threads, begun)
        return carry_out(experiment, folder, went, Audience(say, terminal, draw))


def _see_that_it_fits(folder: RunFolder, checkpoint: Mapping[str, Any], experiment: Experiment) -> None:
    """See that the checkpoint is of this network, and that the data are those that the run was made from."""
    there, wanted = checkpoint["state_dict"], experiment.module.state_dict()
    same = [tuple(v.shape) for v in there.values()] == [tuple(v.shape) for v in wanted.values()]
    where = folder.path / "config.yaml"
    require(same, f"{where} does not fit the checkpoint: was it edited? Start a new run with it instead.")
    edited = data.changed(folder.path, experiment.config, experiment.data.task)
    require(not edited, f"{edited}: restore them, or start a new run.")


def _status(path: str, summary: Mapping[str, Any], changes: Mapping[str, Any] | None) -> str:
    """Of a run that may go on, with these changes."""
    status: str = summary.get("status", "interrupted")  # killed outright, it had no time to write one
    longer = ", or let it go on for longer: --set trainer.max_steps=N" if status == "finished" else ""
    require(
        status == "interrupted" or (status == "finished" and bool(changes)),
        f"{path} is {status}: there is nothing to continue. Start a new run with `bpgen fit`{longer}.",
    )
    return status


def _checkpoint(folder: RunFolder, say: Say) -> tuple[str, dict[str, Any]]:
    """The newest checkpoint that is whole, with its file."""
    again = f"start again with: bpgen fit --config {shlex.quote(str(folder.path / 'config.yaml'))}"
    found = folder.checkpoints
    require(bool(found), f"{folder.path} has no checkpoint yet: {again}.")
    for file in found:
        try:
            return str(file), load_file(file, again, *_HOLDS)
        except BpgenError as error:
            if file == found[-1]:
                raise
            say(f"{str(error).partition(': ')[0]}: going on from the one before it")
    raise AssertionError("the last one is returned or raises")


def _refuse_edits(folder: RunFolder, began: dict[str, Any] | None, known: str | None) -> None:
    """A run goes on as it began: what stands in its config must be what it was trained with.

    Args:
        folder: of the run.
        began: the config that the checkpoint was made under; None in those of version 0.1.
        known: the hash in the summary, if there is one.
    """
    now = folder.plain_config()
    known = known if began is None else config_hash(began)
    if known is None or config_hash(now) in known_hashes(folder.path, known):
        return
    changed = "" if began is None else f" ({', '.join(differences(began, now))})"
    file = folder.path / "config.yaml"
    require(
        False,
        f"{file} was edited since the run began{changed}: a run goes on as it began. Undo the edit, or start a new run "
        f"with it: bpgen fit --config {shlex.quote(str(file))}.",
    )
