"""Reading the arrays of an .npz file that anybody may have written, with one clear message for whatever is wrong.

Nothing in it is executed (no pickles), and nothing is allocated that the file does not hold: a header may claim any
shape, an array is read only if the bytes behind it are as many as that shape takes.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from numpy.lib import format as npy
from numpy.typing import NDArray

from bpgen.errors import BpgenError, require

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_AT_ONCE = 2**20  # bytes
_ENCRYPTED = 0x1  # a flag of a member
_CURE = "Write it with numpy.savez(file, x=x, y=y)."


def read_arrays(
    file: Path, needed: Sequence[str], optional: Sequence[str] = (), called: str = "task.file", cure: str = _CURE
) -> dict[str, NDArray[Any]]:
    """The arrays of these names.

    Args:
        file: path of the .npz file.
        needed: names that it must have.
        optional: names that it may have.
        called: what messages call the file.
        cure: their last sentence: how such a file is written.

    Raises:
        BpgenError: it cannot be read, lacks a needed array, or one of these is damaged or no array of plain values.
    """
    try:
        with file.open("rb") as opened:
            single = opened.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX
        require(not single, f"{called} {file} holds one array: write an .npz file with numpy.savez.")
        archive = zipfile.ZipFile(file)
    except OSError as error:
        raise BpgenError(f"cannot read {called} {file}: {error.strerror or error}. {cure}") from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise BpgenError(f"cannot read {called} {file}: it is not an .npz file ({error}). {cure}") from None
    with archive:
        found = [name.removesuffix(".npy") for name in archive.namelist()]
        missing = [name for name in needed if name not in found]
        holds = ", ".join(found[:20]) or "nothing"
        require(not missing, f"{called} {file} lacks {' and '.join(missing)}; it holds {holds}. {cure}")
        return {
            name: _member(archive, name, f"{called} {file}", cure) for name in (*needed, *optional) if name in found
        }


def other_names(file: Path, known: Sequence[str]) -> list[str]:
    """The names of the arrays of a file that was read before, without these."""
    with zipfile.ZipFile(file) as archive:
        found = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    return [name for name in found if name not in known]


def _member(archive: zipfile.ZipFile, name: str, file: str, cure: str) -> NDArray[Any]:
    names = archive.namelist()
    info = archive.getinfo(f"{name}.npy" if f"{name}.npy" in names else name)
    what = f"{name} in {file}"
    require(not info.flag_bits & _ENCRYPTED, f"{what} is encrypted: write the file without a password. {cure}")
    require(
        info.compress_type in _METHODS,
        f"{what} is compressed by method {info.compress_type}, which Python cannot read. {cure}",
    )
    try:
        with warnings.catch_warnings(), archive.open(info) as opened:
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            _require_whole(opened, what, cure)
        with warnings.catch_warnings(), archive.open(info) as opened:
            warnings.simplefilter("ignore")
            return npy.read_array(opened, allow_pickle=False)
    except BpgenError:
        raise
    except MemoryError:
        raise BpgenError(f"{what} takes {info.file_size:,} bytes, more than there is memory.") from None
    except Exception as error:  # whatever a damaged or hostile file makes zlib, zipfile, struct or numpy raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BpgenError(f"{what} is damaged: {reason}. {cure}") from None


def _require_whole(opened: IO[bytes], what: str, cure: str) -> None:
    """See that the bytes behind a header are as many as the array that it describes takes."""
    version = npy.read_magic(opened)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(opened)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(opened)
    else:  # the same but for the encoding of the names of fields, and those are refused
        raise BpgenError(f"{what} is an array of named fields: give plain numbers.")
    require(not dtype.hasobject, f"{what} holds Python objects: give plain numbers. {cure}")
    require(all(side >= 0 for side in shape), f"{what} claims the shape {shape}. {cure}")
    claimed, there = math.prod(shape) * dtype.itemsize, 0
    while there <= claimed and (part := opened.read(_AT_ONCE)):  # what the directory says of its size may be a lie
        there += len(part)
    holds = "more" if there > claimed else f"{there:,}"
    require(claimed == there, f"{what} claims shape {shape} of {dtype}, {claimed:,} bytes, and holds {holds}. {cure}")
