"""Names of a config's groups, of parts that are chosen, and of runs; standard library only, to be checked at once."""

from __future__ import annotations

import re

from bpgen.errors import require
from bpgen.registry import KindName

CHOSEN: dict[KindName, str] = {"rule": "rflo", "task": "digits", "neuron": "leaky"}  # by name; the defaults
GROUPS = ("network", "loss", "optimizer", "schedule", "trainer", "evaluation", "tracking")  # always there
RUN = ("seed", "name", "out", "wandb", "threads")  # options of the run itself
_LONGEST = 100  # letters of a run's name: file systems allow 255 bytes, and "-2" may follow


def checked_name(name: str) -> str:
    """The name of a run, once it is seen to be safe as that of a folder on any system.

    Raises:
        BpgenError: it is not.
    """
    require(
        re.fullmatch(r"\w[\w.,=+@ -]*(?<![ .])", name) is not None and len(name) <= _LONGEST,
        f"--name must be 1 to {_LONGEST} letters, digits and . , = + @ - _ or spaces, a letter or digit first and no "
        f"dot or space last: it names the run's folder. Got {name!r}; the folder above it is --out.",
    )
    return name
