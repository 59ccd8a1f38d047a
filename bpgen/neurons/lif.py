"""Leaky integrate-and-fire neurons, without (LIF) and with (ALIF) an adaptive threshold.

With α the fraction of the potential that leaks per step, which may differ between neurons, θ the threshold, H the spike
function of `bpgen.neurons.surrogate` with its derivative ψ, and G = α (drive="scaled") or G = 1 (drive="plain"):
    LIF   state s = (v), d = 1
    (1) v_t = (1-α) v_{t-1} + G I_t - θ z_{t-1}
    (2) z_t = H(v_t - θ),                                                    h_t = z_t
    ALIF  state s = (v, a), d = 2: equation (1) and
    (3) a_t = ρ a_{t-1} + z_{t-1}
    (4) A_t = θ + β a_t,      z_t = H(v_t - A_t),                            h_t = z_t
    both with a refractory period of n steps, d larger by one: the steps of silence that are left, the last state
    (5) c_t = n where z_{t-1} = 1, else max(c_{t-1} - 1, 0);     z_t = H(...) 1[c_t = 0]
z_{t-1} is a function of s_{t-1}, so that the reset needs no state of its own, and z_0 = g(s_0). The reset subtracts
the baseline θ, also from a neuron whose threshold has adapted. The potential integrates throughout the n silent steps.

Derivatives, with ψ_t = ψ(v_t - A_t) 1[c_t = 0] (A_t = θ for LIF; no derivative goes into or through c):
    LIF   A = 1-α - [θ ψ_{t-1}]                               C = G            D = ψ_t
    ALIF  A = | 1-α - [θ ψ_{t-1}]    [θ β ψ_{t-1}]  |         C = | G |        D = | ψ_t   -β ψ_t |
              | ψ_{t-1}              ρ - β ψ_{t-1}  |             | 0 |
The terms in square brackets are the path through the reset: there with reset="attached", absent with
reset="detached", which is the convention of the published eligibility traces. These are two different gradients of
the same dynamics, under BPTT and under e-prop. The path through the adaptation, (3), is never cut. With the detached
reset and no hops, the credit kernel gives the published trace of ALIF (Bellec 2020),
    (6) ε^v_t = (1-α) ε^v_{t-1} + G z^pre_{t-1},     ε^a_{t+1} = ψ_t ε^v_t + (ρ - ψ_t β) ε^a_t
        e_t = ψ_t (ε^v_t - β ε^a_t)

Conventions of the released code of Bellec 2020 (models.py): LightLIF scales the input by 1 - decay (drive="scaled", as
in `Leaky`), EligALIF does not (drive="plain"); ALIF here is EligALIF. LightALIF, which is not offered, has
a_t = ρ a_{t-1} + (1-ρ) z_{t-1} and measures u in units of A_t. Under BPTT that code leaves the reset attached; its
e-prop cuts the reset together with the recurrent synapses. As in the paper a refractory neuron cannot fire, has ψ = 0,
and goes on integrating; (5) counts the silent steps after the step of the spike.

Limits: no synaptic delay, one ρ for all neurons.

References: G. Bellec et al., NeurIPS 2018; G. Bellec et al., Nature Communications 11 (2020) 3625.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.errors import require, unknown
from bpgen.neurons.base import Path
from bpgen.neurons.gain import Dense, Gain, Local, scale
from bpgen.neurons.leak import LeakyState, leak
from bpgen.neurons.surrogate import Surrogate, SurrogateName

Reset = Literal["detached", "attached"]
Drive = Literal["scaled", "plain"]
Tau = float | Sequence[float] | Tensor


class _IntegrateAndFire(LeakyState):
    """What LIF and ALIF share: equations (1) and (5), their options and noise, and the derivatives.

    Args:
        alpha: fraction of the potential that leaks per step, in (0, 1]; 1 - decay in the released code of Bellec 2020.
            A pair [lo, hi] draws one per neuron from the seed, uniform in its logarithm; a tensor [N] gives them.
        threshold: θ, at which a neuron fires and what a spike subtracts.
        reset: whether credit passes through the reset ("attached") or not ("detached", the published traces).
        drive: "scaled" weighs the current by alpha (as `Leaky` and LightLIF), "plain" takes it as it is (EligALIF).
        surrogate: shape of the derivative of a spike.
        dampening: γ, which scales that derivative; its peak is γ/θ.
        width: its width in units of θ; none is 1 (piecewise_linear), 0.1 (fast_sigmoid) or 0.5 (gaussian).
        n_refractory: steps after a spike in which a neuron cannot fire, while its potential integrates.
    """

    spiking = True

    def __init__(
        self,
        alpha: float | tuple[float, float] = 0.5,
        threshold: float = 0.5,
        reset: Reset = "detached",
        drive: Drive = "scaled",
        surrogate: SurrogateName = "piecewise_linear",
        dampening: float = 0.3,
        width: float | None = None,
        n_refractory: int = 0,
    ) -> None:
        super().__init__(alpha)
        for name, value, choices in (("reset", reset, ("detached", "attached")), ("drive", drive, ("scaled", "plain"))):
            if value not in choices:
                raise unknown(name, value, choices)
        require(n_refractory >= 0, f"neuron.n_refractory must be a number of steps >= 0, got {n_refractory}.")
        self.surrogate = Surrogate(surrogate, threshold, dampening, width)
        self.threshold, self.reset, self.drive, self.n_refractory = float(threshold), reset, drive, n_refractory
        self.n_states = type(self).n_states + (n_refractory > 0)

    @property
    def gain(self) -> float | Tensor:
        """G."""
        return self.alpha if self.drive == "scaled" else 1.0

    @property
    def noise_scale(self) -> float | Tensor:  # type: ignore[override]
        """√(2/α) α/G: with it the noise of the potential has standard deviation about σ, as for `Leaky`."""
        return super().noise_scale * self.alpha / self.gain

    def g(self, s: Tensor) -> Tensor:
        """Equation (2) or (4), with (5)."""
        z = self.surrogate.spike(self._above(s))
        return z * self._ready(s) if self.n_refractory else z

    def _above(self, s: Tensor) -> Tensor:
        """u = v - A, the distance from the threshold [...,N], of states [...,d,N]."""
        raise NotImplementedError

    def _ready(self, s: Tensor) -> Tensor:
        """1[c = 0] of equation (5), [...,N]; without any derivative."""
        return (s[..., -1, :] <= 0).to(s.dtype)

    def _next(self, s: Tensor, I: Tensor, z: Tensor, *others: Tensor) -> Tensor:
        """State [...,d,N] from s [...,d,N], I [...,1,N] and z = g(s): equation (1), `others`, equation (5)."""
        fired = z > 0
        spikes = z if self.reset == "attached" else fired.to(z.dtype)
        v = (1 - self.alpha) * s[..., 0, :] + self.gain * I.squeeze(-2) - self.threshold * spikes
        after = [v, *others]
        if self.n_refractory:
            left = (s[..., -1, :].detach() - 1).clamp(min=0)
            after.append(torch.where(fired, self.n_refractory, left))
        return torch.stack(after, dim=-2)

    def _local(
        self, path: Path, kept: tuple[float | Tensor, ...], u_by_s: tuple[float, ...], by_z: tuple[float, ...] = ()
    ) -> Local:
        """The closed forms above, see `Neuron.local`.

        Args:
            path: the trajectory.
            kept: what is left of each state after a step.
            u_by_s: ∂u/∂s.
            by_z: ∂s_t/∂z_{t-1} of the states other than v.
        """
        psi = self.surrogate.slope(self._above(path.states))  # [T+1,B,N]
        by_z = (-self.threshold if self.reset == "attached" else 0.0, *by_z)
        if self.n_refractory:
            psi = psi * self._ready(path.states)
            kept, u_by_s, by_z = (*kept, 0.0), (*u_by_s, 0.0), (*by_z, 0.0)
        D = Dense(torch.stack([k * psi for k in u_by_s], dim=-2).unsqueeze(-3))
        zero, before = torch.zeros_like(psi), torch.cat([psi[:1], psi[:-1]])  # entry 0 is never asked for
        if self.n_states > 1:
            C: Gain = Dense(torch.stack([zero + self.gain] + [zero] * (self.n_states - 1), dim=-2).unsqueeze(-2))
        else:
            C = scale(self.gain)
            if self.reset == "detached":
                return Local(scale(kept[0]), C, D)

        def entry(i: int, j: int) -> Tensor:
            through_z = by_z[i] * u_by_s[j] * before if by_z[i] * u_by_s[j] else zero
            return through_z + kept[i] if i == j else through_z

        states = range(self.n_states)
        A = torch.stack([torch.stack([entry(i, j) for j in states], dim=-2) for i in states], dim=-3)
        return Local(Dense(A), C, D)


class LIF(_IntegrateAndFire):
    """Leaky integrate-and-fire neuron, equations (1) and (2): state v, one current, activity 0 or 1.

    Raises:
        BpgenError: a number outside its range, or an unknown name.
    """

    derivatives_agree = True

    @classmethod
    def from_tau(cls, tau: Tau, dt: float = 1.0, **options: Any) -> LIF:
        """A neuron from its membrane time constant: α = 1 - exp(-dt/τ).

        Args:
            tau: membrane time constant, in the unit of `dt` (ms); a pair [lo, hi] or a tensor [N] as for `alpha`.
            dt: length of a time step.
            **options: as for `LIF`.
        """
        return cls(leak(tau, dt), **options)

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        """Equation (1), with (5); s [...,d,N] and I [...,1,N]."""
        return self._next(s, I, self.g(s))

    def _above(self, s: Tensor) -> Tensor:
        return s[..., 0, :] - self.threshold

    def local(self, path: Path) -> Local:
        """The closed forms above; see `Neuron.local`."""
        return self._local(path, kept=(1 - self.alpha,), u_by_s=(1.0,))

    def advance_into(self, I: Tensor, before: Tensor, s: Tensor, h: Tensor) -> None:
        """Equations (1) and (2) without the surrogate, which has no part in the values."""
        torch.gt(before, self.threshold, out=h)
        torch.mul(before, 1 - self.alpha, out=s)
        if isinstance(self.gain, Tensor):
            s.addcmul_(self.gain, I)
        else:
            s.add_(I, alpha=self.gain)
        s.sub_(h, alpha=self.threshold)
        torch.gt(s, self.threshold, out=h)


class ALIF(_IntegrateAndFire):
    """Integrate-and-fire neuron with adaptive threshold, equations (1), (3), (4): states (v, a), one current.

    Args:
        alpha: fraction of the potential that leaks per step, in (0, 1], or a pair or tensor of them as for `LIF`.
        threshold: θ, the baseline at which a neuron fires, and what a spike subtracts.
        beta: β, how much a unit of adaptation raises the threshold; 0 is `LIF`.
        rho: ρ, the part of the adaptation that is left after a step, in [0, 1).
        **options: the other options of `LIF`.

    Raises:
        BpgenError: a number outside its range, or an unknown name.
    """

    n_states = 2
    derivatives_agree = True

    def __init__(
        self,
        alpha: float | tuple[float, float] = 0.5,
        threshold: float = 0.5,
        beta: float = 0.2,
        rho: float = 0.9,
        **options: Any,
    ) -> None:
        super().__init__(alpha, threshold, **options)
        require(0 <= beta < math.inf, f"neuron.beta must be >= 0, got {beta}.")
        require(0 <= rho < 1, f"neuron.rho must be in [0, 1), got {rho}.")
        self.beta, self.rho = float(beta), float(rho)

    @classmethod
    def from_tau(cls, tau: Tau, tau_adaptation: float, dt: float = 1.0, **options: Any) -> ALIF:
        """A neuron from its time constants: α = 1 - exp(-dt/τ), ρ = exp(-dt/τ_a).

        Args:
            tau: membrane time constant, in the unit of `dt` (ms); a pair [lo, hi] or a tensor [N] as for `alpha`.
            tau_adaptation: time constant of the adaptation.
            dt: length of a time step.
            **options: as for `ALIF`.
        """
        return cls(leak(tau, dt), rho=1 - leak(tau_adaptation, dt, name="tau_adaptation"), **options)

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        """Equations (1) and (3), with (5); s [...,d,N], I [...,1,N]."""
        z = self.g(s)
        return self._next(s, I, z, self.rho * s[..., 1, :] + z)

    def _above(self, s: Tensor) -> Tensor:
        return s[..., 0, :] - self.threshold - self.beta * s[..., 1, :]

    def local(self, path: Path) -> Local:
        """The closed forms above; see `Neuron.local`."""
        return self._local(path, kept=(1 - self.alpha, self.rho), u_by_s=(1.0, -self.beta), by_z=(1.0,))
