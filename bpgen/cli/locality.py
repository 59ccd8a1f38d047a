"""What `bpgen check --locality` prints: a rule's audit, or those of all rules as one table."""

from __future__ import annotations

import json
import textwrap
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bpgen.conformance.rules.locality import Audit, Dependence

_WORDS = {"yes": "YES", "no": "no", "broadcast": "by one number that all synapses are told"}
_HELD_FIXED = (
    "Held fixed: the activity of the synapse's own two neurons, the inputs, the error at the outputs, the rule's "
    "draws. Changed, one at a time: all other synapses, the states of all other neurons, the sizes of the readout "
    "weights. Of the error of one step: how many traces of the past a synapse needs to make its update at once (1: an "
    "eligibility trace times one number); if the later the step, the more it needs, the error has to go back in time."
)


def run(name: str, options: Mapping[str, Any], as_json: bool) -> int:
    """Print the audit of a rule, or of "all"; 1 if one is less local than its traits say."""
    import torch

    from bpgen.conformance.rules.locality import audit
    from bpgen.registry import plugins

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        audits = [audit(n, options) for n in (plugins("rule") if name == "all" else [name.removeprefix("rule:")])]
    if as_json:
        rows = [f"{json.dumps(a.rule)}: {json.dumps(a.plain(), ensure_ascii=False)}" for a in audits]
        print("{\n" + ",\n".join(rows) + "\n}")
    elif name == "all":
        print(_table(audits))
    else:
        print(_report(audits[0]))
    denied = {a.rule: [d.on for d in a.found if d.denied] for a in audits}
    if not as_json:
        for rule, things in denied.items():
            if things:
                print(_filled(f"{rule} IS LESS LOCAL THAN IT SAYS: its updates depend on {', '.join(things)}."))
    return 1 if any(denied.values()) else 0


def _report(audit: Audit) -> str:
    if audit.reason:
        return _filled(f"{audit.rule}: not measured: {audit.reason}")
    lines = [f"{audit.rule}: what the update of one synapse depends on, beside its own two neurons", ""]
    lines.append(f"{'':<24}{'declared':<10}measured")
    for d in audit.found:
        lines.append(f"{d.on:<24}{'yes' if d.declared else 'no':<10}{_words(d)}")
    found_less = [d.on for d in audit.found if d.declared and not d.agrees]
    if found_less:
        lines += ["", _filled(f"Declared and not found, with these options and neurons: {', '.join(found_less)}.")]
    return "\n".join([*lines, "", _filled(_HELD_FIXED)])


def _words(d: Dependence) -> str:
    if not d.traces:
        return _WORDS[d.measured] + (f" (updates change by {d.by:.2g} of their size)" if d.measured != "no" else "")
    first, last = d.traces[0], d.traces[-1]
    if last <= first:
        return f"no: {last} trace{'s' if last != 1 else ''} a synapse"
    needed = f"{', '.join(map(str, d.traces))} traces a synapse"
    return f"YES: {needed}" if d.measured == "yes" else f"no, it runs forward in time; without other neurons: {needed}"


def _table(audits: list[Audit]) -> str:
    known = [a for a in audits if not a.reason]
    things = [d.on for d in known[0].found]
    width = max(len(a.rule) for a in audits) + 2
    lines = [f"{'update depends on':<{width}}" + "".join(f"{thing:<23}" for thing in things) + "traces"]
    for a in audits:
        if a.reason:
            lines.append(f"{a.rule:<{width}}not measured: {a.reason}")
            continue
        cells = "".join(f"{d.measured + ('' if d.agrees else ' *'):<23}" for d in a.found)
        lines.append(f"{a.rule:<{width}}{cells}{', '.join(str(t) for d in a.found for t in d.traces)}")
    return "\n".join([*lines, "", "* not as its traits say", "", _filled(_HELD_FIXED)])


def _filled(text: str) -> str:
    return textwrap.fill(text, 118)
