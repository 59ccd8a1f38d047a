"""Online rules: forward in time, with a memory that does not grow with the length of the sequence.

    state_0 = start(network, params, batch)
    state_t, increments_t = step(state_{t-1}, moment_t),    ∂L/∂θ ≈ Σ_t increments_t
The future is not an argument of `step`. A whole sequence (`OnlineRule.gradients`) and a stream that is cut into chunks,
with a weight change after each (`gradients_of_chunk`), are the same loop; what passes from chunk to chunk is a `Carry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpgen.errors import BpgenError
from bpgen.network import Network, Trajectory
from bpgen.network.readout import filtered_back
from bpgen.problem import Problem
from bpgen.rules.base import (
    Draws,
    Rule,
    RuleGradients,
    refuse_activity,
)
from bpgen.rules.credit import readout_gradients
from bpgen.rules.moment import Moment, Steps

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

    def block(self, state: State, run: Trajectory, error: Tensor, ends: bool) -> tuple[State, Increments]:
        """Many steps at fixed weights at once: what `step` after `step` gives, for rules that know a shorter way.

        Args:
            state: before the first of them.
            run: the network over these steps, its index 0 where the state stands.
            error: ē [L,B,O] at the last L of them, filtered back through the readout.
            ends: whether the sequence ends here; the state returned is then not used.
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
        at_once = self.at_once and problem.n_steps > 1
        if at_once and problem.network.kappa > 0:  # a block needs the errors of all steps that its readout filters
            at_once = carry.t == 0 and ends
        size = problem.n_steps if at_once and problem.network.kappa > 0 else BLOCK
        sums, value, outputs = _Sums(problem.params), problem.x.new_zeros(()), []
        for part, target, loss in problem.loss.in_blocks(problem.x, problem.target, size):
            here = problem
            if part.stop - part.start < problem.n_steps:
                here = replace(problem.steps(part), target=target, loss=loss or problem.loss)
            if carry.t > 0:
                here = replace(here, initial_state=carry.s, readout_state=carry.r if problem.network.kappa else None)
            run = here.run()
            error = None
            if loss is not None:
                added, error = loss.data_and_error(run.outputs, target)
                value = value + added
                sums.add(readout_gradients(run, error))
            last = ends and part.stop == problem.n_steps
            if at_once:
                errors = run.outputs.new_zeros(1, problem.batch, problem.network.n_out) if error is None else error
                filtered = filtered_back(errors, problem.network.kappa, run.n_steps)
                state, increments = self.block(carry.state, run, filtered, last)
                sums.add(increments)
            else:
                drawn = {name: draw[part] for name, draw in draws.items()}
                state = self._step_by_step(carry, Steps(run), error, drawn, last, sums)
            outputs.append(run.outputs)
            s, h = run.states[-1].clone(), run.h[-1].clone()  # not views of all of the run
            r = h if problem.network.kappa == 0 else run.r[-1].clone()
            carry = Carry(carry.t + run.n_steps, s, h, r, state)
        grads = problem.network.masked(sums.grads)
        return carry, RuleGradients(value, problem.loss.outputs_of(outputs), grads, sums.aux)

    def _step_by_step(
        self, carry: Carry, steps: Steps, error: Tensor | None, draws: Draws, ends: bool, sums: _Sums
    ) -> State:
        state, T = carry.state, steps.run.n_steps
        silent = T if error is None else T - len(error)  # steps before the first error
        for k in range(1, T + 1):
            e = error[k - 1 - silent] if error is not None and k > silent else None
            drawn = {name: draw[k - 1] for name, draw in draws.items()}
            moment = Moment(steps, k, steps.run.params, carry.t + k, e, ends and k == T, drawn)
            state, increments = self.step(state, moment)
            sums.add(increments)
        return state

    def estimate(self, problem: Problem, draws: Draws) -> RuleGradients:
        """See `Rule.estimate`: the sum over a whole sequence at fixed weights."""
        return self.advance(problem, self.begin(problem), draws)[1]


class _Sums:
    """Gradients added up over the steps, and whatever else a rule adds up."""

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        self.grads = {name: torch.zeros_like(p) for name, p in params.items()}
        self.aux: dict[str, Tensor] = {}

    def add(self, increments: Increments) -> None:
        """Add what one step gives."""
        for name, increment in increments.items():
            sums = self.grads if name in self.grads else self.aux
            sums[name] = sums[name] + increment if name in sums else increment
