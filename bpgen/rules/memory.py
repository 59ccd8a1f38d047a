"""Whether a rule's gradient of a problem can fit into memory at all, seen before anything is allocated."""

from __future__ import annotations

from bpgen.memory import require_bytes
from bpgen.problem import Problem
from bpgen.rules.base import Rule

_POWERS = {"": 1, "²": 2, "³": 3, "⁴": 4}


def least_bytes(rule: Rule, problem: Problem) -> int:
    """What the gradient needs at least: B times the order that the rule's traits declare, at this T and N.

    Symbols of an order other than T and N, as in "N² R", count as one: this is a bound from below. Traces of order N²
    need not be kept for each sequence where an online rule takes many steps at once; they count as nothing.
    """
    if rule.traits.online and "³" not in rule.traits.memory:
        return 0
    sizes, numbers = {"T": problem.n_steps, "N": problem.network.n_rec}, 1
    for factor in rule.traits.memory.split():
        numbers *= sizes.get(factor[0], 1) ** _POWERS.get(factor[1:], 1)
    return problem.batch * numbers * problem.x.element_size()


def require_room(rule: Rule, problem: Problem) -> None:
    """See that the device can hold it, beside the weights, their gradient and the copy that a checkpoint is made from.

    Raises:
        BpgenError: it cannot, with the sizes and what would help.
    """
    weights = sum(W.numel() * W.element_size() for W in problem.params.values())
    cubic = "³" in rule.traits.memory
    require_bytes(
        least_bytes(rule, problem) + 3 * weights,
        f"{type(rule).__name__} needs memory of order {rule.traits.memory} for each sequence (B={problem.batch}, "
        f"T={problem.n_steps}, N={problem.network.n_rec})",
        "Take smaller batches or a smaller network"
        + (", or `snap`, which keeps the sensitivities of few steps apart." if cubic else "."),
        problem.x.device,
    )
