"""How far a share of a finite number of sequences can be from the share that it estimates."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z = 1.959963984540054  # of a normal distribution's middle 95 %


def wilson(share: ArrayLike, n: int, z: float = Z) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The interval of E. B. Wilson (1927), J. Am. Stat. Assoc. 22:209, for a share of n independent sequences.

    A mean over n numbers between 0 and 1, such as shares of steps that are right, varies at most as much as a share of
    n that are 0 or 1: for such a mean the interval is too wide rather than too narrow.

    Args:
        share: between 0 and 1.
        n: independent sequences.
        z: half width of the interval of a standard normal number.

    Returns:
        Lower and upper ends, shaped as the share.
    """
    p = np.asarray(share, dtype=float)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return middle - half, middle + half
