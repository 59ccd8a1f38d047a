"""Dĝ, the Jacobian of a rule's gradient by the weights, as products: what decides whether its updates are stable."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from bpgen.curvature.block import FreeEntries
from bpgen.errors import BpgenError, require
from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.problem import Problem
from bpgen.rules import Rule
from bpgen.streams import generator

_STEP = 1e-7  # relative to ‖θ‖, of the difference that a derivative is checked against


class RuleJacobian:
    """Dĝ [P,P] of a rule at given weights: products with it and with its transpose, in float64.

    Args:
        rule: bound to the network.
        network: structure and neurons; its own weights are not read.
        params: weights by name.
        x, target, loss: what the gradient is of.
        draws: the rule's random numbers, held fixed, and optionally "initial_state" [B,d,N]. Current noise is left out.

    Attributes:
        size: P, the entries of all parameters that can act.
        theta: them, [P].
        products: how many were taken so far.

    Raises:
        BpgenError: the rule's gradient cannot be differentiated, or its derivative is not that of its values.
    """

    def __init__(
        self,
        rule: Rule,
        network: Network,
        params: Mapping[str, Tensor],
        x: Tensor,
        target: Tensor,
        loss: Loss,
        draws: Mapping[str, Tensor],
    ) -> None:
        self.name = type(rule).__name__
        require(
            rule.traits.update == "gradient",
            f"{self.name} hands out finished weight changes, not a gradient: no learning rate, no stability.",
        )
        with torch.inference_mode(False):
            self.rule, self.network = copy.deepcopy(rule).double(), copy.deepcopy(network).double()
            self.params = {name: _double(p.detach()) for name, p in params.items()}
            self.x, self.target = _double(x), _double(target)
            self.loss = loss if loss.mask is None else loss.with_mask(_double(loss.mask))
            self.draws = {name: _double(value) for name, value in draws.items() if name != "current_noise"}
            self.free = FreeEntries(self.network, self.params, "all")
            self.theta = self.free.gather(self.params)
        self.size, self.products = self.free.size, 0
        self._check()

    def estimate(self, theta: Tensor) -> Tensor:
        """The rule's gradient ĝ [P] at θ."""
        return self._estimate(theta, self.target)

    def true(self, theta: Tensor) -> Tensor:
        """The true gradient g [P] at θ."""
        return self._true(theta, self.target)

    def __call__(self, v: Tensor) -> Tensor:
        """Dĝ v."""
        self.products += 1
        with torch.inference_mode(False):
            return torch.func.jvp(self.estimate, (self.theta,), (v.clone(),))[1].detach()

    def transposed(self, u: Tensor) -> Tensor:
        """Dĝᵀ u."""
        self.products += 1
        with torch.inference_mode(False), torch.enable_grad():
            return torch.func.vjp(self.estimate, self.theta)[1](u.clone())[0].detach()

    def gradients(self) -> tuple[Tensor, Tensor, bool]:
        """ĝ and g, and whether they are for an output error of 1 instead of the residual, which is zero."""
        with torch.inference_mode(False):
            outputs = self.network.run(
                self.params, self.x, when=self.loss.when, initial_state=self.draws.get("initial_state")
            ).outputs.detach()
            rounding = 100 * torch.finfo(outputs.dtype).eps * (1 + outputs.abs().max())
            at_zero = self.loss.kind == "mse" and bool((outputs - self.target).abs().max() <= rounding)
            target = outputs - 1 if at_zero else self.target
            return self._estimate(self.theta, target), self._true(self.theta, target), at_zero

    def _estimate(self, theta: Tensor, target: Tensor) -> Tensor:
        params = self.free.scatter(theta, self.params)
        start = self.draws.get("initial_state")
        problem = Problem(self.network, params, self.x, target, self.loss, start)
        result = self.rule.gradients(problem, {n: v for n, v in self.draws.items() if n != "initial_state"})
        return self.free.gather(result.grads)

    def _true(self, theta: Tensor, target: Tensor) -> Tensor:
        def value(theta: Tensor) -> Tensor:
            params = self.free.scatter(theta, self.params)
            start = self.draws.get("initial_state")
            run = self.network.run(params, self.x, when=self.loss.when, initial_state=start, in_place=False)
            return self.loss.total(run.outputs, target, params, run.h)

        with torch.enable_grad():
            return torch.func.grad(value)(theta).detach()

    def _check(self) -> None:
        """Compare Dĝ v with a difference of gradients: a rule that detaches inside would lose terms unnoticed.

        v spans weights only, because a bias can move every potential off a kink it sits on, and a second and third v
        are tried, because any may cross one. Spikes jump: their surrogate derivative has no difference to agree with.
        """
        base = self.estimate(self.theta)
        for attempt in range(3):
            random = generator(attempt, "stability check")
            v = torch.randn(self.size, generator=random, dtype=torch.float64).to(self.theta.device)
            biases = {n: torch.full_like(p, float(n.startswith("W_"))) for n, p in self.params.items()}
            v = v * self.free.gather(biases)
            v = v / v.norm() * self.theta.norm().clamp_min(1)
            try:
                derivative = self(v)
            except (RuntimeError, NotImplementedError, TypeError) as error:
                reason = str(error).strip().splitlines()[0]
                raise BpgenError(
                    f"the gradient of {self.name} cannot be differentiated ({reason}): a rule needs operations that "
                    "torch.func.jvp can follow to be measured as a dynamical system."
                ) from None
            if self.network.neuron.spiking:
                return
            ahead, behind = self.estimate(self.theta + _STEP * v), self.estimate(self.theta - _STEP * v)
            difference = (ahead - behind) / (2 * _STEP)
            noise = 100 * torch.finfo(torch.float64).eps * base.norm() / _STEP
            if (difference - derivative).norm() <= 0.01 * torch.maximum(difference.norm(), derivative.norm()) + noise:
                return
        raise BpgenError(
            f"the derivative of {self.name}'s gradient is not that of its values: does it detach, or draw random "
            "numbers inside? Its gradient must be an explicit function of the weights (no detach, no autograd.grad)."
        )


def _double(tensor: Tensor) -> Tensor:
    tensor = tensor.clone() if tensor.is_inference() else tensor
    return tensor.double() if tensor.is_floating_point() else tensor
