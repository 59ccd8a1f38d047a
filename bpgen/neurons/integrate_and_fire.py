"""What the integrate-and-fire neurons share: their options, and equations (1) and (5) of `bpgen.neurons.lif`."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.errors import choice, require
from bpgen.neurons.base import Recording
from bpgen.neurons.gain import Dense, Gain, Local, scale
from bpgen.neurons.leak import LeakyState
from bpgen.neurons.surrogate import Surrogate, SurrogateName
from bpgen.numbers import scalar

Reset = Literal["detached", "attached"]
Drive = Literal["scaled", "plain"]
Factor = float | Tensor  # one number, or one per neuron [N]


class IntegrateAndFire(LeakyState):
    """What LIF and ALIF share: equations (1) and (5), their options and noise, and the derivatives.

    Args:
        alpha: fraction of the potential that leaks per step, in (0, 1]; 1 - decay in the released code of Bellec 2020.
            A pair [lo, hi] draws one per neuron from the seed, uniform in its logarithm; a tensor [N] gives them.
        threshold: θ, at which a neuron fires and what a spike subtracts; a pair [lo, hi] draws one per neuron
            uniformly, a tensor [N] gives them.
        reset: whether credit passes through the reset ("attached") or not ("detached", the published traces).
        drive: "scaled" weighs the current by alpha (as `Leaky` and LightLIF), "plain" takes it as it is (EligALIF).
        surrogate: shape of the derivative of a spike.
        dampening: γ, which scales that derivative; its peak is γ/θ.
        width: its width in units of θ; none is 1 (piecewise_linear), 0.1 (fast_sigmoid) or 0.5 (gaussian).
        n_refractory: steps after a spike in which a neuron cannot fire, while its potential integrates.
        learn_alpha: learn alpha, a membrane time constant for each neuron, from there on; it stays within (0, 1).
    """

    spiking = True
    threshold: Any

    def __init__(
        self,
        alpha: float | tuple[float, float] = 0.5,
        threshold: float | tuple[float, float] = 0.5,
        reset: Reset = "detached",
        drive: Drive = "scaled",
        surrogate: SurrogateName = "piecewise_linear",
        dampening: float = 0.3,
        width: float | None = None,
        n_refractory: int = 0,
        learn_alpha: bool = False,
    ) -> None:
        super().__init__(alpha, learn_alpha)
        self.per_neuron("threshold", threshold, lambda v: (v > 0) & v.isfinite(), "a positive number")
        require(n_refractory >= 0, f"neuron.n_refractory must be a number of steps >= 0, got {n_refractory}.")
        self.reset, self.drive = choice("reset", reset, Reset), choice("drive", drive, Drive)
        self.surrogate, self.n_refractory = Surrogate(surrogate, dampening, width), n_refractory
        self.n_states = type(self).n_states + (n_refractory > 0)

    @property
    def gain(self) -> Factor:
        """G."""
        return self.alpha if self.drive == "scaled" else 1.0

    def as_currents(self, s: Tensor, I: Tensor) -> dict[str, Tensor]:
        """Equation (4) of `bpgen.neurons.leak`."""
        if not self.learn_alpha or self.drive == "scaled":
            return super().as_currents(s, I)
        return {"alpha_logit": -self.alpha * (1 - self.alpha) * s[..., :1, :]}

    @property
    def noise_scale(self) -> Factor:  # type: ignore[override]
        """√(2/α) α/G: with it the noise of the potential has standard deviation about σ, as for `Leaky`."""
        return super().noise_scale * self.alpha / self.gain

    def g(self, s: Tensor) -> Tensor:
        """Equation (2) or (4), with (5)."""
        z = self.surrogate.spike(self._above(s), self.threshold)
        return z * self._ready(s) if self.n_refractory else z

    def _integrate_into(self, I: Tensor, before: Tensor, out: Tensor) -> Tensor:
        """(1-α) v_{t-1} + G I_t, into `out`."""
        if self.drive == "scaled":
            return torch.lerp(before, I, scalar(self.alpha, I), out=out)
        return plus(I, before, 1 - self.alpha, out)

    def _above(self, s: Tensor) -> Tensor:
        """u = v - A, the distance from the threshold [...,N], of states [...,d,N]."""
        raise NotImplementedError

    def _above_into(self, s: Tensor, out: Tensor) -> Tensor:
        """The same of states [B,d,N], into `out`."""
        raise NotImplementedError

    def _slope_into(self, s: Tensor, out: Tensor, spare: Tensor | None = None) -> Tensor:
        """ψ at the states s [B,d,N], into `out`; a refractory period needs a buffer more."""
        self.surrogate.slope_into(self._above_into(s, out), self.threshold)
        if spare is not None:
            keep_ready(out, s[:, -1], spare)
        return out

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
        self, recording: Recording, kept: tuple[Factor, ...], u_by_s: tuple[Factor, ...], by_z: tuple[Factor, ...] = ()
    ) -> Local:
        """The closed forms above, see `Neuron.local`.

        Args:
            recording: what was recorded along a run.
            kept: what is left of each state after a step.
            u_by_s: ∂u/∂s.
            by_z: ∂s_t/∂z_{t-1} of the states other than v.
        """
        if recording.in_place:  # plain tensors: no new memory for every pass
            self.surrogate.slope_into(psi := self._above(recording.states), self.threshold)  # [T+1,B,N]
        else:
            psi = self.surrogate.slope(self._above(recording.states), self.threshold)
        by_z = (-self.threshold if self.reset == "attached" else 0.0, *by_z)
        if self.n_refractory:
            psi = psi * self._ready(recording.states)
            kept, u_by_s, by_z = (*kept, 0.0), (*u_by_s, 0.0), (*by_z, 0.0)
        if self.n_states == 1 and self.reset == "detached":
            return Local(scale(kept[0]), scale(self.gain), Dense(psi[..., None, None, :]))
        D = Dense(torch.stack([k * psi for k in u_by_s], dim=-2).unsqueeze(-3))
        zero, before = torch.zeros_like(psi), torch.cat([psi[:1], psi[:-1]])  # entry 0 is never asked for
        C: Gain = scale(self.gain)
        if self.n_states > 1:
            C = Dense(torch.stack([zero + self.gain] + [zero] * (self.n_states - 1), dim=-2).unsqueeze(-2))

        def entry(i: int, j: int) -> Tensor:
            factor = by_z[i] * u_by_s[j]
            through_z = factor * before if isinstance(factor, Tensor) or factor else zero
            return through_z + kept[i] if i == j else through_z

        states = range(self.n_states)
        A = torch.stack([torch.stack([entry(i, j) for j in states], dim=-2) for i in states], dim=-3)
        return Local(Dense(A), C, D)


def count_into(c_0: Tensor, z: Tensor, c: Tensor, n: int) -> None:
    """Equation (5) of one step, into `c`, after `z`, which knows the potential alone, was kept to where c_0 = 0."""
    keep_ready(z, c_0, spare=c)
    torch.sub(c_0, scalar(1.0, c_0), out=c).relu_().add_(z, alpha=n)


def keep_ready(values: Tensor, c: Tensor, spare: Tensor) -> None:
    """Overwrite values [B,N] by values · 1[c = 0]."""
    values.mul_(torch.le(c, scalar(0.0, c), out=spare))


def folded(neuron: IntegrateAndFire, W: Tensor) -> Tensor:
    """W with the reset, linear in z_{t-1}, on its diagonal, as the current that it is equal to."""
    W = W.clone(memory_format=torch.contiguous_format)  # as a transposed view it multiplies slower
    W.diagonal().sub_(neuron.threshold / neuron.gain)
    return W


def fires(u: Tensor, threshold: Factor, out: Tensor) -> Tensor:
    """1 where u is above the threshold, else 0, into `out`."""
    return torch.gt(u, scalar(threshold, u), out=out)


def plus(a: Tensor, b: Tensor, factor: Factor, out: Tensor) -> Tensor:
    """a + factor · b, into `out`."""
    if isinstance(factor, Tensor):
        return torch.addcmul(a, b, factor, out=out)
    return torch.add(a, b, alpha=factor, out=out)
