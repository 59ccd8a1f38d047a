"""What the rules share that try noise out and look at the loss."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from bpgen.rules import Credit, Problem, RuleGradients, Trajectory, weight_gradients


def gradients_of(
    problem: Problem, run: Trajectory, currents: Tensor | None = None, aux: Mapping[str, Tensor] | None = None
) -> RuleGradients:
    """Credit of the currents [T,B,K·N] of a run, or none, as gradients.

    The readout has its exact one (with output feedback, that of y_t as the output alone).
    """
    value, error = problem.value_and_error(run)
    if currents is None:
        currents = run.x.new_zeros(0, problem.batch, problem.network.W_rec.shape[0])  # at the last 0 steps
    grads = weight_gradients(run, Credit(currents.unflatten(-1, run.currents_shape)), error)
    return RuleGradients(value, run.outputs, grads, dict(aux or {}))


def perturbed(problem: Problem, perturbation: Tensor) -> Problem:
    """The problem with a perturbation of the currents [T,B,K·N] beside the network's own noise, if any."""
    noise = problem.current_noise
    return replace(problem, current_noise=perturbation if noise is None else noise + perturbation)


def repeated(problem: Problem, times: int) -> Problem:
    """The problem with its batch several times side by side, x [T,times·B,I]."""
    target, loss = problem.loss.repeated(problem.target, times)
    start, noise = problem.initial_state, problem.current_noise
    return replace(
        problem,
        x=problem.x.repeat(1, times, 1),
        target=target,
        loss=loss,
        initial_state=None if start is None else start.repeat(times, 1, 1),
        current_noise=None if noise is None else noise.repeat(1, times, 1),
    )
