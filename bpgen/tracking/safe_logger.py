"""Lightning's logger of W&B, made safe: nothing that W&B does stops a run or keeps it waiting."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, suppress
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

_SEND = "wandb sync"  # in what W&B says when it could not send everything


class SafeLogger(WandbLogger):
    """W&B's logger that never stops a run: when W&B fails, that is said once, and the run goes on without it.

    Args:
        run: an open W&B run.
        say: where lines for the user go.
    """

    def __init__(self, run: Any, say: Callable[[str], None]) -> None:
        super().__init__(experiment=run)
        self.say, self.failed = say, False

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Hand on a row of numbers."""
        self._try(lambda: super(SafeLogger, self).log_metrics(metrics, step))

    def log_image(self, key: str, images: list[Any], step: int | None = None, **options: Any) -> None:
        """Hand on pictures."""
        self._try(lambda: super(SafeLogger, self).log_image(key, images, step, **options))

    def keep_extremes(self, columns: Iterable[str]) -> None:
        """Let the summary of the W&B run hold minimum, maximum and last of what is measured.

        Performance stays a plain number, its last, since a sweep's metric reads that.
        """
        for column in columns:  # by name: which of two patterns that fit wins is W&B's secret
            if column.partition("/")[0] not in ("train", "val", "test", "test_noisy"):
                define = self.experiment.define_metric
                self._try(partial(define, column, step_metric="step", summary="min,max,last"))

    def finish(self, status: str) -> None:
        """Close the W&B run with the status of the run: anything but "finished" is a failed one for W&B.

        If not everything could be sent in time, one line says where it is and what to do.
        """
        run, heard = self.experiment, io.StringIO()

        def close() -> None:
            run.summary["status"] = status
            try:
                run.finish(exit_code=0 if status == "finished" else 1)
            except TimeoutError:
                heard.write(_SEND)

        with redirect_stderr(heard):  # W&B says several lines of its own
            self._try(close)
        if self.failed:
            return
        if _SEND not in heard.getvalue():
            sys.stderr.write(heard.getvalue())
            return
        left = Path(run.settings.sync_dir)
        size = sum(file.stat().st_size for file in left.rglob("*") if file.is_file() and not file.is_symlink())
        self.say(
            f"W&B's server did not take the whole run: it is kept in {left} ({size / 1e6:.1f} MB); "
            f"`{_command(left)}` sends it later"
        )

    def _try(self, act: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            act()
        except Exception as error:  # whatever it is, it is W&B's: the run's own files are written before
            import wandb

            self.failed = True
            with suppress(Exception):
                wandb.teardown()  # or it fails once more when Python exits
            left = Path(self.experiment.settings.sync_dir)
            self.say(
                f"W&B has stopped working ({type(error).__name__}): the run goes on without it; "
                f"`{_command(left)}` sends what it has written"
            )


def _command(folder: Path) -> str:
    """What sends a W&B run; those that were online once are passed over without being asked for."""
    return f"wandb sync {'' if folder.name.startswith('offline-') else '--include-online '}{folder}"
