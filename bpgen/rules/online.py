"""Online rules: forward in time, with a memory that does not grow with the length of the sequence.

    state_0 = start(network, params, batch)
    state_t, increments_t = step(state_{t-1}, moment_t),    ∂L/∂θ ≈ Σ_t increments_t
The future is not an argument of `step`. A whole sequence (`OnlineRule.gradients`) and a stream that is cut into chunks,
with a weight change after each (`gradients_of_chunk`), are the same loop; what passes from chunk to chunk is a `Carry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from bpgen.errors import BpgenError
from bpgen.network import Network, Trajectory
from bpgen.problem import Problem
from bpgen.rules.base import (
    Draws,
    Rule,
    RuleGradients,
    refuse_activity,
)
from bpgen.rules.credit import readout_gradients
from bpgen.rules.moment import Moment
from bpgen.rules.steps import Steps

BLOCK = 256  # steps whose activity is held at once
State = dict[str, Tensor]
Increments = dict[str, Tensor]


class Carry(NamedTuple):
    """What goes on from one chunk of a sequence to the next.

    t: steps made so far. s [B,d,N], h, r [B,N]: the network at t. state: the rule's own.
    """

    t: int
    s: Tensor
    h: Tensor
    r: Tensor
    state: State

    def save(self) -> dict[str, Any]:
        """As plain tensors and numbers, for a checkpoint."""
        return self._asdict()

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Carry:
        """From what `save` gave."""
        return cls(**saved)


class OnlineRule(Rule):
    """A rule that moves forward in time with the network. A subclass writes `start` and `step`.

    W_out and b_out always get their exact gradient, e_t r_tᵀ and e_t, from the framework, which also leaves out what a
    rule gives to weights that cannot act. Random numbers come from `draw`, whose tensors are time first, [T,...]; a
    moment holds those of its own step. A rule that takes `Moment.of_each` in place of `direct` says `trains_neurons`.
    """

    trains_neurons = False

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """The state before the first step of `batch` sequences: tensors by name.

        Args:
            network: structure and neurons; its own weights are not to be read.
            params: weights by name, masked; `initial_state` only if it is learned and in use.
            batch: B.
        """
        raise NotImplementedError

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """The next state, and what this step adds to the gradient of each weight.

        A weight that is left out gets nothing. Entries under other names are added up in the result's `aux`: what the
        rule itself wants to learn from (`Rule.learn`).
        """
        raise NotImplementedError

    @property
    def at_once(self) -> bool:
        """Whether `block` is written for this rule as it is configured."""
        return False

    filters_back: ClassVar[bool] = False
    """Whether `block` takes the error as it goes back through a filtered readout: then only of whole sequences.

    As much holds where neurons learn, of which the credit of a block knows, and the state after it does not.
    """

    def looks_back(self, network: Network) -> bool:
        """Whether `block` is only of whole sequences on this network, see `filters_back`."""
        return self.filters_back and (network.kappa > 0 or bool(network.neuron.learned))

    def block(self, state: State, steps: Steps) -> tuple[State, Increments]:
        """Many steps at fixed weights at once: what `step` after `step` gives, for rules that know a shorter way.

        Args:
            state: before the first of them; not to be changed.
            steps: the network's run over them, with their errors and draws. Where the sequence ends with them, the
                state returned is not used.
        """
        raise NotImplementedError

    def begin(self, problem: Problem) -> Carry:
        """Network and rule before the first step of a problem's sequences."""
        network, params = problem.network, problem.network.masked(problem.params)
        if network.W_fb is not None:
            raise BpgenError(f"{type(self).__name__} is not defined for networks with output feedback.")
        s = network.start(params, problem.batch, problem.initial_state)
        h = network.neuron.g(s)
        return Carry(0, s, h, torch.zeros_like(h), self.start(network, params, problem.batch))

    def advance(self, problem: Problem, carry: Carry, draws: Draws, ends: bool = True) -> tuple[Carry, RuleGradients]:
        """Go on for the k steps of a problem, so many at a time that memory does not grow with k.

        Args:
            problem: as `estimate` sees it.
            carry: where to go on from.
            draws: for these k steps.
            ends: whether the sequence ends with the last of them.
        """
        refuse_activity(self, problem.loss)
        network, loss_of_all, k = problem.network, problem.loss, problem.n_steps
        whole, back = carry.t == 0 and ends, self.looks_back(network)
        by_step = not whole if back else bool(network.neuron.learned)
        at_once = self.at_once and k > 1 and not by_step
        there = loss_of_all.there if whole else None  # of a chunk, later weights are not known
        values: list[Tensor] = []
        outputs: list[Tensor] = []
        sums = _Sums(problem.params)
        for part, target, loss in loss_of_all.in_blocks(problem.x, problem.target, k if at_once and back else BLOCK):
            run = _going_on(problem, part, carry)
            if loss is None:
                error = run.outputs.new_zeros(0, problem.batch, network.n_out)
            else:
                value, error = loss.data_and_error(run.outputs, target)
                values.append(value)
                sums.add(readout_gradients(run, error))
            drawn = {name: draw[part] for name, draw in draws.items()}
            here = None if there is None else there[part]
            steps = Steps(run, carry.t, error, ends and part.stop == k, drawn, here)
            if at_once:
                state, increments = self.block(carry.state, steps)
                sums.add(increments)
            else:
                state = self._step_by_step(carry.state, steps, sums)
            outputs.append(run.outputs)
            s, h = run.states[-1].clone(), run.h[-1].clone()  # not views of all of the run
            carry = Carry(carry.t + run.n_steps, s, h, h if network.kappa == 0 else run.r[-1].clone(), state)
        total = sum(values[1:], values[0]) if values else problem.x.new_zeros(())
        return carry, RuleGradients(total, loss_of_all.outputs_of(outputs), sums.whole(network), sums.aux)

    def _step_by_step(self, state: State, steps: Steps, sums: _Sums) -> State:
        for k in range(1, steps.run.n_steps + 1):
            state, increments = self.step(state, Moment.of(steps, k))
            sums.add(increments)
        return state

    def estimate(self, problem: Problem, draws: Draws) -> RuleGradients:
        """See `Rule.estimate`: the sum over a whole sequence at fixed weights."""
        return self.advance(problem, self.begin(problem), draws)[1]


def _going_on(problem: Problem, part: slice, carry: Carry) -> Trajectory:
    """The network's run over some steps of a problem, from where a carry has come."""
    network, x, noise = problem.network, problem.x, problem.current_noise
    s_0, r_0, h_0 = problem.initial_state, problem.readout_state, None
    if part.stop - part.start < problem.n_steps:
        x, noise = x[part], None if noise is None else noise[part]
    if carry.t > 0:
        s_0, r_0, h_0 = carry.s, carry.r if network.kappa else None, carry.h
    return network.run(
        problem.params, x, when=problem.loss.when, initial_state=s_0, current_noise=noise, r_0=r_0, h_0=h_0
    )


class _Sums:
    """Gradients added up over the steps, and whatever else a rule adds up."""

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        self.params = params
        self.grads: dict[str, Tensor] = {}
        self.aux: dict[str, Tensor] = {}

    def add(self, increments: Increments) -> None:
        """Add what one step gives."""
        for name, increment in increments.items():
            sums = self.grads if name in self.params else self.aux
            sums[name] = sums[name] + increment if name in sums else increment

    def whole(self, network: Network) -> dict[str, Tensor]:
        """A gradient for every parameter: zero where none was given, and for weights that cannot act."""
        grads = network.masked({name: self.grads[name] for name in self.params if name in self.grads})
        return {n: grads[n].contiguous() if n in grads else torch.zeros_like(p) for n, p in self.params.items()}
