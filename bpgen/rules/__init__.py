"""The public API for rules: what a plugin imports, and what users call."""

from bpgen.rules.api import gradients, list_rules, load_rule
from bpgen.rules.base import OfflineRule, Rule, RuleGradients
from bpgen.rules.cell_types import type_average
from bpgen.rules.credit import Credit, weight_gradients
from bpgen.rules.feedback import Feedback, FeedbackName
from bpgen.rules.kernel import hop, propagate, told
from bpgen.rules.moment import Moment, own_influence
from bpgen.rules.online import Carry, Increments, OnlineRule, State, check_chunks, gradients_of_chunk
from bpgen.rules.traits import Traits

__all__ = [
    "Carry",
    "Credit",
    "Feedback",
    "FeedbackName",
    "Increments",
    "Moment",
    "OfflineRule",
    "OnlineRule",
    "Rule",
    "RuleGradients",
    "State",
    "Traits",
    "check_chunks",
    "gradients",
    "gradients_of_chunk",
    "hop",
    "list_rules",
    "load_rule",
    "own_influence",
    "propagate",
    "told",
    "type_average",
    "weight_gradients",
]
