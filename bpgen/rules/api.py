"""What users call: find a rule, list them, take one gradient."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bpgen.errors import require
from bpgen.given import problem_of
from bpgen.losses import L2, Activity, Loss, LossName, When
from bpgen.network import Network
from bpgen.registry import find, plugins
from bpgen.rules.base import Rule, RuleGradients
from bpgen.rules.memory import require_room
from bpgen.rules.traits import Traits
from bpgen.streams import generator


def load_rule(name: str, **options: Any) -> Rule:
    """A rule by its short name, whichever package it comes from.

    Args:
        name: as listed by `bpgen rules`.
        **options: its constructor's options.

    Raises:
        BpgenError: unknown name or option, a bad value, or a broken plugin.
    """
    rule: Rule = find("rule", name).make(**options)
    return rule


def rule_of(rule: Rule | str) -> Rule:
    """A rule that was given as one, or by its name.

    Raises:
        BpgenError: neither, or an unknown name.
    """
    require(isinstance(rule, (str, Rule)), f"rule must be a rule or a rule's name, got a {type(rule).__name__}.")
    return load_rule(rule) if isinstance(rule, str) else rule


def list_rules() -> dict[str, Traits]:
    """Every installed rule that can be imported, with its traits; a broken one is left out with a warning."""
    traits = {}
    for name, plugin in plugins("rule").items():
        try:
            traits[name] = plugin.load().traits
        except Exception as error:
            warnings.warn(f"rule {name!r} of {plugin.package} is left out: {error}", stacklevel=2)
    return traits


def gradients(
    rule: Rule | str,
    network: Network,
    x: Tensor,
    target: Tensor,
    loss: LossName = "cross_entropy",
    when: When = "last",
    mask: Tensor | None = None,
    initial_state: Tensor | None = None,
    regulariser: L2 | float | Mapping[str, float] | None = None,
    seed: int = 0,
    activity: Activity | float | None = None,
    lengths: Tensor | None = None,
) -> RuleGradients:
    """The gradient that `rule` assigns to `network` on one batch, at its present weights.

    Args:
        rule: a rule or its name.
        network: the network.
        x: inputs [T,B,I].
        target: int64 [B] (last) or [T,B] (all) for cross-entropy; float [B,O] or [T,B,O] for mse.
        loss: "cross_entropy", "mse" (½ Σ_o (y-y*)²) or "binary_cross_entropy" (targets 0..1, as for mse).
        when: whether the loss is taken at the "last" step or at "all" steps.
        mask: weights m [T,B] of the steps, only with "all": L = (1/B) Σ m ℓ. For the cross-entropies a mask of ones is
            T times no mask (1/T each); `mask / mask.sum(0)` makes a mask of ones no mask.
        initial_state: s_0 [B,d,N], or None.
        regulariser: an L2 coefficient for W_in, W_rec, W_out, or coefficients by weight; None adds nothing.
        seed: of everything random in the rule, and of feedback weights that are not drawn yet.
        activity: an `Activity` to add to the loss, or the coefficient of its rate form; None adds nothing.
        lengths: steps of each sequence [B] where they differ: each is taken as if run by itself, at its own last step
            or over its own steps; the outputs are then those of all steps.

    Returns:
        `RuleGradients` with the true loss, the outputs and one gradient per parameter.

    Raises:
        BpgenError: a shape or option that does not fit, with what was expected.
    """
    problem = problem_of(network, x, target, Loss.of(loss, when, mask, regulariser, activity), initial_state, lengths)
    bound = rule_of(rule)
    bound.bind(network, seed)
    require_room(bound, problem)
    noise = network.draw_noise(problem.n_steps, problem.batch, generator(seed, "noise"))
    draws = bound.draw(network, problem.x, generator(seed, "draws"))
    with torch.no_grad():
        return bound.gradients(replace(problem, current_noise=noise), draws)
