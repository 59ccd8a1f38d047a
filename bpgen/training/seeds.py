"""Several seeds of one training side by side: one step trains all of them, by batched products (`torch.func.vmap`).

Each seed keeps its own network, rule, data order and random streams, as if it were alone. Parameters carry a leading
seed axis [S,...], and the network of each seed is a view of its rows: one optimizer moves all, and whoever evaluates
one seed sees its network as ever. The rules are those of a single network: what differs between the seeds (weights,
feedback, wiring, batch, noise, draws) is handed to vmap. On the first batch every seed is compared with itself alone,
since a rule may hold tensors that nobody knows of: what differs by more than rounding is not stacked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.problem import Problem
from bpgen.rules import Rule
from bpgen.rules.memory import require_room
from bpgen.tasks import Split
from bpgen.training.data import TaskData
from bpgen.training.handed import share_of_update, straight_through
from bpgen.training.light import LightModule
from bpgen.training.loaders import SeededLoader, on_device
from bpgen.training.module import RuleTraining

TOLERANCE = 1e-3  # of the largest entry of a gradient in float32, within which a stacked seed is itself
Rows = dict[str, Tensor]  # [S,...] by name


class SeedsTraining(LightModule):
    """Trains several seeds at once.

    Args:
        members: the training of each seed; they differ in their seed alone.

    Attributes:
        members: see there. Their networks' weights are rows of `weights` from the start of a fit on.
        weights: parameters by name [S,...].
        ended: what ended the training of a seed before the others, by its place among them.
    """

    def __init__(self, members: Sequence[RuleTraining]) -> None:
        super().__init__()
        self.members, self.ended = tuple(members), dict[int, Exception]()
        first = members[0]
        self.last_loss = math.nan
        self._asked = (_Asked(first.network, first.rule, first.loss),)  # in a tuple: no part of this module
        parameters = [dict(member.network.named_parameters()) for member in members]
        self.weights = nn.ParameterDict()  # filled in the network's order, in which a checkpoint counts its states
        for name in parameters[0]:
            self.weights[name] = nn.Parameter(torch.stack([p[name].detach() for p in parameters]))
        self._wiring: Rows | None = None
        self._learns = type(first.rule).learn is not Rule.learn
        self._kept: Rows | None = None

    def on_fit_start(self) -> None:
        """The device is known now: let every network be a row of the weights."""
        for s, member in enumerate(self.members):
            member.to(self.device)
            for name, p in member.network.named_parameters():
                p.data = self.weights[name].data[s]
        self._wiring = self._kept = None

    def why_not(self, splits: Sequence[Split]) -> str | None:
        """Why these seeds cannot be trained together, found out on a batch of each; None where they can."""
        rule = self.members[0].rule
        if not rule.traits.vmappable:
            return f"{type(rule).__name__} is not written for a batch of seeds (trait vmappable)"
        with torch.no_grad():
            for member, split in zip(self.members, splits, strict=True):
                require_room(rule, member.problem(split, member.loss, "draws", 0, 0)[0].checked())
            try:
                _, grads, _ = self._gradients(splits, 0, 0)
            except Exception as error:  # what vmap cannot batch fails in many ways
                said = (str(error).splitlines() or [type(error).__name__])[0]
                return f"torch.func.vmap cannot batch {type(rule).__name__}: {said[:120]}"
            for s, (member, split) in enumerate(zip(self.members, splits, strict=True)):
                alone = member.rule.gradients(*member.problem(split, member.loss, "draws", 0, 0)).grads
                if not all(_same(grads[name][s], g) for name, g in alone.items()):
                    return f"{type(rule).__name__} gives stacked seeds other gradients than alone (a hidden state?)"
        return None

    def training_step(self, batch: Sequence[Split], batch_idx: int) -> Tensor:
        """One step of all seeds; see `RuleTraining.training_step`."""
        with torch.no_grad():
            losses, grads, aux = self._gradients(batch, self.current_epoch, batch_idx)
            share = share_of_update(batch_idx, self.trainer)
            grads = grads if share == 1 else {name: share * g for name, g in grads.items()}
            handed, learned = _by_seed(grads), _by_seed(aux) if self._learns else []
            for s, (member, loss) in enumerate(zip(self.members, losses.tolist(), strict=True)):
                member.last_loss = loss
                if s in self.ended:
                    continue
                if not math.isfinite(loss):
                    self.ended[s] = member.divergence(f"the loss is {loss}", self.global_step)
                    continue
                member.handed = handed[s]
                if learned:
                    member.rule.learn(learned[s])
            self.last_loss = float(losses.nanmean())
        return straight_through(losses.sum(), self.weights, grads)

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient of each seed by its own norm."""
        if not gradient_clip_val:
            return
        grads = [p.grad for p in self.weights.values() if p.grad is not None]
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)  # [S]
        factors = (gradient_clip_val / (norms + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_
        for g in grads:
            g.mul_(factors.view(-1, *[1] * (g.ndim - 1)))

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """See `RuleTraining.optimizer_step`."""
        super().optimizer_step(*args, **options)
        for member in self.members:
            member.network.project_()

    def configure_optimizers(self) -> Any:
        """One optimizer for all seeds: what they do is the same for every entry of a weight."""
        return self.members[0].optimizer_of(self.weights, self.trainer)

    def _gradients(self, splits: Sequence[Split], *counters: int) -> tuple[Tensor, Rows, Rows]:
        """Losses [S], gradients and what rules report, of the present weights on a batch of each seed."""
        drawn = [m.drawn(s.x, "draws", *counters) for m, s in zip(self.members, splits, strict=True)]
        parts: dict[str, list[Any]] = {name: [getattr(s, name) for s in splits] for name in ("x", "target", "mask")}
        parts["noise"] = [noise for noise, _ in drawn]
        rows = {name: torch.stack(part) for name, part in parts.items() if part[0] is not None}
        draws = {name: torch.stack([own[name] for _, own in drawn]) for name in drawn[0][1]}
        module, weights = self._asked[0], {name: w.detach() for name, w in self.weights.items()}

        def one(own: Rows, *given: Rows) -> tuple[Tensor, Rows, Rows]:
            return functional_call(module, own, given)

        return vmap(one)(self._own(), weights, rows, draws)

    def _own(self) -> Rows:
        """What each seed has of its own beside its weights: wiring that differs, and the tensors of its rule."""
        if self._wiring is None:
            self._wiring = _differing([_named(member.network, "network") for member in self.members])
        if self._kept is None or self._learns:
            rules = [_named(member.rule, "rule") for member in self.members]
            self._kept = {**self._wiring, **{name: torch.stack([r[name] for r in rules]) for name in rules[0]}}
        return self._kept


class _Asked(nn.Module):
    """A network and its rule, asked for a gradient, so that `functional_call` can hand in the tensors of both."""

    def __init__(self, network: Network, rule: Rule, loss: Loss) -> None:
        super().__init__()
        self.network, self.rule, self.loss = network, rule, loss

    def forward(self, params: Rows, batch: Rows, draws: Rows) -> tuple[Tensor, Rows, Rows]:
        """Loss, gradients and what the rule reports."""
        loss = self.loss.with_mask(batch.get("mask"))
        problem = Problem(self.network, params, batch["x"], batch["target"], loss, current_noise=batch.get("noise"))
        result = self.rule.gradients(problem, draws)
        return result.loss, result.grads, result.aux


class SeedsData(pl.LightningDataModule):
    """The batches of several seeds, each in its own order: a list with one batch a seed.

    Args:
        members: the data of each seed, as long as each other.
    """

    def __init__(self, members: Sequence[TaskData]) -> None:
        super().__init__()
        self.members = tuple(members)

    def train_dataloader(self) -> _Together:
        """The batches of all seeds."""
        return _Together([data.train_dataloader() for data in self.members])

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The batches on the device."""
        return [on_device(part, device) for part in batch]


class _Together:
    """Loaders that go on side by side."""

    def __init__(self, loaders: Sequence[SeededLoader]) -> None:
        self.loaders = loaders

    def __len__(self) -> int:
        return len(self.loaders[0])

    def __iter__(self) -> Iterator[list[Split]]:
        return (list(batches) for batches in zip(*self.loaders, strict=True))


def _named(module: nn.Module, prefix: str) -> Rows:
    """Buffers and parameters of a rule, or the buffers of a network, as `_Asked` names them."""
    named = dict(module.named_buffers())
    if isinstance(module, Rule):
        named |= {name: p.detach() for name, p in module.named_parameters()}
    return {f"{prefix}.{name}": value for name, value in named.items()}


def _differing(named: Sequence[Rows]) -> Rows:
    """Those of the tensors that are not the same for all seeds, stacked."""
    first, *others = named
    return {
        name: torch.stack([each[name] for each in named])
        for name, value in first.items()
        if any(not torch.equal(value, other[name]) for other in others)
    }


def _by_seed(rows: Mapping[str, Tensor]) -> list[Rows]:
    """What each seed has of it."""
    return [dict(zip(rows, own, strict=True)) for own in zip(*(r.unbind(0) for r in rows.values()), strict=True)]


def _same(stacked: Tensor, alone: Tensor) -> bool:
    """Whether they agree to rounding, where a gradient alone is finite at all."""
    there = alone.isfinite()
    stacked, alone = stacked[there], alone[there]
    scale = float(alone.abs().max()) if alone.numel() else 0.0
    return bool(((stacked - alone).abs() <= TOLERANCE * scale).all())
