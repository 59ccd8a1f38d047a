"""One seed's place among several that are trained at once: what its callbacks take for the trainer of a run of its own.

So whatever measures, writes down or tracks one run does the same for each of several seeds, and a seed's folder holds
what it would hold had it been trained alone: its checkpoint is one from which `bpgen fit --resume` continues it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from bpgen.run.experiment import Experiment
from bpgen.run.folder import RunFolder
from bpgen.training.seeds import SeedsTraining


class Seat:
    """The trainer of several seeds as one of them sees it; what is not said here is the trainer's own.

    Args:
        place: among the seeds.
        experiment: what its run is made of.
        folder: of its run.
        callbacks: what measures it and writes it down; they act in the hooks of `Seats` alone.
        logger: of its W&B run, or None.
    """

    trainer: pl.Trainer

    def __init__(
        self, place: int, experiment: Experiment, folder: RunFolder, callbacks: Sequence[pl.Callback], logger: Any
    ) -> None:
        self.place, self.experiment, self.folder, self.callbacks = place, experiment, folder, list(callbacks)
        self.datamodule, self.callback_metrics = experiment.data, dict[str, Tensor]()
        self.logger, self.loggers = logger, [] if logger is None else [logger]
        self.seats: Seats

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)

    @property
    def train_dataloader(self) -> Any:
        """Its own batches."""
        return self.trainer.train_dataloader.loaders[self.place]  # type: ignore[union-attr]

    def save_checkpoint(self, path: str | Path) -> None:
        """Save what it would save alone."""
        self.seats.saving = self
        self.trainer.save_checkpoint(path)

    def cut_out(self, checkpoint: dict[str, Any]) -> None:
        """Make the checkpoint of all seeds that of this one."""
        module, data = self.experiment.module, self.experiment.data
        checkpoint["state_dict"] = {name: value.clone() for name, value in module.state_dict().items()}
        checkpoint["optimizer_states"] = [self._own_rows(state) for state in checkpoint["optimizer_states"]]
        checkpoint["callbacks"] = {c.state_key: state for c in self.callbacks if (state := c.state_dict())}
        checkpoint[module.CHECKPOINT_HYPER_PARAMS_KEY] = dict(module.hparams)
        checkpoint[type(data).__qualname__] = data.state_dict()
        for callback in self.callbacks:
            callback.on_save_checkpoint(self, module, checkpoint)  # type: ignore[arg-type]
        module.on_save_checkpoint(checkpoint)

    def _own_rows(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state of the optimizer: of tensors that have a seed axis its own row, and counts of steps as they are."""
        own = {
            index: {name: v[self.place].clone() if torch.is_tensor(v) and v.ndim else v for name, v in each.items()}
            for index, each in state["state"].items()
        }
        return {**state, "state": own}


class Seats(pl.Callback):
    """Gives the hooks of a training of several seeds to the callbacks of each.

    What fails in one of them ends the training of that seed alone; what stops the process stops all.

    Args:
        seats: one for each seed.
    """

    def __init__(self, seats: Sequence[Seat]) -> None:
        self.seats, self.saving = seats, seats[0]
        for seat in seats:
            seat.seats = self

    # As `TimeLeft` sees a clock: an evaluation is one of all seeds.

    @property
    def seconds(self) -> dict[str, float]:
        """Time spent on measuring so far, by seed."""
        return {str(seat.place): sum(seat.experiment.clock.seconds.values()) for seat in self.seats}

    @property
    def rows(self) -> list[Any]:
        """What was measured of one of them."""
        return max((seat.experiment.clock.rows for seat in self.seats), key=len)

    def left(self, trainer: pl.Trainer) -> int:
        """How many evaluations are still to come."""
        return self.seats[0].experiment.clock.left(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """The trainer is there now."""
        for seat in self.seats:
            seat.trainer = trainer
        self._each("on_train_start", pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        """See the class."""
        self._each("on_train_batch_end", pl_module, *rest)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """See the class."""
        self._each("on_train_epoch_end", pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """See the class."""
        self._each("on_train_end", pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """A checkpoint is of one seed."""
        self.saving.cut_out(checkpoint)

    def _each(self, hook: str, module: SeedsTraining, *rest: Any) -> None:
        for seat in self.seats:
            for callback in seat.callbacks:
                if seat.place in module.ended:
                    break
                try:
                    getattr(callback, hook)(seat, seat.experiment.module, *rest)
                except Exception as error:
                    module.ended[seat.place] = error
        if len(module.ended) == len(self.seats):
            module.trainer.should_stop = True
