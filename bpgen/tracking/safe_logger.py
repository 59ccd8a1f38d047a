"""Lightning's logger of W&B, made safe: nothing that W&B does stops a run or keeps it waiting."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from lightning.pytorch.loggers import WandbLogger

_PATIENCE = 5.0  # seconds
_SEND = "wandb sync"  # in what W&B says when it could not send everything


class SafeLogger(WandbLogger):
    """W&B's logger that never stops a run: when W&B fails, that is said once, and the run goes on without it.

    Args:
        run: an open W&B run.
        say: where lines for the user go.
        config: of the run, as it was logged.
        artifacts: whether files and tables of the run are wanted.
    """

    def __init__(self, run: Any, say: Callable[[str], None], config: Mapping[str, Any], artifacts: bool) -> None:
        super().__init__(experiment=run)
        self.say, self.config, self.artifacts, self.failed, self.answered = say, config, artifacts, False, True

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Hand on a row of numbers."""
        self._try(lambda: super(SafeLogger, self).log_metrics(metrics, step))

    def log_figures(self, pictures: Mapping[Path, str]) -> None:
        """Hand on pictures, each with its caption, all in one step: W&B shows them side by side."""
        from wandb import Image

        def hand_on() -> None:
            self.experiment.log({f"figures/{p.stem}": Image(str(p), caption=text) for p, text in pictures.items()})

        if pictures:
            self._try(hand_on)

    def log_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Hand on a table; what a row lacks stays empty."""
        from wandb import Table

        columns: list[Any] = list(dict.fromkeys(column for row in rows for column in row))
        data = [[row.get(column) for column in columns] for row in rows]
        if columns:
            self._try(lambda: self._soon(lambda: self.experiment.log({name: Table(columns=columns, data=data)})))

    def sum_up(self, numbers: Mapping[str, Any], notes: str) -> None:
        """Put numbers into the summary, and a text beside the run."""
        run = self.experiment

        def put() -> None:
            run.summary.update(numbers)
            run.notes = notes

        self._try(put)

    def keep_files(self, name: str, kind: str, contents: Mapping[str, Path | str]) -> None:
        """Hand on files as one artifact of the run.

        Args:
            name: of the artifact, before the W&B run's id.
            kind: its type in W&B.
            contents: by place in the artifact, a file that stays as it is, or the text of one.
        """
        from wandb import Artifact

        def hand_on() -> None:
            artifact = Artifact(f"{name}-{self.experiment.id}", kind)
            for place, content in contents.items():
                if isinstance(content, Path):
                    artifact.add_file(str(content), place, policy="immutable", skip_cache=True)
                else:
                    with artifact.new_file(place, encoding="utf-8") as file:
                        file.write(content)
            self.experiment.log_artifact(artifact)

        self._try(lambda: self._soon(hand_on))

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

    def _soon(self, act: Callable[[], None]) -> None:
        """Do what has W&B ask its server before it goes on, and go on without it when there is no answer."""
        failures: list[Exception] = []

        def guarded() -> None:
            try:
                act()
            except Exception as error:
                failures.append(error)

        worker = Thread(target=guarded, daemon=True)
        if self.answered:
            worker.start()
            worker.join(_PATIENCE)
            self.answered = not worker.is_alive()
        if failures:
            raise failures[0]

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
