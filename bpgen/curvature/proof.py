"""Whether the R-operator is right for a problem: known for this package's own parts, proven for a stranger's neuron.

The R-operator takes first derivatives of a neuron from `Neuron.local` and second ones from autograd through f and g.
Where a neuron cuts a path in one of them alone, its products are those of no function. A neuron that its class does
not vouch for is therefore tried out, once for each instance: at random weights and inputs of a small batch, in double
precision, products and double backward through the whole run have to agree. Two that share their mistake, as where f
holds an operation with a wrong derivative of its own, agree too: no measure of curvature could tell.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from bpgen.curvature.autograd import NetworkByAutograd
from bpgen.curvature.block import FreeEntries
from bpgen.curvature.roperator import ROperator
from bpgen.errors import BpgenError
from bpgen.losses import L2, Activity, Loss
from bpgen.network import Network
from bpgen.neurons import Neuron
from bpgen.problem import Problem
from bpgen.streams import generator

_STEPS, _SAMPLES, _SCALES = 5, 3, (0.5, 2.0)  # of the trials; both the middle and the ends of a non-linearity
_TOLERANCE = 1e-9  # relative, in double precision
_PROVEN: WeakKeyDictionary[Neuron, bool] = WeakKeyDictionary()


class Trial(NamedTuple):
    """Whether products by both ways are the same, and whether the neuron had a part in them."""

    agrees: bool
    alive: bool


def roperator_is_right(problem: Problem, names: Sequence[str]) -> bool:
    """Whether products by the R-operator are those of the problem's loss.

    Networks and losses have to be this package's own, nothing derived; a loss may have an `L2` and an `Activity`. Any
    other term, output feedback, and what neurons learn of their own are left to autograd.

    Args:
        problem: the problem.
        names: the parameters that it is taken by.

    Raises:
        BpgenError: the neuron's f or g has no second derivative.
    """
    network, loss = problem.network, problem.loss
    others = {f.name for f in dataclasses.fields(loss)} - {"kind", "when", "mask", "regulariser", "activity"}
    plain = type(loss) is Loss and not any(getattr(loss, name) for name in others)
    costs = type(loss.regulariser) in (type(None), L2) and type(loss.activity) in (type(None), Activity)
    usual = network.W_fb is None and not set(names) & set(network.neuron.learned)
    known = type(network) is Network and usual and plain and costs
    return known and derivatives_agree(network)


def derivatives_agree(network: Network) -> bool:
    """What the network's neuron says of itself (`Neuron.derivatives_agree`), or else what trials find.

    Raises:
        BpgenError: its f or g has no second derivative.
    """
    neuron = network.neuron
    if neuron.derivatives_agree is False:
        return False
    if vars(type(neuron)).get("derivatives_agree"):
        return True
    if neuron not in _PROVEN:
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            own = copy.deepcopy(network).cpu().double()
            trials = [_trial(_random_problem(own, scale)) for scale in _SCALES]
            _PROVEN[neuron] = all(t.agrees for t in trials) and any(t.alive for t in trials)
    return _PROVEN[neuron]


def _random_problem(network: Network, scale: float) -> Problem:
    """Random weights, inputs and targets for a network in double precision."""
    random = generator(0, "second derivatives", int(10 * scale))

    def randn(*shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=random, dtype=torch.float64)

    params = {
        name: w if name == "initial_state" else randn(*w.shape) / w.shape[-1] ** 0.5
        for name, w in network.params().items()
    }
    x, target = randn(_STEPS, _SAMPLES, network.n_in), randn(_STEPS, _SAMPLES, network.n_out)
    return Problem(network, params, x, target, Loss("mse", "all"))


def _trial(problem: Problem) -> Trial:
    """Compare two products.

    Raises:
        BpgenError: autograd does not follow f and g twice.
    """
    weights = tuple(name for name in problem.params if name not in problem.network.neuron.learned)
    free = FreeEntries(problem.network, problem.params, weights)
    v = torch.randn(2, free.size, generator=generator(0, "directions"), dtype=torch.float64)
    directions = free.directions(v, problem.params)
    try:
        with torch.enable_grad():
            oracle = NetworkByAutograd(problem, free.names)
            if not oracle.whole_loss.is_whole:
                raise NotImplementedError("a function of it is marked @once_differentiable")
            expected = oracle(directions)
    except (RuntimeError, NotImplementedError) as error:
        name, reason = type(problem.network.neuron).__name__, str(error).strip().splitlines()[0]
        raise BpgenError(
            f"the curvature of a network of {name} cannot be taken: autograd does not follow its f and g twice "
            f"({reason}). Write them in operations of torch that it can."
        ) from None
    try:
        with torch.no_grad():
            got = free.vectors(ROperator(problem)(directions))
    except (RuntimeError, NotImplementedError):  # as where `local` cannot be taken in forward mode
        return Trial(False, True)
    whole = free.vectors(expected)
    return Trial(bool((got - whole).norm() <= _TOLERANCE * whole.norm()), bool(expected["W_in"].any()))
