"""What is added to the loss of the data: a penalty on the weights, a cost of the activity.

A regulariser is part of the loss, never weight decay of the optimizer: the Hessian has to contain it, and every number
has to be reportable without it. One of the activity is a mean over the samples, so that split batches add up with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bpgen.errors import choice, require, unknown

PENALISED = ("W_in", "W_rec", "W_out")
WEIGHTS = (*PENALISED, "b_rec", "b_out", "initial_state")
_MOST = 1e30  # a coefficient beyond which single precision holds no penalty
ActivityForm = Literal["rate", "square"]


@dataclass(frozen=True)
class L2:
    """½ Σ_w c_w ‖w‖² over the stored weights, a masked diagonal included (as the released code of Liu 2022).

    coefficients: weight name -> c_w.
    """

    coefficients: Mapping[str, float]

    @classmethod
    def of(cls, value: L2 | float | Mapping[str, float] | None) -> L2 | None:
        """Accept a number (for W_in, W_rec and W_out; never a bias), a mapping by weight, or nothing."""
        if value is None or isinstance(value, L2):
            return value
        coefficients = dict(value) if isinstance(value, Mapping) else dict.fromkeys(PENALISED, float(value))
        for name, c in coefficients.items():
            if name not in WEIGHTS:
                raise unknown("weight in loss.l2", name, WEIGHTS)
            require(0 <= c < _MOST, f"loss.l2 of {name} must be >= 0 and below {_MOST:g}, got {c}.")
        coefficients = {name: c for name, c in coefficients.items() if c}
        return cls(coefficients) if coefficients else None

    def value(self, params: Mapping[str, Tensor]) -> Tensor:
        """The penalty, a 0-d tensor."""
        terms = [0.5 * c * params[n].square().sum() for n, c in self.coefficients.items() if n in params]
        return torch.stack(terms).sum() if terms else next(iter(params.values())).new_zeros(())

    def gradient(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its exact gradient c_w w, by weight name."""
        return {n: c * params[n] for n, c in self.coefficients.items() if n in params}


@dataclass(frozen=True)
class Activity:
    """A cost of the activities h_t themselves, t = 1..T, for every neuron j and sample b.

    rate     E = (c/2B) Σ_b Σ_j (f_bj - f*)²,  f_bj = (1/T) Σ_t h_tbj      Bellec et al. 2020, methods
    square   E = (c/2BN) Σ_bj (1/T) Σ_t h_tbj²                             Liu, Yang and Cueva 2025, for rate networks
    Where sequences differ in length, Σ_t and T are those of each sequence; one without any step costs nothing.
    Deviation: Bellec et al. average f over the sequences of a batch before squaring. Here each sequence has its own f,
    which also penalises how much rates vary between sequences; with one sequence a batch, as in their pattern
    generation, it is the same. Split batches then add up, and a neuron needs to know no other trial than the present.

    coefficient: c. target: f*, activity per step (spikes per step for spiking neurons); only for "rate".
    there: which steps of a batch are no padding, bool [T,B]; None is all. `Loss.cost` knows it.
    """

    coefficient: float
    form: ActivityForm = "rate"
    target: float = 0.0
    there: Tensor | None = None

    def __post_init__(self) -> None:
        few = 0 <= self.coefficient < _MOST
        require(few, f"loss.activity must be >= 0 and below {_MOST:g}, got {self.coefficient}.")
        choice("loss.activity_form", self.form, ActivityForm)
        require(
            self.form == "rate" or self.target == 0,
            f"loss.activity_target is the target of activity_form 'rate'; 'square' has none, got {self.target}.",
        )

    @classmethod
    def of(cls, value: Activity | float | None) -> Activity | None:
        """Accept a coefficient (of the rate form, target 0), an `Activity`, or nothing; a zero coefficient is none."""
        activity = value if value is None or isinstance(value, Activity) else cls(float(value))
        return activity if activity is not None and activity.coefficient else None

    def value(self, h: Tensor) -> Tensor:
        """E, a 0-d tensor, of the activities h [T+1,B,N] of a trajectory; h_0 does not count."""
        return self.per_sample(h).mean()

    def per_sample(self, h: Tensor) -> Tensor:
        """E of each sequence [B], whose mean is `value`."""
        if self.form == "square":
            return 0.5 * self.coefficient * self._mean(h[1:].square()).mean(-1)
        return 0.5 * self.coefficient * self._off(h).square().sum(-1)

    def gradient(self, h: Tensor) -> Tensor:
        """∂E/∂h_t [T,B,N] at fixed other activities, t = 1..T: what each neuron is told, by itself alone."""
        T, B, N = h[1:].shape
        weight = self.coefficient / B * self._shares(h[1:])
        if self.form == "square":
            return weight / N * h[1:]
        return (weight * self._off(h)).expand(T, B, N)

    def _shares(self, like: Tensor) -> Tensor | float:
        """What each step is of its sequence: 1/T, where they differ in length [T,B,1]."""
        if self.there is None:
            return 1 / len(like)
        there = self.there.to(like.dtype)
        return (there / there.sum(0).clamp(min=1)).unsqueeze(-1)

    def _mean(self, values: Tensor) -> Tensor:
        """The mean [B,N] over the steps of each sequence, of values [T,B,N]."""
        return values.mean(0) if self.there is None else (self._shares(values) * values).sum(0)

    def _off(self, h: Tensor) -> Tensor:
        """f - f* [B,N]; 0 of a sequence without any step."""
        off = self._mean(h[1:]) - self.target
        return off if self.there is None else off * self.there.any(0).unsqueeze(-1)
