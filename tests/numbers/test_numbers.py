"""Gradients, curvature and stability of every rule and neuron are what they were, to 1e-12."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.numbers import record

KNOWN: dict[str, Any] = json.loads(gzip.decompress(record.FILE.read_bytes()))
EVERY = (
    23  # one case in so many in the short form; a prime, so that every rule, neuron, loss and situation has its turn
)


def differs(name: str) -> str:
    """What has changed in a case, or nothing."""
    what, *where = name.split(" | ")
    if what == "curvature":
        got = record.of_curvature(*where)
    elif what == "stability":
        got = record.of_stability(*where)
    else:
        got = record.of_gradients(what, *where)
    known = KNOWN[name]
    if isinstance(got, str) or isinstance(known, str):
        return "" if got == known else f"{name}: {got}, was {known}"
    loose = 1e-9 if what in ("curvature", "stability") else 1e-12  # eigenvalues are found to 1e-10
    same = got == pytest.approx(known, rel=loose, abs=loose * max(1.0, *map(abs, known)))
    return "" if same else f"{name}: {got}, was {known}"


def test_a_sample_of_the_numbers_stands() -> None:
    assert not [text for name in list(KNOWN)[::EVERY] if (text := differs(name))]


@pytest.mark.slow
def test_all_numbers_stand() -> None:
    assert not [text for name in KNOWN if (text := differs(name))]


def test_the_comparison_sees_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(KNOWN))
    monkeypatch.setitem(KNOWN, name, [value + 1e-9 for value in KNOWN[name]])
    assert differs(name)
