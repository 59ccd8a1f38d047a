"""Where commands write: the console of all of them; a folder, JSON, and threads of those that measure networks."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgen.errors import BpgenError, require
from bpgen.threads import MOST, using

if TYPE_CHECKING:
    from rich.console import Console

    from bpgen.run.replay import SavedSteps


def console(**options: Any) -> Console:
    """Standard output, for tables; in the order of what else is printed in a Jupyter notebook, too.

    Args:
        **options: of rich's console.
    """
    from rich.console import Console

    return Console(highlight=False, force_jupyter=False, **options)


def folder(name: str | None) -> Path | None:
    """The folder to write to, made before anything is measured.

    Raises:
        BpgenError: it cannot be made.
    """
    if name is None:
        return None
    path = Path(name).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BpgenError(f"cannot write to {name}: {error.strerror}. Choose another --out.") from None
    return path


@contextmanager
def on_threads(saved: SavedSteps, samples: int, options: Namespace) -> Iterator[None]:
    """Measure on so many samples with the threads that were asked for, or that suit the run's networks."""
    few = options.threads is None or 1 <= options.threads <= MOST
    require(few, f"--threads must be from 1 to {MOST}, got {options.threads}.")
    n_rec = int(saved.folder.plain_config()["network"].get("n_rec", 128))
    with using(options.threads, samples * n_rec**2) as chosen:
        if chosen is not None and not options.json:
            print(chosen, file=sys.stderr)
        yield


def head_of(saved: SavedSteps) -> dict[str, Any]:
    """Which run it is."""
    config = saved.folder.config()
    return {
        "run": str(saved.folder.path),
        "task": config.task.name,
        "rule": config.rule.name,
        "seed": config.seed,
    }
