"""IDX files, the format of MNIST, gzip-compressed or not, read with numpy alone.

Source: Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits", section "The IDX
file format": two zero bytes, a byte for the type of the values (8: unsigned bytes), a byte for the number of
axes, the length of each axis as a big-endian 32-bit integer, then the values, last axis fastest.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bpgen.errors import BpgenError, require

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 8


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The unsigned bytes in the IDX file `path`, uint8 of `shape`, read-only.

    Raises:
        BpgenError: the file is missing, may not be read, is a damaged gzip, is not IDX with this number of
            axes, or has another shape or size.
    """
    try:
        data = unpack(path.read_bytes())
    except FileNotFoundError:
        raise BpgenError(f"{path} does not exist. Expected an IDX file: check the path.") from None
    except PermissionError:
        raise BpgenError(
            f"no permission to read {path}. Allow it (chmod u+r) or copy the file to a folder of yours."
        ) from None
    except OSError as error:
        raise BpgenError(f"cannot read {path}: {error.strerror}. Expected an IDX file.") from error
    except ValueError as error:
        raise BpgenError(f"{path} is a damaged gzip file ({error}). Copy or download it again.") from error

    magic = bytes([0, 0, _UNSIGNED_BYTE, len(shape)])
    require(
        data.startswith(magic),
        f"{path} begins with {data[:4].hex(' ') or 'nothing'}; an IDX file of unsigned bytes on {len(shape)} "
        f"axes begins with {magic.hex(' ')}. Check that this is the right file.",
    )
    n_header = len(magic) + 4 * len(shape)
    require(len(data) >= n_header, f"{path} ends inside its header. Copy or download it again.")
    found = tuple(np.frombuffer(data[len(magic) : n_header], ">u4").tolist())
    require(
        found == shape,
        f"{path} says that it holds {_times(found)} values, expected {_times(shape)}. "
        f"Check that this is the right file.",
    )
    n_values, n_expected = len(data) - n_header, math.prod(shape)
    require(
        n_values == n_expected,
        f"{path} holds {n_values} values, its header promises {n_expected} ({_times(shape)}). "
        f"Copy or download it again.",
    )
    return np.frombuffer(data, np.uint8, offset=n_header).reshape(shape)


def unpack(raw: bytes) -> bytes:
    """`raw` as it is, or what it holds when its content, not its name, says that it is gzip-compressed.

    Raises:
        ValueError: compressed, but cut short or corrupt.
    """
    if not raw.startswith(_GZIP_MAGIC):
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{error}".rstrip(".")) from error


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
