"""What the rules share that try noise out and look at the loss."""

from collections.abc import Mapping

from torch import Tensor

from bpgen.losses import Loss
from bpgen.network import Trajectory
from bpgen.rules import Credit, RuleGradients, weight_gradients


def gradients_of(
    trajectory: Trajectory,
    currents: Tensor | None,
    params: Mapping[str, Tensor],
    target: Tensor,
    loss: Loss,
    aux: Mapping[str, Tensor],
) -> RuleGradients:
    """Credit of the currents [T,B,K·N], or none, as gradients.

    The readout has its exact one (with output feedback, that of y_t as the output alone), and so has a regulariser of
    weights.
    """
    network = trajectory.network
    value, error = loss.data_and_error(trajectory.outputs, target)
    if loss.activity is not None:
        value = value + loss.activity.value(trajectory.h)
    if currents is None:
        rows = len(trajectory.params["W_rec"])
        currents = trajectory.x.new_zeros(0, trajectory.x.shape[1], rows)  # at the last 0 steps
    credit = Credit(currents.unflatten(-1, (network.neuron.n_currents, network.n_rec)))
    grads = weight_gradients(trajectory, credit, error)
    return with_regulariser(RuleGradients(value, trajectory.outputs, grads, dict(aux)), params, loss)


def with_regulariser(result: RuleGradients, params: Mapping[str, Tensor], loss: Loss) -> RuleGradients:
    """The result with the value and the exact gradient of the loss's regulariser of weights added."""
    if loss.regulariser is None:
        return result
    extra = loss.regulariser.gradient(params)
    grads = {name: g + extra[name] if name in extra else g for name, g in result.grads.items()}
    return result._replace(loss=result.loss + loss.regulariser.value(params), grads=grads)


def plus_noise(noise: Tensor | None, perturbation: Tensor) -> Tensor:
    """The network's own current noise, if any, and a perturbation of the currents [T,B,K·N]."""
    return perturbation if noise is None else noise + perturbation


def tiled(
    times: int, x: Tensor, target: Tensor, loss: Loss, draws: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Loss, Tensor | None, Tensor | None]:
    """A batch several times side by side: x [T,times·B,I], target, loss, initial state and the network's noise."""
    s_0, noise = draws.get("initial_state"), draws.get("current_noise")
    front = (1,) if loss.when == "all" else ()  # the axis of time
    return (
        x.repeat(1, times, 1),
        target.repeat(*front, times, *[1] * (target.ndim - len(front) - 1)),
        loss.with_mask(None if loss.mask is None else loss.mask.repeat(1, times)),
        None if s_0 is None else s_0.repeat(times, 1, 1),
        None if noise is None else noise.repeat(1, times, 1),
    )
