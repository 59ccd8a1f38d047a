"""The public API for rules: what a plugin imports, and what users call."""

from bpgen.rules.api import gradients, list_rules, load_rule
from bpgen.rules.base import OfflineRule, Rule, RuleGradients
from bpgen.rules.credit import Credit, weight_gradients
from bpgen.rules.feedback import Feedback, FeedbackName
from bpgen.rules.kernel import hop, propagate, told
from bpgen.rules.traits import Traits

__all__ = [
    "Credit",
    "Feedback",
    "FeedbackName",
    "OfflineRule",
    "Rule",
    "RuleGradients",
    "Traits",
    "gradients",
    "hop",
    "list_rules",
    "load_rule",
    "propagate",
    "told",
    "weight_gradients",
]
