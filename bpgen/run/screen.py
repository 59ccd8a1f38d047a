"""Where a user reads what is printed: what a bar has to know before it draws itself over and over."""

from __future__ import annotations

import os
import sys


def at_a_terminal() -> bool:
    """Whether what is printed can be taken back: not in a file, nor below a cell of a notebook (`!bpgen fit`)."""
    return sys.stderr.isatty() and "JPY_PARENT_PID" not in os.environ


def in_notebook() -> bool:
    """Whether this process is the kernel of a Jupyter notebook."""
    interactive = sys.modules.get("IPython")
    shell = None if interactive is None else interactive.get_ipython()
    return getattr(shell, "kernel", None) is not None
