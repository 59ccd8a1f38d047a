"""The LightningModule: it delegates the gradient to a rule, and knows no rule by name."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from bpgen.errors import DivergedError
from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.rules import Rule
from bpgen.streams import generator
from bpgen.tasks import Split
from bpgen.training.optim import Optimizer, Schedule


class RuleTraining(pl.LightningModule):
    """Trains a network with a rule in Lightning's automatic optimisation.

    Args:
        network: the network to train.
        rule: where gradients come from; it is bound to the network here.
        loss: the true loss.
        optimizer: what turns gradients into weight changes.
        schedule: of the learning rate.
        seed: of the rule's draws and of its feedback weights.
    """

    def __init__(
        self,
        network: Network,
        rule: Rule,
        loss: Loss,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network, self.rule, self.loss, self.seed = network, rule.bind(network, seed), loss, seed
        self.optimizer, self.schedule = optimizer or Optimizer(), schedule or Schedule()
        self.last_loss = float("nan")

    def training_step(self, batch: Split, batch_idx: int) -> Tensor:
        """The rule's gradient, handed to autograd as a loss whose value is true and whose gradient is the rule's."""
        x, target, mask = batch
        with torch.no_grad():
            draws = self.draws(x, "draws", self.current_epoch, batch_idx)
            result = self.rule.gradients(
                self.network, self.network.params(), x, target, self.loss.with_mask(mask), draws
            )
        self.last_loss = float(result.loss)
        if not torch.isfinite(result.loss):
            raise DivergedError(f"the loss is {self.last_loss} at step {self.global_step}")
        return straight_through(result.loss, self.network, result.grads)

    def draws(self, x: Tensor, purpose: str, *counters: int) -> dict[str, Tensor]:
        """Everything random in one gradient: the rule's draws, and from a stream of its own the current noise."""
        draws = dict(self.rule.draw(self.network, x, generator(self.seed, purpose, *counters)))
        random = generator(self.seed, f"{purpose} noise", *counters)
        noise = self.network.draw_noise(x.shape[0], x.shape[1], random)
        if noise is not None:
            draws["current_noise"] = noise
        return {name: value.to(x.device) for name, value in draws.items()}

    def configure_optimizers(self) -> Any:
        """The optimizer, with a schedule that moves every step."""
        optimizer = self.optimizer.build(self.network.named_parameters())
        if self.schedule == Schedule():
            return optimizer
        n_steps = self.trainer.estimated_stepping_batches
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: self.schedule.factor(k, n_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def straight_through(loss: Tensor, network: Network, grads: dict[str, Tensor]) -> Tensor:
    """A scalar with the value of `loss` and the gradient `grads` by the parameters.

    The parentheses matter: (loss + z) - z would lose the loss's last digits to a large z.
    """
    z = torch.stack([(p * grads[name]).sum() for name, p in network.named_parameters()]).sum()
    return loss.detach() + (z - z.detach())
