"""Charts as numbers on a canvas: every point and line knows the run it comes from. The template draws them as SVG.

A chart is drawn by nobody's library, because a reader has to hover and click the runs in it, offline, and on paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bpgen.analysis.statistics import mean_effect

WIDTH, HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 46
SHAPES = (  # in a box of 8, one for every condition in turn
    "M0-4A4 4 0 1 0 0 4A4 4 0 1 0 0-4Z",
    "M-3.5-3.5H3.5V3.5H-3.5Z",
    "M0-4.5L4 3.5H-4Z",
    "M0-5L4 0L0 5L-4 0Z",
    "M0 4.5L4-3.5H-4Z",
    "M-1.5-4.5H1.5V-1.5H4.5V1.5H1.5V4.5H-1.5V1.5H-4.5V-1.5H-1.5Z",
    "M-4.5-2.5L-2.5-4.5L0-2L2.5-4.5L4.5-2.5L2 0L4.5 2.5L2.5 4.5L0 2L-2.5 4.5L-4.5 2.5L-2 0Z",
)


@dataclass(frozen=True)
class Point:
    """A run at a place; `style` is the number of its condition."""

    run: int
    style: int
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """A run along training; `open` where it has not finished."""

    run: int
    style: int
    xs: Sequence[float]
    ys: Sequence[float]
    text: str
    open: bool = False


@dataclass(frozen=True)
class Bar:
    """A mean with its interval at a place of the x axis, or its mean alone."""

    style: int
    x: float
    mean: float
    low: float
    high: float


@dataclass
class Axis:
    """An axis: what it is called, whether it is logarithmic, and names instead of numbers."""

    label: str
    log: bool = False
    names: Sequence[str] = ()
    low: float = math.inf
    high: float = -math.inf

    def take(self, values: Iterable[float]) -> None:
        """Make room for values."""
        for v in values:
            if self.shows(v):
                self.low, self.high = min(self.low, v), max(self.high, v)

    def shows(self, value: float) -> bool:
        """Whether a value has a place on it."""
        return math.isfinite(value) and (value > 0 or not self.log)

    def close(self) -> None:
        """A little room beyond the outermost values."""
        if self.names:
            self.low, self.high = -0.6, len(self.names) - 0.4
        elif self.low > self.high:
            self.low, self.high = (0.1, 1.0) if self.log else (0.0, 1.0)
        elif self.log:
            grow = max((self.high / self.low) ** 0.06, 1.1)
            self.low, self.high = self.low / grow, self.high * grow
        else:
            spread, size = self.high - self.low, max(abs(self.low), abs(self.high), 1e-9)
            pad = 0.06 * spread if spread > 1e-3 * size else 0.1 * size  # ticks have four digits
            self.low, self.high = self.low - pad, self.high + pad

    def at(self, value: float) -> float:
        """The part of the axis that lies before a value."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """A few round values and how they are written."""
        if self.names:
            return [(i, name if len(name) <= 20 else f"{name[:19]}…") for i, name in enumerate(self.names)]
        values = _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)
        return [(v, f"{v:.0f}" if 1e3 <= abs(v) < 1e6 else f"{v:.4g}") for v in values]


@dataclass
class Chart:
    """One chart; `draw` it once all is in."""

    title: str
    x: Axis
    y: Axis
    note: str = ""
    points: list[Point] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to see."""
        points = any(self.x.shows(p.x) and self.y.shows(p.y) for p in self.points)
        return not points and not any(any(map(self.y.shows, line.ys)) for line in self.lines)

    def draw(self) -> Drawing:
        """Places on the canvas, in pixels."""
        self.x.take([*(p.x for p in self.points), *(v for line in self.lines for v in line.xs)])
        self.y.take([*(p.y for p in self.points), *(v for line in self.lines for v in line.ys)])
        self.y.take(v for bar in self.bars for v in (bar.low, bar.high))
        self.x.close()
        self.y.close()
        return Drawing(
            self.title,
            self.note,
            (self.x.label, self.y.label),
            [(self._px(v), text) for v, text in self.x.ticks()],
            [(self._py(v), text) for v, text in self.y.ticks()],
            [(p, self._px(p.x), self._py(p.y)) for p in self.points if self.x.shows(p.x) and self.y.shows(p.y)],
            [(line, self._path(line)) for line in self.lines],
            [(b, self._px(b.x), self._py(b.mean), self._py(b.low), self._py(b.high)) for b in self.bars],
            self._py(0) if not self.y.log and self.y.low < 0 < self.y.high else None,
            bool(self.x.names),
            bottom=HEIGHT - self._below,
        )

    @property
    def _below(self) -> int:
        longest = max((min(len(name), 20) for name in self.x.names), default=0)
        return 26 + 3 * longest if longest else _BOTTOM  # they stand aslant

    def _px(self, value: float) -> float:
        return round(_LEFT + self.x.at(value) * (WIDTH - _LEFT - _RIGHT), 1)

    def _py(self, value: float) -> float:
        return round(HEIGHT - self._below - self.y.at(value) * (HEIGHT - _TOP - self._below), 1)

    def _path(self, line: Line) -> str:
        seen = [(x, y) for x, y in zip(line.xs, line.ys, strict=True) if self.x.shows(x) and self.y.shows(y)]
        every = max(1, len(seen) // 60)  # a screen shows no more, and 300 runs have to fit into one page
        kept = [place for i, place in enumerate(seen) if i % every == 0 or i == len(seen) - 1]
        return "M" + "L".join(f"{self._px(x):g} {self._py(y):g}" for x, y in kept) if kept else ""


@dataclass(frozen=True)
class Drawing:
    """A chart on its canvas: everything the template writes out."""

    title: str
    note: str
    labels: tuple[str, str]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    points: list[tuple[Point, float, float]]
    lines: list[tuple[Line, str]]
    bars: list[tuple[Bar, float, float, float, float]]
    zero: float | None
    named: bool
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


def interval_bar(style: int, x: float, values: Sequence[float]) -> Bar | None:
    """Mean and 95 % interval over runs; nothing for fewer than three."""
    finite = [v for v in values if math.isfinite(v)]
    if len(finite) < 3:
        return None
    effect = mean_effect(dict(enumerate(finite)), len(finite))
    return Bar(style, x, effect.estimate, *effect.interval())


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    raw = (high - low) / most
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= raw)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    if high < 10 * low:
        return [v for v in _ticks(low, high) if v > 0]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
        values = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(values) >= 3:
            return values[:: max(1, -(-len(values) // 7))]
    return _ticks(low, high)
