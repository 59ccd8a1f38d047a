"""Deliberately wrong neurons, each with one mistake, and good ones as strangers write them."""

from __future__ import annotations

import torch
from torch import Tensor

from bpgen.neurons import GRU, LIF, LSTM, Leaky, Neuron
from bpgen.neurons.gain import Local, scale


class Good(Neuron):
    """d = K = 1: a rate that leaks, its gain saturating; one parameter per neuron, drawn once."""

    def __init__(self, alpha: float = 0.4) -> None:
        super().__init__()
        self.alpha = alpha

    def populate(self, N, random, dtype):
        population = type(self)(self.alpha)
        population.register_buffer("gain", (1 + torch.rand(N, generator=random, dtype=torch.float64)).to(dtype))
        return population

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        return (1 - self.alpha) * s + self.alpha * torch.tanh(self.gain * I)

    def g(self, s: Tensor) -> Tensor:
        return s.squeeze(-2) + 0.1 * s.squeeze(-2) ** 2


class GivesTheWrongShape(Good):
    def g(self, s):
        return super().g(s).unsqueeze(-2)


class OfOnePrecision(Good):
    def f(self, s, I):
        return super().f(s, I).double()


class DeafToItsCurrents(Good):
    def f(self, s, I):
        return super().f(s, 0 * I)


class InhibitsItsNeighbours(Good):
    def f(self, s, I):
        return super().f(s, I - I.mean(-1, keepdim=True))


class NormalisedOverTheBatch(Good):
    def g(self, s):
        return super().g(s - s.mean(0)) if s.ndim > 2 else super().g(s)


class KinkAtRest(Good):
    """|s|^½, whose slope at rest is infinite."""

    def g(self, s):
        return s.squeeze(-2).abs().sqrt()


class FiresAtRest(LIF):
    def _above(self, s):
        return super()._above(s) + 1


class CountsItsCalls(Good):
    calls = 0

    def f(self, s, I):
        self.calls += 1
        return super().f(s, I)


class NoiseOfItsOwn(Good):
    def f(self, s, I):
        return super().f(s, I) + 0.1 * torch.randn_like(s)


class OverwritesItsState(Good):
    def f(self, s, I):
        after = super().f(s, I)
        s.mul_(1 - self.alpha)
        return after


class PlainTensor(Good):
    """A time constant that stays behind on the CPU and in double precision."""

    def __init__(self, alpha: float = 0.4) -> None:
        super().__init__(alpha)
        self.tau = torch.tensor(2.0)


class DrawsGlobally(Good):
    def populate(self, N, random, dtype):
        population = type(self)(self.alpha)
        population.register_buffer("gain", 1 + torch.rand(N, dtype=dtype))
        return population


class PopulatesItself(Good):
    def populate(self, N, random, dtype):
        self.register_buffer("gain", (1 + torch.rand(N, generator=random, dtype=torch.float64)).to(dtype))
        return self


class OptionWithoutType(Good):
    def __init__(self, alpha=0.4):
        super().__init__(alpha)


class OptionThatIsAFunction(Good):
    def __init__(self, alpha: float = 0.4, phi: object = torch.tanh) -> None:
        super().__init__(alpha)


class LosesDigits(Good):
    def f(self, s, I):
        return super().f(s, (I + 1e6) - 1e6)


class StraightThrough(Good):
    """A step with the derivative of the identity, which nobody calls a surrogate."""

    def g(self, s):
        v = s.squeeze(-2)
        return v + ((v > 0.1).to(v) - v).detach()


class DeadSurrogate(LIF):
    """A step alone."""

    def g(self, s):
        return (self._above(s) > 0).to(s)

    def local(self, path):
        return Neuron.local(self, path)


class KeepsWhatItLoses(Leaky):
    """A = α in place of 1-α."""

    derivatives_agree = None

    def __init__(self, alpha: float = 0.3) -> None:
        super().__init__(alpha)

    def local(self, path):
        local = super().local(path)
        return Local(scale(self.alpha), local.C, local.D)


class _Cube(torch.autograd.Function):
    """x³ with the right forward mode, and half the derivative backwards."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * tangent

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 1.5 * x**2 * grad


class LearnsAnotherLeak(Leaky):
    """The leak itself, where its logit is learned."""

    def __init__(self, alpha: float = 0.4, learn_alpha: bool = True) -> None:
        super().__init__(alpha, "tanh", learn_alpha=learn_alpha)

    def as_currents(self, s, I):
        return {"alpha_logit": I - s}


class HalfTheWayBack(Good):
    def g(self, s):
        return super().g(s) + _Cube.apply(s.squeeze(-2))


class CallsItselfLinear(Good):
    piecewise_linear = True


class _CubeOnce(_Cube):
    """The right derivatives, of which the backward one is a constant to whoever takes it again."""

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 3 * x.detach() ** 2 * grad


class CutsTheSecondDerivative(Good):
    def g(self, s):
        return super().g(s) + _CubeOnce.apply(s.squeeze(-2))


class ForgetsTheLeakInPlace(Leaky):
    def advance_into(self, I, before, s, h):
        super().advance_into(I, 0 * before, s, h)


class FoldsHalfTheReset(LIF):
    def fold(self, drive, W):
        W = super().fold(drive, W)
        W.diagonal().add_(0.5 * self.threshold)
        return W


class ForgetsTheResetGateOnTheWayBack(GRU):
    def retreat_into(self, arriving, later, left, before, s, c):
        super().retreat_into(arriving, later, left, before, s, c)
        c[:, 0] = 0


class KeepsTheCellOnTheWayBack(LSTM):
    def retreat_into(self, arriving, later, left, before, s, c):
        super().retreat_into(arriving, later, left, before, s, c)
        later[:, 1] /= left[:, 1]  # as if the forget gate were one


class BranchesOnData(Good):
    def f(self, s, I):
        return super().f(s, I) if bool(I.sum() < 1e9) else 0 * s
