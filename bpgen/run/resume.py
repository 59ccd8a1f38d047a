"""A run that goes on in its own folder: `bpgen fit --resume RUN`."""

from __future__ import annotations

import shlex
from typing import Any

import torch

from bpgen.errors import BpgenError, require
from bpgen.run.build import build
from bpgen.run.config import config_hash, differences
from bpgen.run.experiment import Before, Ending, Say
from bpgen.run.files import load_file
from bpgen.run.fit import Audience, carry_out, say_at_once
from bpgen.run.folder import RunFolder

_HOLDS = ("state_dict", "global_step", "optimizer_states", "loops")


def resume(path: str, say: Say = say_at_once, terminal: bool = False, draw: bool = True) -> Ending:
    """Continue an interrupted run in its own folder, bit for bit as if it had not been interrupted; see `fit`.

    Raises:
        BpgenError: not a run, one that is finished, one without a checkpoint, one whose config was edited, or one that
            another process is writing.
    """
    with RunFolder.existing(path) as folder:
        summary = folder.summary()
        status = summary.get("status", "interrupted")  # killed outright, it had no time to write one
        require(
            status == "interrupted",
            f"{path} is {status}: there is nothing to continue. Start a new run with `bpgen fit`.",
        )
        file, checkpoint = _checkpoint(folder, say)
        _refuse_edits(folder, checkpoint.get("hyper_parameters"), summary.get("config_hash"))
        experiment = build(folder.config())
        same = [tuple(v.shape) for v in checkpoint["state_dict"].values()] == [
            tuple(v.shape) for v in experiment.module.state_dict().values()
        ]
        require(
            same, f"{path}/config.yaml does not fit the checkpoint: was it edited? Start a new run with it instead."
        )
        for line in folder.go_back_to(checkpoint["global_step"], checkpoint.get("folder", {})):
            say(f"lost: {line}; the run goes on without it")
        seconds = summary.get("seconds", {}).get("total") or checkpoint.get(
            "seconds", 0.0
        )  # killed, it wrote no summary
        threads = checkpoint.get("threads", torch.get_num_threads())
        before = Before(config_hash(folder.plain_config()), seconds, summary.get("wandb_id"), file, threads)
        return carry_out(experiment, folder, before, Audience(say, terminal, draw))


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
    if known is None or known == config_hash(now):
        return
    changed = "" if began is None else f" ({', '.join(differences(began, now))})"
    file = folder.path / "config.yaml"
    require(
        False,
        f"{file} was edited since the run began{changed}: a run goes on as it began. Undo the edit, or start a new run "
        f"with it: bpgen fit --config {shlex.quote(str(file))}.",
    )
