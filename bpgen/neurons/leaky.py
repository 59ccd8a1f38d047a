"""Leaky rate neurons with their three leak conventions, which are three different models.

With α the fraction of new input per step (α = 1 is memoryless), which may differ between neurons, and φ the activation:
    (1) potential  s_t = (1-α) s_{t-1} + α I_t,        h_t = φ(s_t)    Bellec 2020; Liu 2021, 2022
    (2) rate       s_t = (1-α) s_{t-1} + α φ(I_t),     h_t = s_t       Murray 2019; Marschall 2020
    (3) inside     s_t = φ((1-α) s_{t-1} + α I_t),     h_t = s_t       nn-brain; Liu 2023 (rich and lazy)
Their derivatives:
    (1) A = 1-α          C = α              D = φ'(s_t)
    (2) A = 1-α          C = α φ'(I_t)      D = 1
    (3) A = (1-α) φ'     C = α φ'           D = 1        φ' at (1-α) s_{t-1} + α I_t
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.errors import choice, require
from bpgen.neurons.activation import ACTIVATIONS
from bpgen.neurons.base import Recording
from bpgen.neurons.gain import Local, Scale, Slope, scale
from bpgen.neurons.leak import Discretisation, LeakyState, leak

ActivationName = Literal["relu", "tanh", "softplus", "retanh", "linear"]
Leak = Literal["potential", "rate", "inside"]


class Leaky(LeakyState):
    """Leaky rate neuron: one state, one current.

    Args:
        alpha: fraction of new input per step, in (0, 1]; 1 is memoryless (the released experiment of Liu 2022). A pair
            [lo, hi] draws one per neuron from the seed, uniform in its logarithm; a tensor [N] gives them.
        activation: the non-linearity φ from potential to rate.
        leak: what leaks: the potential, the rate, or the potential inside the non-linearity.
        learn_alpha: learn alpha, a time constant for each neuron, from there on; it stays within (0, 1).

    Raises:
        BpgenError: alpha outside (0, 1], or an unknown activation or leak; a rate that leaks with a learned alpha.
    """

    derivatives_agree = True

    def __init__(
        self,
        alpha: float | tuple[float, float] = 0.5,
        activation: ActivationName = "relu",
        leak: Leak = "potential",
        learn_alpha: bool = False,
    ) -> None:
        super().__init__(alpha, learn_alpha)
        self.activation, self.leak = choice("activation", activation, ActivationName), choice("leak", leak, Leak)
        self._phi = ACTIVATIONS[activation]
        require(
            not learn_alpha or leak != "rate",
            "neuron.learn_alpha is not for leak='rate': its leak acts behind the non-linearity, of which the credit of "
            "a current says nothing. Take leak='potential' or 'inside'.",
        )

    @classmethod
    def from_tau(
        cls,
        tau: float | Sequence[float] | Tensor,
        dt: float = 1.0,
        discretisation: Discretisation = "exp",
        **options: Any,
    ) -> Leaky:
        """A leaky neuron from its time constant, for people who think in milliseconds.

        Args:
            tau: membrane time constant, in the unit of `dt` (ms); a pair [lo, hi] or a tensor [N] as for `alpha`.
            dt: length of a time step.
            discretisation: "exp" gives α = 1 - exp(-dt/τ) (Bellec 2020, Liu 2022), "euler" gives α = dt/τ.
            **options: as for `Leaky`.
        """
        return cls(leak(tau, dt, discretisation), **options)

    @property
    def piecewise_linear(self) -> bool:
        """Where φ is."""
        return self.activation in ("relu", "linear")

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        """Equations (1) to (3)."""
        a, phi = self.alpha, self._phi.apply
        if self.leak == "potential":
            return (1 - a) * s + a * I
        if self.leak == "rate":
            return (1 - a) * s + a * phi(I)
        return phi((1 - a) * s + a * I)

    def g(self, s: Tensor) -> Tensor:
        """h = φ(s) where the potential leaks, h = s elsewhere."""
        s = s.squeeze(-2)
        return self._phi.apply(s) if self.leak == "potential" else s

    def local(self, recording: Recording) -> Local:
        """The closed forms above; see `Neuron.local`."""
        a = self.alpha
        if self.leak == "potential":
            return Local(scale(1 - a), scale(a), Slope(self._phi, recording.h))
        if self.leak == "rate":
            return Local(scale(1 - a), Slope(self._phi, self._phi.apply(recording.currents.squeeze(-2)), a), Scale(1.0))
        return Local(Slope(self._phi, recording.h, 1 - a), Slope(self._phi, recording.h, a), Scale(1.0))

    def state_buffer(self, drive: Tensor, h: Tensor) -> Tensor:
        """The potential overwrites its current, a leaking rate is the activity itself."""
        return drive if self.leak == "potential" else h

    def advance_into(self, I: Tensor, before: Tensor, s: Tensor, h: Tensor) -> None:
        """Equations (1) to (3) with one or two elementwise passes and no new memory; see `state_buffer`."""
        a, phi = self.alpha, self._phi.apply_into
        remembers = isinstance(a, Tensor) or a < 1
        if self.leak == "potential":
            if remembers:
                torch.lerp(before, I, a, out=s)
            phi(s, h)
        elif self.leak == "rate":
            phi(I, h)
            if remembers:
                torch.lerp(before, h, a, out=h)
        else:
            phi(torch.lerp(before, I, a, out=h) if remembers else I, h)
