"""Measures of what a network computes: how far its answers are from the border, how it reacts to input and state."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from bpgen.complexity.trained import Trained
from bpgen.streams import generator

QUANTILE = 0.1  # of the margins, as in Jiang et al. 2019, 2020


def margin(net: Trained) -> float:
    """The 10 % quantile over training sequences of y_right - max y_wrong (Bartlett et al. 2017, Jiang et al. 2019).

    Over the steps that count where there are many; nan for squared errors, which know no classes.
    """
    problem = net.problem
    if problem.loss.kind != "cross_entropy":
        return math.nan
    with torch.no_grad():
        outputs, target = problem.outputs().double(), problem.target.unsqueeze(-1)
        right = outputs.gather(-1, target).squeeze(-1)
        wrong = outputs.scatter(-1, target, -math.inf).amax(-1)
        margins = right - wrong
        if problem.loss.mask is not None:
            margins = margins[problem.loss.mask > 0]
        return float(torch.quantile(margins.flatten(), QUANTILE))


def input_gradient(net: Trained) -> float:
    """Root mean square over sequences of ‖∂ℓ_b/∂x_b‖ (Drucker & LeCun 1992; Novak et al. 2018)."""
    problem = net.problem
    with torch.inference_mode(False), torch.enable_grad():
        x = problem.x.detach().clone().requires_grad_()
        here = replace(problem, x=x)
        (gradient,) = torch.autograd.grad(here.per_sample(here.run(in_place=False)).sum(), x)
    return float(gradient.double().square().sum((0, 2)).mean().sqrt())


def state_jacobian(net: Trained) -> float:
    """Root mean square over steps and sequences of ‖∂s_t/∂s_{t-1}‖_F, at the inputs as they are (Pascanu et al. 2013).

    What stands after the last step that counts is padding, and left out.
    By one random vector of signs v for each step and sequence: E ‖J v‖² = ‖J‖_F² (Hutchinson 1990). What goes by way of
    an output feedback is left out. Large Jacobians along a trajectory are what makes recurrent networks chaotic
    (Engelken et al. 2023) and their gradients explode (Pascanu et al. 2013).
    """
    network, W = net.problem.network, net.masked["W_rec"].mT
    shape = network.neuron.n_currents, network.n_rec
    with torch.inference_mode(False), torch.no_grad():
        run = net.problem.detached().run(in_place=False)
        before, outside = run.states[:-1], run.currents[1:] - (run.h[:-1] @ W).unflatten(-1, shape)

        def step(s: Tensor) -> Tensor:
            return run.network.neuron.f(s, outside + (run.network.neuron.g(s) @ W).unflatten(-1, shape))

        signs = torch.randint(0, 2, before.shape, generator=generator(net.seed, "state jacobian"))
        along = torch.func.jvp(step, (before,), ((2 * signs - 1).to(before),))[1]
    squares, there = along.double().square().sum((-2, -1)), net.problem.loss.there  # [T,B]
    return float((squares if there is None else squares[there]).mean().sqrt())
