"""The seeds of a study as its plan gives them, and the numbers of them at which it is looked."""

from __future__ import annotations

from typing import Any

from bpgen.errors import require


def read_seeds(content: Any, where: str) -> list[int]:
    """Seeds from a number of them or a list; anything else, and a seed named twice, is a `BpgenError`."""
    seeds = list(range(content)) if type(content) is int else content
    valid = isinstance(seeds, list) and bool(seeds) and all(type(s) is int for s in seeds)
    require(valid, f"{where} must be a positive number of seeds or a list such as [0, 1, 2], got {content!r}.")
    require(len(set(seeds)) == len(seeds), f"{where} names a seed twice: {seeds}.")
    return list(seeds)


def read_looks(content: Any) -> list[int]:
    """Rising numbers of seeds, such as [5, 10, 20]; anything else is a `BpgenError`."""
    looks = list(content) if isinstance(content, (list, tuple)) else [content]
    rising = all(type(n) is int and n >= 1 for n in looks) and sorted(set(looks)) == looks
    require(rising, f"looks must be rising numbers of seeds, e.g. [5, 10, 20], got {content!r}.")
    return looks
