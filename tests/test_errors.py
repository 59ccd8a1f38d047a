import sys
from typing import Literal

import pytest

from bpgen.errors import BpgenError, choice, raised_in

Colour = Literal["red", "green"]


@pytest.mark.parametrize("choices", [Colour, ("red", "green"), {"red": 1, "green": 2}])
def test_a_choice_is_one_of_a_literal_or_of_known_names(choices):
    assert choice("colour", "green", choices) == "green"
    with pytest.raises(BpgenError, match=r"unknown colour 'gren'\. Did you mean 'green'\? Known: green, red\."):
        choice("colour", "gren", choices)


@pytest.mark.parametrize("value", [None, 1, ["red"], {}])
def test_a_value_of_another_type_is_no_choice_either(value):
    with pytest.raises(BpgenError, match="unknown colour"):
        choice("colour", value, {"red": 1})


def test_a_class_typed_into_a_notebook_has_no_file(monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    typed = type("Typed", (), {"__module__": "__main__"})
    assert raised_in(ValueError("no"), typed) is None
