"""Leaky integrate-and-fire neurons, without (LIF) and with (ALIF) an adaptive threshold.

With α the fraction of the potential that leaks per step, θ the threshold, H the spike function of
`bpgen.neurons.surrogate` with its derivative ψ, and G = α (drive="scaled") or G = 1 (drive="plain"):
    LIF   state s = (v), d = 1
    (1) v_t = (1-α) v_{t-1} + G I_t - θ z_{t-1}
    (2) z_t = H(v_t - θ),                                                    h_t = z_t
    ALIF  state s = (v, a), d = 2: equation (1) and
    (3) a_t = ρ a_{t-1} + z_{t-1}
    (4) A_t = θ + β a_t,      z_t = H(v_t - A_t),                            h_t = z_t
z_{t-1} is a function of s_{t-1}, so that the reset needs no state of its own, and z_0 = g(s_0). The reset subtracts
the baseline θ, also from a neuron whose threshold has adapted.

Derivatives, with ψ_t = ψ(v_t - θ), or ψ(v_t - A_t):
    LIF   A = 1-α - [θ ψ_{t-1}]                               C = G            D = ψ_t
    ALIF  A = | 1-α - [θ ψ_{t-1}]    [θ β ψ_{t-1}]  |         C = | G |        D = | ψ_t   -β ψ_t |
              | ψ_{t-1}              ρ - β ψ_{t-1}  |             | 0 |
The terms in square brackets are the path through the reset: there with reset="attached", absent with
reset="detached", which is the convention of the published eligibility traces. These are two different gradients of
the same dynamics, under BPTT and under e-prop. The path through the adaptation, (3), is never cut. With the detached
reset and no hops, the credit kernel gives the published trace of ALIF (Bellec 2020),
    (5) ε^v_t = (1-α) ε^v_{t-1} + G z^pre_{t-1},     ε^a_{t+1} = ψ_t ε^v_t + (ρ - ψ_t β) ε^a_t
        e_t = ψ_t (ε^v_t - β ε^a_t)

Conventions of the released code of Bellec 2020 (models.py): LightLIF scales the input by 1 - decay (drive="scaled", as
in `Leaky`), EligALIF does not (drive="plain"); ALIF here is EligALIF without its refractory period. LightALIF, which
is not offered, has a_t = ρ a_{t-1} + (1-ρ) z_{t-1} and measures u in units of A_t. Under BPTT that code leaves the
reset attached; its e-prop cuts the reset together with the recurrent synapses.

Limits: no refractory period (it needs a state that counts steps), no synaptic delay, one α for all neurons.

References: G. Bellec et al., NeurIPS 2018; G. Bellec et al., Nature Communications 11 (2020) 3625.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.errors import require, unknown
from bpgen.neurons.base import Neuron, Path
from bpgen.neurons.gain import Dense, Gain, Local, Scale
from bpgen.neurons.surrogate import Surrogate, SurrogateName, step

Reset = Literal["detached", "attached"]
Drive = Literal["scaled", "plain"]


class _IntegrateAndFire(Neuron):
    """What LIF and ALIF share: equation (1), its options and its noise."""

    spiking = True

    def __init__(
        self,
        alpha: float,
        threshold: float,
        reset: Reset,
        drive: Drive,
        surrogate: SurrogateName,
        dampening: float,
        width: float | None,
    ) -> None:
        super().__init__()
        require(
            0 < alpha <= 1,
            f"neuron.alpha must be in (0, 1] (the fraction of the potential that leaks per step), got {alpha}.",
        )
        for name, value, choices in (("reset", reset, ("detached", "attached")), ("drive", drive, ("scaled", "plain"))):
            if value not in choices:
                raise unknown(name, value, choices)
        self.surrogate = Surrogate(surrogate, threshold, dampening, width)
        self.alpha, self.threshold, self.reset, self.drive = float(alpha), float(threshold), reset, drive
        self.gain = self.alpha if drive == "scaled" else 1.0

    @property
    def noise_scale(self) -> float:  # type: ignore[override]
        """√(2/α) α/G: with it the noise of the potential has standard deviation about σ, as for `Leaky`."""
        return math.sqrt(2 / self.alpha) * self.alpha / self.gain

    def _potential(self, v: Tensor, u: Tensor, z: Tensor, I: Tensor) -> Tensor:
        """Equation (1) from v, u = v - A, z and I, all [...,N]; the detached reset takes the step alone."""
        spikes = z if self.reset == "attached" else step(u)
        return (1 - self.alpha) * v + self.gain * I - self.threshold * spikes


class LIF(_IntegrateAndFire):
    """Leaky integrate-and-fire neuron, equations (1) and (2): one state v, one current, activity 0 or 1.

    Args:
        alpha: fraction of the potential that leaks per step, in (0, 1]; 1 - decay in the released code of Bellec 2020.
        threshold: θ, at which a neuron fires and what a spike subtracts.
        reset: whether credit passes through the reset ("attached") or not ("detached", the published traces).
        drive: "scaled" weighs the current by alpha (as `Leaky` and LightLIF), "plain" takes it as it is (EligALIF).
        surrogate: shape of the derivative of a spike.
        dampening: γ, which scales that derivative; its peak is γ/θ.
        width: its width in units of θ; none is 1 (piecewise_linear), 0.1 (fast_sigmoid) or 0.5 (gaussian).

    Raises:
        BpgenError: a number outside its range, or an unknown name.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        threshold: float = 0.5,
        reset: Reset = "detached",
        drive: Drive = "scaled",
        surrogate: SurrogateName = "piecewise_linear",
        dampening: float = 0.3,
        width: float | None = None,
    ) -> None:
        super().__init__(alpha, threshold, reset, drive, surrogate, dampening, width)

    @classmethod
    def from_tau(cls, tau: float, dt: float = 1.0, **options: Any) -> LIF:
        """A neuron from its membrane time constant: α = 1 - exp(-dt/τ).

        Args:
            tau: membrane time constant, in the unit of `dt` (ms).
            dt: length of a time step.
            **options: as for `LIF`.
        """
        return cls(_leak("tau", tau, dt), **options)

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        """Equation (1); s and I [...,1,N]."""
        u = s - self.threshold
        return self._potential(s, u, self.surrogate.spike(u), I)

    def g(self, s: Tensor) -> Tensor:
        """Equation (2)."""
        return self.surrogate.spike(s.squeeze(-2) - self.threshold)

    def local(self, path: Path) -> Local:
        """The closed forms above; see `Neuron.local`."""
        psi = self.surrogate.slope(path.states - self.threshold).unsqueeze(-2)  # [T+1,B,1,1,N]
        A: Gain = Scale(1 - self.alpha)
        if self.reset == "attached":
            before = torch.cat([psi[:1], psi[:-1]])  # entry 0 has no predecessor and is never asked for
            A = Dense(1 - self.alpha - self.threshold * before)
        return Local(A, Scale(self.gain), Dense(psi))

    def advance_into(self, I: Tensor, before: Tensor, s: Tensor, h: Tensor) -> None:
        """Equations (1) and (2) without the surrogate, which has no part in the values."""
        torch.gt(before, self.threshold, out=h)
        torch.mul(before, 1 - self.alpha, out=s)
        s.add_(I, alpha=self.gain).sub_(h, alpha=self.threshold)
        torch.gt(s, self.threshold, out=h)


class ALIF(_IntegrateAndFire):
    """Integrate-and-fire neuron with adaptive threshold, equations (1), (3), (4): states (v, a), one current.

    Args:
        alpha: fraction of the potential that leaks per step, in (0, 1]; 1 - decay in the released code of Bellec 2020.
        threshold: θ, the baseline at which a neuron fires, and what a spike subtracts.
        beta: β, how much a unit of adaptation raises the threshold; 0 is `LIF`.
        rho: ρ, the part of the adaptation that is left after a step, in [0, 1).
        reset: whether credit passes through the reset ("attached") or not ("detached", the published traces).
        drive: "scaled" weighs the current by alpha (as `Leaky` and LightLIF), "plain" takes it as it is (EligALIF).
        surrogate: shape of the derivative of a spike.
        dampening: γ, which scales that derivative; its peak is γ/θ.
        width: its width in units of θ; none is 1 (piecewise_linear), 0.1 (fast_sigmoid) or 0.5 (gaussian).

    Raises:
        BpgenError: a number outside its range, or an unknown name.
    """

    n_states = 2

    def __init__(
        self,
        alpha: float = 0.5,
        threshold: float = 0.5,
        beta: float = 0.2,
        rho: float = 0.9,
        reset: Reset = "detached",
        drive: Drive = "scaled",
        surrogate: SurrogateName = "piecewise_linear",
        dampening: float = 0.3,
        width: float | None = None,
    ) -> None:
        super().__init__(alpha, threshold, reset, drive, surrogate, dampening, width)
        require(0 <= beta < math.inf, f"neuron.beta must be >= 0, got {beta}.")
        require(0 <= rho < 1, f"neuron.rho must be in [0, 1), got {rho}.")
        self.beta, self.rho = float(beta), float(rho)

    @classmethod
    def from_tau(cls, tau: float, tau_adaptation: float, dt: float = 1.0, **options: Any) -> ALIF:
        """A neuron from its time constants: α = 1 - exp(-dt/τ), ρ = exp(-dt/τ_a).

        Args:
            tau: membrane time constant, in the unit of `dt` (ms).
            tau_adaptation: time constant of the adaptation.
            dt: length of a time step.
            **options: as for `ALIF`.
        """
        return cls(_leak("tau", tau, dt), rho=1 - _leak("tau_adaptation", tau_adaptation, dt), **options)

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        """Equations (1) and (3); s [...,2,N], I [...,1,N]."""
        v, a = s.unbind(-2)
        u = self._above(v, a)
        z = self.surrogate.spike(u)
        return torch.stack([self._potential(v, u, z, I.squeeze(-2)), self.rho * a + z], dim=-2)

    def g(self, s: Tensor) -> Tensor:
        """Equation (4)."""
        return self.surrogate.spike(self._above(*s.unbind(-2)))

    def _above(self, v: Tensor, a: Tensor) -> Tensor:
        """u = v - A."""
        return v - self.threshold - self.beta * a


def _leak(name: str, tau: float, dt: float) -> float:
    """1 - exp(-dt/τ)."""
    require(tau > 0 and dt > 0, f"{name} and dt must be positive, got {name}={tau}, dt={dt}.")
    return -math.expm1(-dt / tau)
