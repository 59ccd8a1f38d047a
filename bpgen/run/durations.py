"""Times as people say them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Of a run or a study: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def brief(seconds: float) -> str:
    """Of a step or an evaluation: 3.2 ms, 0.18 s, 12 min."""
    return f"{1000 * seconds:.2g} ms" if seconds < 0.0995 else f"{seconds:.2g} s" if seconds < 90 else duration(seconds)
