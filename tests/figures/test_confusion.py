"""The figure of confused classes."""

from __future__ import annotations

import pandas as pd

from bpgen.figures.confusion import confusion_figure


def test_a_class_that_nobody_asks_for_or_answers_is_left_out() -> None:
    """Labels may begin at 1; class 3 is never answered, and stays."""
    rows = [("test", t, a, 5 * (t > 0 and a not in (0, 3))) for t in range(4) for a in range(4)]
    figure = confusion_figure(pd.DataFrame(rows, columns=["split", "target", "answer", "n"]), "mine")
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "2", "3"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "3"]
    assert ax.images[0].get_array().shape == (3, 3)  # type: ignore[union-attr]
    assert sorted(text.get_text() for text in ax.texts) == ["5"] * 6
