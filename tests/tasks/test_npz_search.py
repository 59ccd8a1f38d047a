"""Files that anybody may have written: each is a task whose data are sound, or one clear message; never anything else.

The grid of dtypes, places and masks counts 651 files; hypothesis goes on from there, and what it found stays as an
example.
"""

import io
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bpgen.errors import BpgenError
from bpgen.tasks.npz import Npz

T, N, I = 4, 9, 2
RANDOM = np.random.default_rng(1)
X = RANDOM.normal(size=(T, N, I))
CLASSES = np.arange(N) % 3
TIMED = RANDOM.integers(0, 3, (T, N))
TRAIN = np.array(["train"] * N)


def written(folder, arrays):
    file = folder / "data.npz"
    with warnings.catch_warnings(action="ignore"):  # of names of fields
        np.savez(file, **arrays)
    return str(file)


def sound_or_refused(file, **options):
    """Whether the file is a task; if it is, its data are sound."""
    try:
        task = Npz(file, **options)
        assert task.describe()
        splits = [task.split(name) for name in ("train", "val", "test") if task.has(name)]
    except BpgenError as error:
        message = str(error)
        assert 20 < len(message) < 700
        assert "Traceback" not in message
        return False
    for x, target, mask in splits:
        assert x.dtype == torch.float32
        assert x.isfinite().all()
        assert target.isfinite().all()
        if not target.is_floating_point():
            assert target.min() >= 0
            assert target.max() < task.n_out <= 1000
        if mask is not None:
            assert mask.isfinite().all()
            assert mask.min() >= 0
            assert mask.max() > 0
    return True


DTYPES = [
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i8", ">f4"),
    *("float16", "float32", "float64", "longdouble", "complex64", "datetime64[s]", "timedelta64[s]", "U3", "S3"),
    "i4,f8",
]
PLACES = ("x", "y", "y timed", "mask", "lengths", "split")
BROAD = {"bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i8"}


def masks():
    ones = np.ones((T, N))
    yield None
    yield ones
    yield np.tril(np.ones((T, N)))[::-1]
    for value in (np.nan, np.inf, -1.0):
        mask = ones.copy()
        mask[0, 3] = value
        yield mask


def cast(values, dtype):
    if dtype == "i4,f8":
        return np.zeros(values.shape, dtype)
    with np.errstate(all="ignore"):
        whole = values.astype(np.int64) if np.dtype(dtype).kind in "iuMm" else values
        return whole.astype(dtype)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_dtype_anywhere_with_any_mask(tmp_path, dtype, place):
    found = []
    for mask in [None] if place == "mask" else masks():
        timed = place in ("y timed", "mask")
        arrays = {"x": X, "y": TIMED if timed else CLASSES, "split": TRAIN}
        if mask is not None:
            arrays["mask"] = mask
        key = place.split()[0]
        original = {"lengths": np.full(N, 2), "mask": np.ones((T, N)), "split": np.ones(N)}.get(key)
        arrays[key] = cast(arrays[key] if original is None else original, dtype)
        found.append(sound_or_refused(written(tmp_path, arrays)))
    numbers = dtype in BROAD or "f" in dtype.replace("i4,f8", "") or dtype == "longdouble"
    if place in ("x", "mask"):
        assert found[0] == numbers
    if place in ("y", "y timed"):
        assert found[0] == (dtype in BROAD)  # whole numbers in floating point are asked about
    if place == "lengths":
        assert found[0] == (dtype in BROAD - {"bool"})
    if place == "split":
        assert not found[0]
    if place != "mask":
        assert not any(found[3:])  # masks of nan, inf and below 0


def members(**parts):
    """An npz of raw members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def npy(header, data=b"", version=b"\x01\x00"):
    text = header.encode()
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text + data


def plain(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def whole(**more):
    file = io.BytesIO()
    np.savez_compressed(file, x=X, y=CLASSES, split=TRAIN, **more)
    return file.getvalue()


def encrypted():
    data = bytearray(whole())
    for at in [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]:
        data[at + 8] |= 1  # of the directory
    return bytes(data)


def method(number):
    data = bytearray(whole())
    for at in [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]:
        data[at + 10 : at + 12] = struct.pack("<H", number)
    return bytes(data)


def broken_zlib():
    data = bytearray(whole())
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        info = archive.getinfo("x.npy")
    start = info.header_offset + 30 + len("x.npy")
    data[start + 4 : start + 60] = zlib.crc32(b"x").to_bytes(4, "little") * 14
    return bytes(data)


HOSTILE = {
    "two billion items": (
        members(x=npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2147483647, 1, 1)}\n"), y=b""),
        "claims shape",
    ),
    "more items than any memory": (
        members(x=npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 1048576, 8)}\n"), y=b""),
        "claims shape",
    ),
    "fewer items than there are bytes": (
        members(x=npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1, 1)}\n", bytes(10**6)), y=b""),
        "holds more",
    ),
    "a shape below zero": (
        members(x=npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 2, 3)}\n"), y=b""),
        "claims the shape",
    ),
    "objects": (
        members(x=npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", b"x"), y=b""),
        "Python objects",
    ),
    "a header that is code": (members(x=npy("__import__('os').system('true')\n"), y=b""), "is damaged"),
    "a header of brackets": (members(x=npy("(" * 9000 + "\n"), y=b""), "is damaged"),
    "a header of version 3": (members(x=npy("{}\n", version=b"\x03\x00"), y=b""), "named fields"),
    "a member that is no npy": (members(x=b"hello", y=b""), "is damaged"),
    "an empty member": (members(x=b"", y=b""), "is damaged"),
    "broken zlib": (broken_zlib(), "is damaged"),
    "encrypted": (encrypted(), "is encrypted"),
    "unknown compression": (method(97), "compressed by method 97"),
    "cut in the middle": (whole()[:400], "is not an .npz file"),
    "text": (b"hello", "is not an .npz file"),
    "nothing": (b"", "is not an .npz file"),
    "one array": (plain(X), "holds one array"),
    "no arrays": (members(), "lacks x and y"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_clear_message(tmp_path, name):
    data, message = HOSTILE[name]
    file = tmp_path / "hostile.npz"
    file.write_bytes(data)
    with pytest.raises(BpgenError, match=message):
        Npz(str(file))


SEARCH = settings(
    max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
SHAPES = st.sampled_from(
    [(), (N,), (T,), (T, N), (N, T), (N, 2), (T, N, I), (N, T, I), (T, N, 1), (0,), (T, 0, I), (1, 1)]
)
ANY = hnp.array_dtypes() | st.sampled_from([np.dtype(d) for d in DTYPES])
FIELD = st.tuples(ANY, SHAPES).flatmap(lambda of: hnp.arrays(of[0], of[1]))


@SEARCH
@example({"x": X, "y": np.full(N, 2**63, np.uint64)})
@example({"x": X, "y": np.array([0, 10**6, 2 * 10**6] * 3)})
@example({"x": X, "y": np.zeros(N, np.int64)})
@example({"x": X, "y": np.zeros((N, 0))})
@example({"x": X, "y": np.float64(1.0)})
@example({"x": X, "y": CLASSES, "lengths": np.zeros(N, int)})
@example({"x": X, "y": CLASSES, "split": np.array([b"\xff"] * N)})
@example({"x": X, "y": CLASSES, "split": np.zeros((), "M8[D],i4")})
@given(
    st.fixed_dictionaries(
        {"x": st.just(X) | FIELD, "y": st.sampled_from([CLASSES, TIMED, X]) | FIELD},
        optional={name: FIELD for name in ("mask", "lengths", "split")},
    )
)
def test_arrays_of_any_kind(tmp_path_factory, arrays):
    sound_or_refused(written(tmp_path_factory.mktemp("any"), arrays))


@SEARCH
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_files_with_changed_bytes(tmp_path_factory, changes, compressed):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, x=X, y=CLASSES, split=TRAIN)
    data = bytearray(file.getvalue())
    for at, byte in changes:
        data[at % len(data)] = byte
    damaged = tmp_path_factory.mktemp("bytes") / "data.npz"
    damaged.write_bytes(bytes(data))
    sound_or_refused(str(damaged))
