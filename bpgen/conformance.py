"""The conformance suite under its public name; see `bpgen.rules.conformance`."""

from bpgen.rules.conformance import Check, Outcome, checks, plan

__all__ = ["Check", "Outcome", "checks", "plan"]
