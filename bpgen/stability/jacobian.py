"""Dĝ, the Jacobian of a rule's gradient by the weights, as products: what decides whether its updates are stable."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bpgen.curvature.block import Block, BlockProblem
from bpgen.errors import BpgenError, require
from bpgen.problem import Problem
from bpgen.rules import Rule
from bpgen.streams import generator

_STEP = 1e-7  # relative to ‖θ‖, of the difference that a derivative is checked against


class RuleJacobian:
    """Dĝ [P,P] of a rule at given weights: products with it and with its transpose, in float64.

    Args:
        rule: bound to the network.
        problem: what the gradient is of. Current noise is left out.
        draws: the rule's random numbers, held fixed.
        block: which weights θ are: "all" that are trained, or the names of those that are.

    Attributes:
        size: P, the entries of these parameters that can act.
        theta: them, [P].
        problem: in float64, without noise.
        names: of these parameters.
        products: how many were taken so far.

    Raises:
        BpgenError: the rule's gradient cannot be differentiated, or its derivative is not that of its values.
    """

    def __init__(self, rule: Rule, problem: Problem, draws: Mapping[str, Tensor], block: Block = "all") -> None:
        self.name = type(rule).__name__
        require(
            rule.traits.update == "gradient",
            f"{self.name} hands out finished weight changes, not a gradient: no learning rate, no stability.",
        )
        self._at = BlockProblem(replace(problem, current_noise=None), block, torch.float64)
        self.problem, self.theta, self.size = self._at.problem, self._at.theta, self._at.free.size
        self.names = self._at.free.names
        with torch.inference_mode(False):
            self._rule = copy.deepcopy(rule).double()
            self._draws = {name: _double(value) for name, value in draws.items()}
        self.products = 0
        self._check()

    def estimate(self, theta: Tensor) -> Tensor:
        """The rule's gradient ĝ [P] at θ."""
        return self._estimate(self._at.at(theta))

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
            problem = self.problem
            outputs = problem.run().outputs.detach()
            rounding = 100 * torch.finfo(outputs.dtype).eps * (1 + outputs.abs().max())
            at_zero = problem.loss.kind == "mse" and bool((outputs - problem.target).abs().max() <= rounding)
            problem = replace(problem, target=outputs - 1) if at_zero else problem
            return self._estimate(problem), self._at.free.gather(problem.gradient()), at_zero

    def _estimate(self, problem: Problem) -> Tensor:
        return self._at.free.gather(self._rule.gradients(problem, self._draws).grads)

    def _check(self) -> None:
        """Compare Dĝ v with a difference of gradients: a rule that detaches inside would lose terms unnoticed.

        v spans weights only, because a bias can move every potential off a kink it sits on, and a second and third v
        are tried, because any may cross one. Spikes jump: their surrogate derivative has no difference to agree with.
        """
        base = self.estimate(self.theta)
        for attempt in range(3):
            random = generator(attempt, "stability check")
            v = torch.randn(self.size, generator=random, dtype=torch.float64).to(self.theta.device)
            weights = {n: torch.full_like(p, float(n.startswith("W_"))) for n, p in self.problem.params.items()}
            v = v * self._at.free.gather(weights)
            v = v / v.norm() * self.theta.norm().clamp_min(1)
            try:
                derivative = self(v)
            except (RuntimeError, NotImplementedError, TypeError) as error:
                reason = str(error).strip().splitlines()[0]
                raise BpgenError(
                    f"the gradient of {self.name} cannot be differentiated ({reason}): a rule needs operations that "
                    "torch.func.jvp can follow to be measured as a dynamical system."
                ) from None
            if self.problem.network.neuron.spiking:
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
