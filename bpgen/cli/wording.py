"""What the parser of a run says, in words: the types of options, and what was wrong with a value."""

from __future__ import annotations

import argparse
import re

from jsonargparse import DefaultHelpFormatter

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "dict": "a mapping",
    "list": "a list such as [a, b]",
    "tuple": "a pair such as [a, b]",
}


class Manual(DefaultHelpFormatter):
    """Help that says types in words, and leaves out those that the choices already say."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)

    def _expand_help(self, action: argparse.Action) -> str:
        text = super()._expand_help(action)
        text = re.sub(r"\(required, type: (.*)\)$", lambda m: _typed(m[1], "required"), text)
        return re.sub(r"\(type: (.*), default: ([^()]*)\)$", lambda m: _typed(m[1], f"default: {m[2]}"), text)


def _typed(python_type: str, default: str) -> str:
    """`type: int | null, default: null` -> `(a whole number; default: none)`."""
    literal = re.search(r"Literal\[([^\]]*)\]", python_type)
    named = re.findall(r"'([^']*)'", literal[1]) if literal and literal[0] != python_type else []
    outer = re.sub(r"\b(list|dict|tuple|Literal)\[[^\]]*\]", r"\1", python_type)  # what is inside is no other choice
    words = [*named, *(word for kind, word in _WORDS.items() if re.search(rf"\b{kind}\b", outer))]
    several = " or ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""
    text = f"{several}; " if words and "bool" not in python_type else ""
    for python, ours in (("null", "none"), ("True", "true"), ("False", "false")):
        default = default.replace(f": {python}", f": {ours}")
    return f"({text}{default})"


def one_line(message: str) -> str:
    """What was wrong and what was expected, without the types' Python spelling."""
    key = re.search(r'Parser key "([^"]+)"', message)
    value = re.search(r"(?:Got value|Given value): (.*)", message)
    if not key:
        return message.strip().splitlines()[0].rstrip(".") + ". See `bpgen fit --help`."
    expected = dict.fromkeys(re.findall(r"Expected (?:an? )?(.+?)(?:\. Got value.*)?$", message, re.MULTILINE))
    readable = " or ".join(_readable(e) for e in expected) or "another value"
    got = value.group(1) if value else "?"
    return f"--{key.group(1)} expects {readable}, got {got}. See `bpgen fit --help`."


def _readable(python_type: str) -> str:
    names = {**_WORDS, "NoneType": "null"}
    literal = re.match(r"typing\.Literal\[(.*)\]", python_type)
    if literal:
        return "one of " + ", ".join(literal.group(1).replace("'", "").split(", "))
    inner = re.match(r"<class '(\w+)'>", python_type)
    return names.get(inner.group(1), inner.group(1)) if inner else python_type
