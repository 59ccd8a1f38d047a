"""The LightningModule: it delegates the gradient to a rule, and knows no rule by name."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from bpgen.errors import DivergedError, RuleError, defined_in, require
from bpgen.losses import Loss, LossName
from bpgen.network import Network
from bpgen.problem import Problem
from bpgen.rules import Carry, Draws, Rule, RuleGradients, gradients_of_chunk, load_rule
from bpgen.rules.memory import require_room
from bpgen.streams import generator
from bpgen.tasks import Split
from bpgen.training import callback
from bpgen.training.continued import DECIDING, reschedule
from bpgen.training.handed import share_of_update, straight_through
from bpgen.training.light import LightModule
from bpgen.training.loaders import Chunk, as_split
from bpgen.training.options import Optimizer, Schedule, leave_steps_alone, plain_steps

callback.join(pl.Callback)
# Measurements take validation data from the loader by themselves: there is no validation loop
warnings.filterwarnings("ignore", "You passed in a `val_dataloader` but have no `validation_step`")


class RuleTraining(LightModule):
    """Trains a network with a rule in Lightning's automatic optimisation.

    Args:
        network: the network to train.
        rule: where gradients come from, or its name; it is bound to the network here.
        loss: the true loss, or its name where it is taken at the last step.
        optimizer: what turns gradients into weight changes.
        schedule: of the learning rate.
        seed: of the rule's draws and of its feedback weights.

    Attributes:
        finished_steps: whether the rule hands over finished weight changes and no gradients (trait update="step").

    Raises:
        BpgenError: the rule is not defined for this network or loss, the optimizer would rescale its finished steps, or
            it names a weight that is not there.
    """

    def __init__(
        self,
        network: Network,
        rule: Rule | str,
        loss: Loss | LossName = "cross_entropy",
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        rule = load_rule(rule) if isinstance(rule, str) else rule
        loss = Loss(loss) if isinstance(loss, str) else loss
        rule.check(loss)
        rule.bind(network, seed)
        self.network, self.rule, self.loss, self.seed = network, rule, loss, seed
        self.optimizer, self.schedule = optimizer or Optimizer(), schedule or Schedule()
        self.optimizer.check(name for name, _ in network.named_parameters())
        self.finished_steps = rule.traits.update == "step"
        if self.finished_steps:
            self.optimizer = plain_steps(self.optimizer, self.schedule)
        self.last_loss = float("nan")
        self.carry: Carry | None = None
        self.handed: Mapping[str, Tensor] = {}  # the gradient of the last step
        self._fits = False  # whether a batch was seen to fit the network and the loss

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **given: Any) -> RuleTraining:
        """The module of a checkpoint, which holds weights and the rule's own tensors, and not what they belong to.

        Args:
            checkpoint_path: its file.
            *args: as for Lightning.
            **given: network and rule as they were, and what else the constructor takes; or options of Lightning.

        Raises:
            BpgenError: network or rule are not given.
        """
        missing = [name for name in ("network", "rule") if name not in given]
        require(
            not missing,
            f"a checkpoint holds weights, and not the {' and the '.join(missing)} they belong to. Of a run's folder "
            f"bpgen.load_run(FOLDER) gives network and rule with their weights; elsewhere say them again: "
            f"RuleTraining.load_from_checkpoint(PATH, network=..., rule=..., loss=..., optimizer=...).",
        )
        unsaid = {
            "loss": "cross_entropy",
            "optimizer": None,
            "schedule": None,
            "seed": 0,
        }  # not what a run's config says
        return super().load_from_checkpoint(checkpoint_path, *args, **{**unsaid, **given})

    def on_fit_start(self) -> None:
        """The trainer's options are known now."""
        if self.finished_steps:
            leave_steps_alone(self.trainer.gradient_clip_val, self.trainer.accumulate_grad_batches)

    @property
    def trained(self) -> tuple[str, ...]:
        """The parameters that training changes, by name: not those that are frozen, or that the rule leaves alone."""
        l2, own = self.loss.regulariser, self.rule.traits.trains
        return tuple(
            name
            for name, p in self.network.named_parameters()
            if p.requires_grad
            and (self.optimizer.lr_scale or {}).get(name, 1) != 0
            and (not own or name in own or (l2 is not None and name in l2.coefficients))
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The rule's gradient, handed to autograd as a loss whose value is true and whose gradient is the rule's.

        Args:
            batch: a `Split`, a `Chunk`, or (x, target) or (x, target, mask), time first.
            batch_idx: its number in the epoch.
        """
        batch = batch if isinstance(batch, (Split, Chunk)) else as_split(batch)
        with torch.no_grad():
            problem, draws = self.problem(batch, self.loss, "draws", self.current_epoch, batch_idx)
            first = {} if self._fits else {n: w.detach().clone() for n, w in self.network.named_parameters()}
            if not self._fits:
                require_room(self.rule, problem.checked())
                self._fits = True
            versions = [w._version for w in self.network.parameters()]
            if isinstance(batch, Chunk):
                result = self._on_chunk(batch, problem, draws)
            else:
                result = self.rule.gradients(problem, draws)
            self._see_untouched(versions, first)
            self.last_loss = float(result.loss)
            if not math.isfinite(self.last_loss):
                raise self.divergence(f"the loss is {self.last_loss}", self.global_step)
            self.rule.learn(result.aux)
            share = share_of_update(batch_idx, self.trainer)
            grads = result.grads if share == 1 else {name: share * g for name, g in result.grads.items()}
            self.handed = grads
        return straight_through(result.loss, self.network, grads)

    def _see_untouched(self, versions: Sequence[int], first: Mapping[str, Tensor]) -> None:
        """See that the rule left the weights to the optimizer.

        Args:
            versions: of the weights before; torch counts changes in place, but not those of `.data`.
            first: copies of the weights, before the first step.

        Raises:
            RuleError: it changed one in place.
        """
        for (name, w), version in zip(self.network.named_parameters(), versions, strict=True):
            if w._version != version or (name in first and not torch.equal(w, first[name])):
                raise RuleError(
                    f"{defined_in(type(self.rule))}: it changed {name} in place. A rule returns gradients and leaves "
                    "the weights alone; finished changes are declared by the trait update='step', and returned, too."
                )

    def divergence(self, what: str, step: int) -> DivergedError | RuleError:
        """Why a loss left the finite numbers: too large a step, or a rule whose last gradient was no number.

        Args:
            what: what was found, e.g. "the loss is nan".
            step: at which step.
        """
        broken = [name for name, g in self.handed.items() if bool(g.isnan().any())]
        if not broken:
            return DivergedError(f"{what} at step {step}")
        return RuleError(
            f"{defined_in(type(self.rule))}: its gradient of {', '.join(broken)} was nan although the loss was finite, "
            f"and so {what} at step {step}. No learning rate cures that: look for 0/0, or a root of 0, in the rule."
        )

    def _on_chunk(self, batch: Chunk, problem: Problem, draws: Draws) -> RuleGradients:
        """Go on from the chunk before; what is carried goes into checkpoints."""
        carry = None if batch.starts else self.carry
        self.carry, result = gradients_of_chunk(self.rule, problem, carry, draws, ends=batch.ends, share=batch.share)
        return result

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is carried within a sequence, and the number of threads, which decides the last bits."""
        checkpoint["threads"] = torch.get_num_threads()
        checkpoint["carry"] = None if self.carry is None else self.carry.save()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on in the middle of a sequence."""
        saved = checkpoint.get("carry")
        self.carry = None if saved is None else Carry.restored(saved)
        before, now = checkpoint.get("hyper_parameters"), dict(self.hparams)
        if before and now and any(before.get(group) != now.get(group) for group in DECIDING):
            fresh = self.optimizer.build(self.network.named_parameters())
            reschedule(checkpoint, fresh, self.schedule, self.trainer.estimated_stepping_batches)

    def problem(self, batch: Split | Chunk, loss: Loss, purpose: str, *counters: int) -> tuple[Problem, Draws]:
        """The problem of a batch at the present weights, with current noise, and the rule's draws.

        Args:
            batch: sequences, or a chunk of them; its mask goes into the loss.
            loss: what is to be taken of it.
            purpose: what the random numbers are for, each of noise and draws from a stream of its own.
            counters: where along the run, e.g. the step.
        """
        noise, draws = self.drawn(batch.x, purpose, *counters)
        params, loss = self.network.params(), loss.with_mask(batch.mask)
        return Problem(self.network, params, batch.x, batch.target, loss, current_noise=noise), draws

    def drawn(self, x: Tensor, purpose: str, *counters: int) -> tuple[Tensor | None, Draws]:
        """The random numbers of a batch: current noise, and the rule's draws; arguments as for `problem`."""
        draws: Draws = {}
        if type(self.rule).draw is not Rule.draw:  # a generator that nobody asks is a hundredth of a step
            draws = self.rule.draw(self.network, x, generator(self.seed, purpose, *counters))
        noise = None
        if self.network.sigma_rec != 0:
            random = generator(self.seed, f"{purpose} noise", *counters)
            noise = self.network.draw_noise(x.shape[0], x.shape[1], random)
        return None if noise is None else noise.to(x.device), {name: d.to(x.device) for name, d in draws.items()}

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """A step of the optimizer, and back to the weights that the network's constraints allow."""
        super().optimizer_step(*args, **options)
        self.network.project_()

    def configure_optimizers(self) -> Any:
        """The optimizer, with a schedule that moves every step."""
        return self.optimizer_of(self.network, self.trainer)

    def optimizer_of(self, weights: nn.Module, trainer: pl.Trainer) -> Any:
        """The same for weights of these names, of this network or of several at once."""
        optimizer = self.optimizer.build(weights.named_parameters())
        if self.schedule == Schedule():
            return optimizer
        n_steps = trainer.estimated_stepping_batches
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: self.schedule.factor(k, n_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
