"""One sheet as several pictures."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pandas as pd
from PIL import Image

from bpgen.figures.cut import cut, write_png
from bpgen.figures.run import run_figures
from bpgen.figures.style import DPI


def test_every_panel_is_cut_out_under_the_title() -> None:
    """Panels are plain numbers, the title 9 in its middle and 8 at both ends."""
    title = np.full((DPI, 8, 3), 8, np.uint8)
    title[:, 2:6] = 9
    rows = [
        np.repeat(np.array(row, np.uint8), 4)[None, :, None].repeat(5, 0).repeat(3, 2)
        for row in ((1, 2), (3, 0), (4, 5))
    ]
    found = cut(np.concatenate([title, *rows]), ["a", "b", "c", None, "d", "e"], 2, 3, 1.0)
    assert list(found) == ["overview", "a", "b", "c", "d", "e"]
    assert found["overview"].shape == (DPI + 10, 8, 3)  # two rows of panels
    for number, name in enumerate("abcde", start=1):
        assert found[name].shape == (DPI + 5, 4, 3)
        assert (found[name][:DPI] == 9).all()
        assert (found[name][DPI:] == number).all()


def test_a_picture_is_a_part_of_the_overview_and_survives_the_disk() -> None:
    """The first panel is the upper left one; nothing reaches from one panel into the next."""
    columns = ("train/loss", "train/accuracy", "gap/accuracy", "gap/loss", "alignment/rho", "alignment/cosine")
    found = run_figures(pd.DataFrame({"step": [0, 1], "lr": 0.1, **dict.fromkeys(columns, 0.5)}), "mine")
    own, overview = found["performance"], found["overview"]
    height, width = own.shape[:2]
    band = height - (overview.shape[0] - height)  # the overview has two rows and one title
    assert np.array_equal(overview[band:height, :width], own[band:])
    assert (own[:, [0, -1]] == 255).all()
    assert (own[-1] == 255).all()
    file = BytesIO()
    write_png(own, file)
    assert np.array_equal(np.asarray(Image.open(file)), own)
