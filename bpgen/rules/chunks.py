"""Sequences that come a few steps at a time, with a weight change after each chunk: what every rule carries on."""

from __future__ import annotations

from dataclasses import replace

from bpgen.errors import BpgenError
from bpgen.network import Network
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
from bpgen.rules.online import Carry, OnlineRule


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
    inner = as_rules_see_it(problem if loss is problem.loss else replace(problem, target=target, loss=loss))
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
