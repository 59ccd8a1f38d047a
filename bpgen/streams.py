"""Independent random streams: one for each (seed, purpose, counter), so no draw shifts another.

The same seed therefore gives the same initial weights, batches and test noise under every rule, and a resumed
run needs no saved random state: what is drawn at step k is a function of k.
"""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A fresh CPU generator for `purpose` ("init", "order", "feedback", "draws", ...).

    Args:
        seed: the run's seed.
        purpose: what the numbers are for.
        counters: where along the run, e.g. the epoch or the step.
    """
    key = "/".join(map(str, (seed, purpose, *counters)))
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
