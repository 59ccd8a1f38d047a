"""The true loss of a batch, its derivative by the outputs, and where in time it is taken.

    last step:  L = (1/B) Σ_b ℓ(y_{T,b})                  all steps:  L = (1/B) Σ_{t,b} m_{tb} ℓ(y_{t,b})
The weights m of the steps are fixed beforehand, because an online learner cannot know a future mask; without a
mask m = 1/T for the cross-entropies and 1 for squared error: of the cross-entropies a mask of ones is T times no mask,
loss, gradients and curvature alike. Losses of split batches therefore add up. ℓ is one of `bpgen.comparison`.
Its regularisers (`bpgen.regularisers`) are part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from bpgen.comparison import LossName, compared, compared_and_error, error_along
from bpgen.errors import BpgenError, choice, require
from bpgen.regularisers import L2, Activity, ActivityForm

__all__ = ["L2", "Activity", "ActivityForm", "Loss", "LossName", "When"]

When = Literal["last", "all"]


@dataclass(frozen=True)
class Loss:
    """A loss: what is compared, at which steps, with which weights, and what is added.

    kind: "cross_entropy" (target: int64 classes), "mse" or "binary_cross_entropy" (target: float).
    when: "last" (outputs [B,O]) or "all" (outputs [T,B,O]).
    mask: weights m [T,B] of the steps, only with "all".
    regulariser: an `L2` on the weights, or None.
    activity: an `Activity`, the regulariser of the activities, or None.
    """

    kind: LossName = "cross_entropy"
    when: When = "last"
    mask: Tensor | None = None
    regulariser: L2 | None = None
    activity: Activity | None = None

    def __post_init__(self) -> None:
        choice("loss", self.kind, LossName)
        choice("loss.when", self.when, When)
        require(self.mask is None or self.when == "all", "a mask needs when='all': it weights the steps.")

    def with_mask(self, mask: Tensor | None) -> Loss:
        """The same loss with the step weights of a batch."""
        return self if mask is self.mask else replace(self, mask=mask)

    @classmethod
    def of(
        cls,
        kind: LossName = "cross_entropy",
        when: When = "last",
        mask: Tensor | None = None,
        regulariser: L2 | float | Mapping[str, float] | None = None,
        activity: Activity | float | None = None,
    ) -> Loss:
        """From what users write: regularisers may be numbers, see `L2.of` and `Activity.of`."""
        return cls(kind, when, mask, L2.of(regulariser), Activity.of(activity))

    def without_regulariser(self) -> Loss:
        """The same loss without its regularisers, of the weights and of the activity."""
        return replace(self, regulariser=None, activity=None)

    @property
    def there(self) -> Tensor | None:
        """Which steps are no padding, bool [T,B]: up to the last of weight > 0, after which nothing matters; or all."""
        return None if self.mask is None else (self.mask > 0).flip(0).cumsum(0).flip(0) > 0  # some left that counts

    @property
    def cost(self) -> Activity | None:
        """The regulariser of the activities of this batch, which ends with each sequence."""
        return self.activity if self.activity is None else replace(self.activity, there=self.there)

    @property
    def regularised(self) -> bool:
        """Whether anything is added to the data's loss."""
        return self.regulariser is not None or self.activity is not None

    def data(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss without regulariser, a 0-d tensor; differentiable."""
        weights, n = self._weights(outputs)
        per_step = compared(self.kind, outputs, target)
        return (per_step.sum() if weights is None else (per_step * weights).sum()) / n

    def per_sample(self, outputs: Tensor, target: Tensor, h: Tensor | None = None) -> Tensor:
        """The loss of each sequence [B]: what a reward tells about it.

        Its mean is the loss without regularisers, plus that of the activities h [T+1,B,N] where they are given.
        """
        weights, n = self._weights(outputs)
        per_step = compared(self.kind, outputs, target)
        per_step = per_step if weights is None else per_step * weights
        each = (per_step if self.when == "last" else per_step.sum(0)) * (outputs.shape[-2] / n)
        return each if h is None or self.cost is None else each + self.cost.per_sample(h)

    def data_and_error(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss without regulariser and e = ∂L/∂y [L,B,O] at the last L steps (1 or T), in closed form."""
        weights, n = self._weights(outputs)
        if weights is None and self.kind == "mse":  # no sum over steps and samples in between
            error = outputs - (target if target.dtype == outputs.dtype else target.to(outputs.dtype))
            value, error = (error * error).sum() * (0.5 / n), error / n
            return value, error.unsqueeze(0) if self.when == "last" else error
        per_step, error = compared_and_error(self.kind, outputs, target)
        if weights is None:
            value, error = per_step.sum() / n, error / n
        else:
            value, error = (per_step * weights).sum() / n, error * (weights / n).unsqueeze(-1)
        return value, error.unsqueeze(0) if self.when == "last" else error

    def error_along(self, outputs: Tensor, tangents: Tensor) -> Tensor:
        """e' = (∂²L/∂y²) y' [V,L,B,O] in closed form, of tangents y' [V,L,B,O] at the last L steps.

        No loss's depends on its target.
        """
        weights, n = self._weights(outputs)
        if self.when == "last":
            outputs = outputs.unsqueeze(0)
        tangents = error_along(self.kind, outputs, tangents)
        return tangents / n if weights is None else tangents * (weights / n).unsqueeze(-1)

    def total(self, outputs: Tensor, target: Tensor, params: Mapping[str, Tensor], h: Tensor | None = None) -> Tensor:
        """The loss with its regularisers; one of the activity needs the activities h [T+1,B,N]."""
        value = self.data(outputs, target)
        if self.regulariser is not None:
            value = value + self.regulariser.value(params)
        if self.cost is not None:
            if h is None:
                raise BpgenError("a loss with an activity regulariser needs the activities: total(..., h).")
            value = value + self.cost.value(h)
        return value

    # Where in time a loss is taken is this class's business: nobody else asks for `when`.

    def in_blocks(self, x: Tensor, target: Tensor, size: int) -> Iterator[tuple[slice, Tensor, Loss | None]]:
        """The steps of a sequence in blocks of `size`: where each is, its target, and its part of the loss, if any.

        Args:
            x, target: inputs [T,B,I], and the target of every step or of the last one.
            size: steps of a block; the last one may be shorter.
        """
        T, whole = x.shape[0], self
        if size >= T:
            yield slice(0, T), target, self
            return
        if self.when == "all":  # 1/T, not one over the length of a block
            target, whole = self.of_chunk(x, target)
        for first in range(0, T, size):
            part = slice(first, min(first + size, T))
            here, loss = whole.of_steps(target, part)
            yield part, here, loss if self.when == "all" or part.stop == T else None

    def outputs_of(self, blocks: Sequence[Tensor]) -> Tensor:
        """The outputs it is taken of, [B,O] or [T,B,O], from those of blocks of steps."""
        return torch.cat(list(blocks)) if self.when == "all" and len(blocks) > 1 else blocks[-1]

    def of_samples(self, target: Tensor, part: slice | Tensor) -> tuple[Tensor, Loss]:
        """Target and loss of a part of the batch."""
        mask = None if self.mask is None else self.mask[:, part]
        return target[:, part] if self.when == "all" else target[part], self.with_mask(mask)

    def of_steps(self, target: Tensor, part: slice) -> tuple[Tensor, Loss]:
        """Target and loss of a part of the steps; a target of the last step stays."""
        mask = None if self.mask is None else self.mask[part]
        return target[part] if self.when == "all" else target, self.with_mask(mask)

    def repeated(self, target: Tensor, times: int) -> tuple[Tensor, Loss]:
        """Target and loss of the same batch several times side by side."""
        mask = None if self.mask is None else self.mask.repeat(1, times)
        return torch.cat([target] * times, dim=int(self.when == "all")), self.with_mask(mask)

    def of_chunk(self, x: Tensor, target: Tensor, share: float = 1.0, ends: bool = True) -> tuple[Tensor, Loss]:
        """The part of this loss that falls on k of the T steps of a sequence, written as one over all of them.

        Args:
            x, target: inputs [k,B,I] and targets of these steps, or the target of the last one.
            share, ends: k/T, and whether they are the last ones.
        Returns: targets [k,B] or [k,B,O], and the loss with weights of the steps [k,B]; None where all are one.
        """
        k, B = x.shape[:2]
        if self.when == "all" and self.kind == "mse":
            return target, self
        if self.when == "all":
            return target, self.with_mask(x.new_full((k, B), share / k) if self.mask is None else self.mask)
        mask = x.new_zeros(k, B)
        mask[-1] = float(ends)
        return target.expand(k, *target.shape), replace(self, when="all", mask=mask)

    def of_lengths(self, target: Tensor, lengths: Tensor, n_steps: int) -> tuple[Tensor, Loss]:
        """Target and loss of padded sequences of `lengths` [B] steps, each taken as if it had been run by itself.

        At the last step that is each sequence's own; at all steps only its own count, cross-entropy as their mean.
        """
        step = torch.arange(n_steps, device=lengths.device).unsqueeze(1)
        if self.when == "last":
            mask = (step == lengths - 1).double()
            return target.expand(n_steps, *target.shape), replace(self, when="all", mask=mask)
        there = (step < lengths).double()
        even = there if self.kind == "mse" else there / lengths
        return target, self.with_mask(even if self.mask is None else self.mask * there)

    def check(self, target: Tensor, n_steps: int, batch: int, n_out: int) -> None:
        """See that the target and the mask fit T steps, B samples and O outputs.

        Raises:
            BpgenError: what does not fit, and what was expected.
        """
        self.check_shapes(target, n_steps, batch, n_out)
        if self.kind == "cross_entropy":
            require(n_out > 1, "cross-entropy with one output is zero whatever it is: give n_out=2, or loss='mse'.")
            require(
                target.dtype == torch.int64,
                f"target must hold int64 classes for cross-entropy, got {target.dtype}: loss='mse' takes values.",
            )
            low, high = (int(target.min()), int(target.max())) if target.numel() else (0, 0)
            wrong, hint = low if low < 0 else high, " Weight padded steps with a mask of 0." if low < 0 else ""
            require(
                0 <= wrong < n_out,
                f"target must hold classes 0..{n_out - 1} for {n_out} outputs, got {wrong}.{hint}",
            )

        if self.kind == "binary_cross_entropy":
            require(
                bool(((target >= 0) & (target <= 1)).all()),
                "target must hold numbers from 0 to 1 for binary cross-entropy, 1 where a label applies.",
            )

    def check_shapes(self, target: Tensor, n_steps: int, batch: int, n_out: int) -> None:
        """As `check`, of the shapes alone."""
        steps = [batch] if self.when == "last" else [n_steps, batch]
        expected = steps + ([] if self.kind == "cross_entropy" else [n_out])
        require(
            list(target.shape) == expected,
            f"target must be {expected} for loss={self.kind!r}, when={self.when!r}, got {list(target.shape)}.",
        )
        fits = self.mask is None or list(self.mask.shape) == [n_steps, batch]
        require(fits, f"mask must be [T,B] = {[n_steps, batch]}.")

    def _weights(self, outputs: Tensor) -> tuple[Tensor | None, float]:
        """Step weights (None: all one) and what the sum is divided by."""
        B = outputs.shape[-2]
        if self.mask is not None:
            return self.mask.to(outputs.dtype), B  # a bool or int mask divided by B would be float32
        return None, B if self.when == "last" or self.kind == "mse" else B * outputs.shape[0]
