"""Lightning's `Callback` as the base of bpgen's own, joined once Lightning is there.

Parser, help and config read measurements for their options only, and Lightning takes longer to import than all else
together. So a class derives from the `Callback` here, which becomes a child of Lightning's as soon as
`bpgen.training.module` brings Lightning in: before anything is trained, and whatever was imported first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:

    class _Unjoined:
        """Stands in for Lightning's class."""

    class Callback(_Unjoined):
        """See the module's docstring."""


def join(lightnings: type) -> None:
    """Make every callback of bpgen, and every stranger's measurement, one of Lightning's."""
    Callback.__bases__ = (lightnings,)
