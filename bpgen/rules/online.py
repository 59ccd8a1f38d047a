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
import torch.nn.functional as F
from torch import Tensor

from bpgen.errors import BpgenError
from bpgen.network import Network, Trajectory
from bpgen.network.readout import filtered_back
from bpgen.problem import Problem
from bpgen.rules.base import (
    NO_DRAWS,
    Draws,
    OfflineRule,
    Rule,
    RuleGradients,
    as_rules_see_it,
    completed,
    refuse_activity,
)
from bpgen.rules.credit import readout_gradients
from bpgen.rules.moment import Moment

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

    W_out and b_out always get their exact gradient, e_t r_tᵀ and e_t, from the framework. Random numbers come from
    `draw`, whose tensors are time first, [T,...]; a moment holds those of its own step.
    """

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
        """Go on for the k steps of a problem.

        Args:
            problem: as `estimate` sees it.
            carry: where to go on from.
            draws: for these k steps.
            ends: whether the sequence ends with the last of them; a loss at the last step is taken there alone.
        """
        refuse_activity(self, problem.loss)
        whole = carry.t == 0 and ends  # a block knows nothing of a readout filter that goes on
        if self.at_once and problem.n_steps > 1 and (whole or problem.network.kappa == 0):
            return self._advance_at_once(problem, carry, ends)
        return self.advance_by_steps(problem, carry, draws, ends)

    def _advance_at_once(self, problem: Problem, carry: Carry, ends: bool) -> tuple[Carry, RuleGradients]:
        run = problem.run() if carry.t == 0 else replace(problem, initial_state=carry.s).run()
        value, error = problem.value_and_error(run)
        filtered = filtered_back(error, problem.network.kappa, run.n_steps)
        state, increments = self.block(carry.state, run, filtered, ends)
        sums = _Sums(run.params)
        sums.add({**increments, **readout_gradients(run, error)})
        s, h = run.states[-1].clone(), run.h[-1].clone()  # not views of all of the run
        carry = Carry(carry.t + run.n_steps, s, h, h, state)
        return carry, RuleGradients(value, run.outputs, sums.grads, sums.aux)

    def advance_by_steps(self, problem: Problem, carry: Carry, draws: Draws, ends: bool) -> tuple[Carry, RuleGradients]:
        """`advance`, step after step."""
        network, x, loss = problem.network, problem.x, problem.loss
        params, n_steps, noise = network.masked(problem.params), problem.n_steps, problem.current_noise
        t, s, h, r, state = carry
        sums = _Sums(params)
        value, outputs = x.new_zeros(()), []
        for k in range(n_steps):
            s_before, h_before = s, h
            I, s, h = network.advance(params, s, h, x[k], None if noise is None else noise[k])
            r = h if network.kappa == 0 else network.kappa * r + (1 - network.kappa) * h
            y = F.linear(r, params["W_out"], params.get("b_out"))
            outputs.append(y)
            last = ends and k == n_steps - 1
            taken, error = loss.of_step(y, problem.target, k, n_steps), None
            if taken is not None:
                value, error = value + taken[0], taken[1]
                sums.add({"W_out": error.mT @ r, **({"b_out": error.sum(0)} if "b_out" in params else {})})
            drawn = {name: draw[k] for name, draw in draws.items()}
            moment = Moment(network, params, t + k + 1, x[k], I, s_before, h_before, s, h, r, error, last, drawn)
            state, increments = self.step(state, moment)
            sums.add(increments)
        result = RuleGradients(value, loss.outputs_of(outputs), sums.grads, sums.aux)
        return Carry(t + n_steps, s, h, r, state), result

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


def gradients_of_chunk(
    rule: Rule, problem: Problem, carry: Carry | None, draws: Draws = NO_DRAWS, *, ends: bool, share: float
) -> tuple[Carry, RuleGradients]:
    """The gradient of a rule on the next k steps of a sequence, at all of them, and what to carry on.

    An online rule carries its state over. An offline rule goes on from the network's state, and its credit is cut at
    the boundary: it is truncated to the chunk.

    Args:
        rule: an online or offline rule.
        problem: these k steps. Without weights of the steps (a mask) they count as `share` of the sequence: 1/T each
            for cross-entropy, as in the whole. A loss at the last step falls on the chunk with which the sequence ends.
        carry: what the chunk before returned; None at the start of a sequence.
        draws: as for `Rule.gradients`, for these k steps.
        ends: whether the sequence ends here.
        share: k/T, the part of the sequence that these steps are; of the regulariser this chunk pays as much.

    Raises:
        BpgenError: the rule needs whole sequences.
    """
    check_chunks(rule, problem.network)
    refuse_activity(rule, problem.loss)
    rule.check(problem.loss)
    target, loss = problem.loss.of_chunk(problem.x, problem.target, share, ends)
    inner = as_rules_see_it(replace(problem, target=target, loss=loss))
    if isinstance(rule, OnlineRule):
        carry, result = rule.advance(inner, rule.begin(inner) if carry is None else carry, draws, ends)
        return carry, completed(rule, result, problem, share)
    if carry is not None:
        inner = as_rules_see_it(replace(inner, initial_state=carry.s))
    result = rule.estimate(inner, draws)
    s = result.aux["last_state"].clone()  # a view of buffers that the run had for itself
    h = problem.network.neuron.g(s)
    carry = Carry((carry.t if carry else 0) + problem.n_steps, s, h, h, {})
    return carry, completed(rule, result, replace(problem, initial_state=inner.initial_state), share)


def chunk_note(rule: Rule, chunk: int) -> str:
    """What training in chunks of so many steps does to a rule, in one line; empty for online rules."""
    if isinstance(rule, OnlineRule):
        return ""
    return (
        f"{type(rule).__name__} is not an online rule: its credit is cut at every chunk of {chunk} steps. The rules "
        "that `bpgen rules --traits` calls online carry theirs on."
    )


def check_chunks(rule: Rule, network: Network) -> None:
    """Whether a rule can go on from chunk to chunk.

    Raises:
        BpgenError: it needs whole sequences.
    """
    name = type(rule).__name__
    if not isinstance(rule, (OnlineRule, OfflineRule)):
        raise BpgenError(f"{name} needs whole sequences: leave out trainer.chunk, or choose an online rule.")
    if isinstance(rule, OfflineRule) and network.W_fb is not None:
        raise BpgenError(
            f"{name} is an offline rule: in chunks it would lose the output y that network.output_feedback hands on to "
            f"the next step. Use whole sequences."
        )
    if isinstance(rule, OfflineRule) and network.kappa > 0:
        raise BpgenError(
            f"{name} is an offline rule: in chunks it would cut the readout's filter (network.kappa {network.kappa:g}) "
            f"at every boundary. Use --network.kappa 0, whole sequences, or an online rule."
        )
