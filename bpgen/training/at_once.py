"""When several seeds are trained faster at once than one after the other: a rule of thumb."""

from __future__ import annotations

import torch

SMALL = 2**19  # multiplications in a step's product up to which several seeds at once are faster on a CPU


def slower(multiplications: int, accelerator: str) -> bool:
    """Whether seeds are trained no faster at once, by a rule of thumb that `bpgen bench --seeds` measures.

    A network this large keeps a CPU busy by itself; a GPU is left idle by any single one.
    """
    on_cpu = accelerator == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return on_cpu and multiplications > SMALL
