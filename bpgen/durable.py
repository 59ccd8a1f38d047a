"""One way to write a file: whole or not at all, and on the disk before anything relies on it.

What is to be written is made in memory first, so that all that can go wrong on the way to the disk is an `OSError`. It
goes to a temporary file beside the target (never on another file system), is flushed and synced, and takes the place of
the target at once. So a reader finds the file as it was before or as it is now, whenever a process is killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from bpgen.errors import BpgenError

Content = str | bytes | Callable[[IO[bytes]], Any]


class NotWritten(BpgenError):
    """A file could not be written: the disk is full, the folder is gone, or it may not be written."""


def write(file: Path, content: Content, keep: Path | None = None) -> None:
    """Write a file whole or not at all.

    Args:
        file: the target.
        content: text, bytes, or what writes them to an open file.
        keep: where the file that is there so far is kept; None replaces it.

    Raises:
        NotWritten: the target stands as it was before, or at `keep`.
    """
    data = _bytes(content)
    part = file.with_name(f".{file.name}.part")
    try:
        with open(part, "wb") as handle:
            _to_disk(handle, data)
        if keep is not None and file.exists():
            os.replace(file, keep)
        os.replace(part, file)
        _sync_folder(file.parent)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise _failed(file, error) from error


def append(file: Path, text: str) -> None:
    """Add text to a file, and make it reach the disk.

    Raises:
        NotWritten: the file may end in a part of the text.
    """
    try:
        with open(file, "ab") as handle:
            _to_disk(handle, text.encode())
    except OSError as error:
        raise _failed(file, error) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        NotWritten: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _failed(path, error) from error


def _to_disk(handle: IO[bytes], data: bytes) -> None:
    handle.write(data)
    handle.flush()
    os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a new name reach the disk; some file systems, and Windows, cannot be asked to."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bytes(content: Content) -> bytes:
    if callable(content):
        memory = BytesIO()
        content(memory)
        return memory.getvalue()
    return content.encode() if isinstance(content, str) else content


def _failed(file: Path, error: OSError | ValueError) -> NotWritten:
    gone = isinstance(error, FileNotFoundError) and not file.parent.is_dir()
    reason = "its folder is gone" if gone else getattr(error, "strerror", None) or str(error)
    return NotWritten(f"cannot write {file}: {reason}.")
