"""Leaky integrate-and-fire neurons, without (LIF) and with (ALIF) an adaptive threshold.

With α the fraction of the potential that leaks per step, θ the threshold, H the spike function of
`bpgen.neurons.surrogate` with its derivative ψ, and G = α (drive="scaled") or G = 1 (drive="plain"), where α, β, ρ and
θ may differ between neurons:
    LIF   state s = (v), d = 1
    (1) v_t = (1-α) v_{t-1} + G I_t - θ z_{t-1}
    (2) z_t = H(v_t - θ),                                                    h_t = z_t
    ALIF  state s = (v, a), d = 2: equation (1) and
    (3) a_t = ρ a_{t-1} + G_a z_{t-1},    G_a = 1 (adaptation="plain") or 1-ρ (adaptation="scaled")
    (4) A_t = θ + β a_t,      z_t = H(v_t - A_t),                            h_t = z_t
    both with a refractory period of n steps, d larger by one: the steps of silence that are left, the last state
    (5) c_t = n where z_{t-1} = 1, else max(c_{t-1} - 1, 0);     z_t = H(...) 1[c_t = 0]
z_{t-1} is a function of s_{t-1}, so that the reset needs no state of its own, and z_0 = g(s_0). The reset subtracts
the baseline θ, also from a neuron whose threshold has adapted. The potential integrates throughout the n silent steps.

Derivatives, with ψ_t = ψ(v_t - A_t) 1[c_t = 0] (A_t = θ for LIF; no derivative goes into or through c):
    LIF   A = 1-α - [θ ψ_{t-1}]                               C = G            D = ψ_t
    ALIF  A = | 1-α - [θ ψ_{t-1}]    [θ β ψ_{t-1}]  |         C = | G |        D = | ψ_t   -β ψ_t |
              | G_a ψ_{t-1}          ρ - G_a β ψ_{t-1} |          | 0 |
The terms in square brackets are the path through the reset: there with reset="attached", absent with
reset="detached", which is the convention of the published eligibility traces. These are two different gradients of
the same dynamics, under BPTT and under e-prop. The path through the adaptation, (3), is never cut. With the detached
reset and no hops, the credit kernel gives the published trace of ALIF (Bellec 2020),
    (6) ε^v_t = (1-α) ε^v_{t-1} + G z^pre_{t-1},     ε^a_{t+1} = G_a ψ_t ε^v_t + (ρ - G_a ψ_t β) ε^a_t
        e_t = ψ_t (ε^v_t - β ε^a_t)

Conventions of the released code of Bellec 2020 (models.py): LightLIF scales the input by 1 - decay (drive="scaled", as
in `Leaky`), EligALIF does not (drive="plain"); ALIF here is EligALIF. LightALIF has
adaptation="scaled" (as Barretto-Bittar 2026), which is β (1-ρ) in place of β, and measures u in units of A_t, which is
not offered. Under BPTT that code leaves the reset attached; its
e-prop cuts the reset together with the recurrent synapses. As in the paper a refractory neuron cannot fire, has ψ = 0,
and goes on integrating; (5) counts the silent steps after the step of the spike.

Limits: no synaptic delay, and no heterogeneity but in α, β, ρ and θ.

References: G. Bellec et al., NeurIPS 2018; G. Bellec et al., Nature Communications 11 (2020) 3625; V. Barretto-Bittar
et al., arXiv 2603.08949 (2026).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bpgen.errors import choice, require
from bpgen.neurons.base import Neuron, Recording
from bpgen.neurons.gain import Local
from bpgen.neurons.integrate_and_fire import (
    Drive,
    Factor,
    IntegrateAndFire,
    count_into,
    fires,
    folded,
    keep_ready,
    plus,
)
from bpgen.neurons.leak import leak
from bpgen.numbers import scalar

Tau = float | Sequence[float] | Tensor


class LIF(IntegrateAndFire):
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

    def local(self, recording: Recording) -> Local:
        """The closed forms above; see `Neuron.local`."""
        return self._local(recording, kept=(1 - self.alpha,), u_by_s=(1.0,))

    @property
    def in_place(self) -> bool:
        """Of this class alone: what another one makes of `f` is not known here."""
        return type(self).f is LIF.f and type(self).g is LIF.g

    def state_buffer(self, drive: Tensor, h: Tensor) -> Tensor:
        """The potential overwrites its current."""
        return drive

    def fold(self, drive: Tensor, W: Tensor) -> Tensor:
        """The reset, which is linear in z_{t-1}, goes onto the weights' diagonal."""
        return folded(self, W)

    def advance_into(self, I: Tensor, before: Tensor, s: Tensor, h: Tensor) -> None:
        """Equations (1) and (2) without the surrogate, which has no part in the values; I as `fold` prepared it."""
        if not self.n_refractory:
            fires(self._integrate_into(I, before, s), self.threshold, h)
            return
        (v_0, c_0), (v, c) = before.unbind(1), s.unbind(1)
        count_into(c_0, fires(v_0, self.threshold, h), c, self.n_refractory)
        fires(self._integrate_into(I, v_0, v), self.threshold, h)
        keep_ready(h, c, spare=I)

    def retreat_into(self, arriving: Tensor, later: Tensor, left: Tensor, before: Tensor, s: Tensor, c: Tensor) -> None:
        """With a refractory period: the gains above, transposed; see `ALIF.retreat_into`."""
        (by_v, spare), slope = later.unbind(1), left.squeeze(1)
        by_v.add_(self._slope_into(s, slope, spare).mul_(arriving))  # λ_t
        torch.mul(by_v, scalar(self.gain, by_v), out=c.squeeze(1))
        if self.reset == "attached":
            told = self._slope_into(before, slope, spare).mul_(by_v).mul_(-self.threshold)
            plus(told, by_v, 1 - self.alpha, by_v)
        else:
            by_v.mul_(scalar(1 - self.alpha, by_v))
        spare.zero_()  # no credit goes through c

    def _above_into(self, s: Tensor, out: Tensor) -> Tensor:
        return torch.sub(s[:, 0], scalar(self.threshold, out), out=out)


class ALIF(IntegrateAndFire):
    """Integrate-and-fire neuron with adaptive threshold, equations (1), (3), (4): states (v, a), one current.

    A network of which only a part adapts, as the LSNN of Bellec 2018 and 2020, is `ALIF(adaptive=0.5)`: the first
    neurons are LIF (β = 0), the last ones adapt. `ALIF(adaptive=0)` is LIF, with a state that does nothing.

    Args:
        alpha: fraction of the potential that leaks per step, in (0, 1], or a pair or tensor of them as for `LIF`.
        threshold: θ, the baseline at which a neuron fires, and what a spike subtracts; or a pair or tensor as for
            `LIF`.
        beta: β, how much a unit of adaptation raises the threshold; 0 is `LIF`. A pair [lo, hi] draws one per neuron
            uniformly, a tensor [N] gives them.
        rho: ρ, the part of the adaptation that is left after a step, in [0, 1). A pair [lo, hi] draws one per neuron
            from the seed, 1-ρ uniform in its logarithm; a tensor [N] gives them.
        adaptive: fraction of the neurons that adapt, the last ones; the others have β = 0.
        adaptation: what a spike adds to the adaptation: "plain" is 1 (EligALIF), "scaled" 1-ρ (LightALIF).
        **options: the other options of `LIF`.

    Raises:
        BpgenError: a number outside its range, or an unknown name.
    """

    n_states = 2
    derivatives_agree = True
    beta: Any
    rho: Any

    def __init__(
        self,
        alpha: float | tuple[float, float] = 0.5,
        threshold: float | tuple[float, float] = 0.5,
        beta: float | tuple[float, float] = 0.2,
        rho: float | tuple[float, float] = 0.9,
        adaptive: float = 1.0,
        adaptation: Drive = "plain",
        **options: Any,
    ) -> None:
        super().__init__(alpha, threshold, **options)
        self.adaptation = choice("adaptation", adaptation, Drive)
        self.per_neuron("beta", beta, lambda b: (b >= 0) & b.isfinite(), ">= 0")
        self.per_neuron("rho", rho, lambda r: (r >= 0) & (r < 1), "in [0, 1)", "log_rest")
        require(0 <= adaptive <= 1, f"neuron.adaptive must be in [0, 1] (the fraction that adapts), got {adaptive}.")
        require(
            adaptive == 1 or not isinstance(self.beta, Tensor),
            "neuron.adaptive is for a beta that is a number or a pair; one beta per neuron says itself who adapts.",
        )
        self.adaptive = adaptive

    @classmethod
    def from_tau(cls, tau: Tau, tau_adaptation: Tau, dt: float = 1.0, **options: Any) -> ALIF:
        """A neuron from its time constants: α = 1 - exp(-dt/τ), ρ = exp(-dt/τ_a).

        Args:
            tau: membrane time constant, in the unit of `dt` (ms); a pair [lo, hi] or a tensor [N] as for `alpha`.
            tau_adaptation: time constant of the adaptation; a pair or a tensor likewise.
            dt: length of a time step.
            **options: as for `ALIF`.
        """
        lost = leak(tau_adaptation, dt, name="tau_adaptation")
        rho: Any = sorted(1 - each for each in lost) if isinstance(lost, list) else 1 - lost
        return cls(leak(tau, dt), rho=rho, **options)

    def populate(self, N: int, random: torch.Generator, dtype: torch.dtype) -> Neuron:
        """See `Neuron.populate`: with β = 0 in all neurons but the last `adaptive` of them."""
        population: Any = super().populate(N, random, dtype)
        if self.adaptive == 1:
            return population
        regular = N - round(self.adaptive * N)
        require(
            self.adaptive == 0 or 0 < regular < N,
            f"neuron.adaptive {self.adaptive:g} leaves {'no' if regular else 'every'} neuron of {N} to adapt.",
        )
        population = copy.deepcopy(self) if population is self else population
        beta = torch.as_tensor(population.beta, dtype=dtype).expand(N).clone()
        beta[:regular] = 0
        population.set_each("beta", beta)
        return population

    @property
    def adaptation_gain(self) -> Factor:
        """G_a."""
        return 1.0 if self.adaptation == "plain" else 1 - self.rho

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        """Equations (1) and (3), with (5); s [...,d,N], I [...,1,N]."""
        z = self.g(s)
        added = z if self.adaptation == "plain" else self.adaptation_gain * z
        return self._next(s, I, z, self.rho * s[..., 1, :] + added)

    def _above(self, s: Tensor) -> Tensor:
        return s[..., 0, :] - self.threshold - self.beta * s[..., 1, :]

    def local(self, recording: Recording) -> Local:
        """The closed forms above; see `Neuron.local`."""
        return self._local(
            recording, kept=(1 - self.alpha, self.rho), u_by_s=(1.0, -self.beta), by_z=(self.adaptation_gain,)
        )

    @property
    def in_place(self) -> bool:
        """Of this class alone: what another one makes of `f` is not known here."""
        return type(self).f is ALIF.f and type(self).g is ALIF.g

    def fold(self, drive: Tensor, W: Tensor) -> Tensor:
        """As for LIF."""
        return folded(self, W)

    def advance_into(self, I: Tensor, before: Tensor, s: Tensor, h: Tensor) -> None:
        """Equations (1) to (5) without the surrogate, which has no part in the values; I as `fold` prepared it."""
        (v_0, a_0, *c_0), (v, a, *c) = before.unbind(1), s.unbind(1)
        fires(plus(v_0, a_0, -self.beta, h), self.threshold, h)  # z_{t-1}
        if c:
            count_into(c_0[0], h, c[0], self.n_refractory)
        plus(torch.mul(a_0, scalar(self.rho, a_0), out=a), h, self.adaptation_gain, a)
        self._integrate_into(I, v_0, v)
        fires(plus(v, a, -self.beta, h), self.threshold, h)
        if c:
            keep_ready(h, c[0], spare=I)

    def retreat_into(self, arriving: Tensor, later: Tensor, left: Tensor, before: Tensor, s: Tensor, c: Tensor) -> None:
        """The gains above, transposed; the currents left are not needed, and their buffer is scratch.

        So is the credit of the steps of silence, which is zero before and after.
        """
        (by_v, by_a, *silence), slope = later.unbind(1), left.squeeze(1)
        told = self._slope_into(s, slope, *silence).mul_(arriving)
        by_v.add_(told)  # λ_t
        plus(by_a, told, -self.beta, by_a)
        torch.mul(by_v, scalar(self.gain, by_v), out=c.squeeze(1))
        by_z = torch.mul(by_a, scalar(self.adaptation_gain, by_a), out=arriving)
        if self.reset == "attached":
            plus(by_z, by_v, -self.threshold, by_z)
        told = self._slope_into(before, slope, *silence).mul_(by_z)
        plus(told, by_v, 1 - self.alpha, by_v)
        by_a.mul_(scalar(self.rho, by_a))
        plus(by_a, told, -self.beta, by_a)
        for spare in silence:
            spare.zero_()

    def _above_into(self, s: Tensor, out: Tensor) -> Tensor:
        return plus(torch.sub(s[:, 0], scalar(self.threshold, out), out=out), s[:, 1], -self.beta, out)
