"""Lightning's `Callback` as the base of bpgen's own, joined once Lightning is there.

Parser, help and config read measurements for their options only, and Lightning takes longer to import than all else
together. So a class derives from the `Callback` here, which becomes a child of Lightning's as soon as
`bpgen.training.module` brings Lightning in: before anything is trained, and whatever was imported first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    LightningModule = Trainer = Any  # jsonargparse imports what a module with options imports for type checkers

    class _Unjoined:
        """Stands in for Lightning's class."""

    class Callback(_Unjoined):
        """See the module's docstring."""


def join(lightnings: type) -> None:
    """Make every callback of bpgen, and every stranger's measurement, one of Lightning's."""
    Callback.__bases__ = (lightnings,)
