"""YAML as configs and plans are written: plain data, and every word what its author meant.

Of YAML 1.1, which the library reads, this leaves out what turns a text into something else unasked: dates, numbers in
base 8 and 60 (010 is 8, 1:30 is 90), and yes, no, on and off, which `bpgen.signatures.as_meant` understands where a
truth value is asked for. 1e-3 is a number. A key that stands twice, a value that contains itself, and what is nested
or repeated beyond all measure are errors; so are tags, which could make objects.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.events import AliasEvent

_DEPTH, _SIZE = 32, 100_000  # levels of nesting; values, those that stand for others counted each time
_INT = r"[-+]?0x[0-9a-fA-F_]+|[-+]?(?:0|[1-9][0-9_]*)"
_FLOAT = (
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_WORDS = {
    "int": (_INT, "-+0123456789"),
    "float": (_FLOAT, "-+.0123456789"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
}
_LEFT_OUT = ("int", "float", "bool", "timestamp")  # as the library reads them
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map", "merge")


def _tag(name: str) -> str:
    return f"tag:yaml.org,2002:{name}"


def _resolvers(base: Any) -> dict[str, list[tuple[str, Any]]]:
    """What makes a plain word a number or a truth value, by first letter."""
    without = {_tag(name) for name in _LEFT_OUT}
    kept = {c: [r for r in pairs if r[0] not in without] for c, pairs in base.yaml_implicit_resolvers.items()}
    for name, (pattern, first) in _WORDS.items():
        for letter in first:
            kept.setdefault(letter, []).append((_tag(name), re.compile(f"^(?:{pattern})$")))
    return kept


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers(yaml.SafeLoader)
    yaml_constructors = {  # noqa: RUF012  (the library's own way)
        tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag in (None, *map(_tag, _PLAIN))
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._open: list[str | None] = []  # anchors of the values around
        self._sizes: dict[int, int] = {}  # by the identity of a node

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As usual, within bounds, which have to hold before anything is built."""
        event = self.peek_event()
        if len(self._open) >= _DEPTH:
            raise ComposerError(None, None, f"it is nested more than {_DEPTH} levels deep", event.start_mark)
        if isinstance(event, AliasEvent) and event.anchor in self._open:
            raise ComposerError(None, None, f"the value &{event.anchor} contains itself", event.start_mark)
        self._open.append(getattr(event, "anchor", None))
        node = super().compose_node(parent, index)
        self._open.pop()
        if id(node) not in self._sizes:
            children = [] if isinstance(node, yaml.ScalarNode) else node.value
            pairs = [c for child in children for c in (child if isinstance(child, tuple) else (child,))]
            self._sizes[id(node)] = 1 + sum(self._sizes[id(child)] for child in pairs)
        if self._sizes[id(node)] > _SIZE:
            raise ComposerError(None, None, f"it holds more than {_SIZE} values", event.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """As usual, each key once."""
        node = super().compose_mapping_node(anchor)
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _tag("merge"):
                if key.value in keys:
                    raise ComposerError(None, None, f"the key {key.value} stands twice", key.start_mark)
                keys.add(key.value)
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what either way of reading would take for something else than a text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (the library's own way)
        c: [*yaml.SafeDumper.yaml_implicit_resolvers.get(c, []), *pairs]
        for c, pairs in _resolvers(yaml.SafeDumper).items()
    }

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """A text; rare ends of lines stay what they are in quotes only."""
        style = '"' if any(end in data for end in "\r\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def read(text: str) -> Any:
    """What a text in YAML says.

    Raises:
        yaml.YAMLError: it is none, or see the module's docstring.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader with less: plain data only)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits
        raise yaml.YAMLError(str(error)) from None


def written(content: Any) -> str:
    """A content as YAML; `read` gives it back, and so does any YAML library."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
