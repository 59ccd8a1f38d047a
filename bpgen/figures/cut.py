"""One sheet of panels as several pictures: a panel is drawn once, and found in the overview and in one of its own.

Drawing text and ticks is what a picture costs, so that five panels are drawn in half the time of nine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from bpgen.figures.style import DPI

Pixels = NDArray[np.uint8]  # [height, width, 3]


def pixels(figure: Figure) -> Pixels:
    """A figure, drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def write_png(picture: Pixels, file: IO[bytes]) -> None:
    """Write a picture; more compression takes three times as long for a tenth of the size."""
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "png", dpi=(DPI, DPI), compress_level=3)


def cut(sheet: Pixels, panels: Sequence[str | None], columns: int, first: int, title: float) -> dict[str, Pixels]:
    """The pictures that a sheet holds: "overview" and every panel alone, with the title above it.

    Args:
        sheet: panels of one size in rows, below a title.
        panels: names of all of them, row by row; None where there is none.
        columns: panels in a row.
        first: how many of them are the overview.
        title: its height in inches.
    """
    below = round(title * DPI)
    rows = -(-len(panels) // columns)
    height, width = (len(sheet) - below) // rows, sheet.shape[1] // columns
    begin = (sheet.shape[1] - width) // 2  # the title stands in the middle
    pictures = {"overview": sheet[: below + height * -(-first // columns)]}
    for i, name in enumerate(panels):
        if name is not None:
            row, column = divmod(i, columns)
            top, left = below + row * height, column * width
            own = sheet[top : top + height, left : left + width]
            pictures[name] = np.concatenate([sheet[:below, begin : begin + width], own])
    return pictures
