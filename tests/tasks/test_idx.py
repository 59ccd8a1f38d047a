"""IDX files: read back what was written, and name every fault."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bpgen.errors import BpgenError
from bpgen.tasks.idx import read_idx

VALUES = np.random.default_rng(0).integers(0, 256, (5, 3, 2), dtype=np.uint8)
HEADER = bytes([0, 0, 8, 3]) + np.array(VALUES.shape, ">u4").tobytes()
PLAIN = HEADER + VALUES.tobytes()
GZIPPED = gzip.compress(PLAIN)


def flipped(raw, position):
    return raw[:position] + bytes([raw[position] ^ 0xFF]) + raw[position + 1 :]


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize("raw", [PLAIN, GZIPPED], ids=["plain", "gzipped"])
def test_content_and_not_the_name_decides_on_gzip(tmp_path, name, raw):
    path = tmp_path / name
    path.write_bytes(raw)
    found = read_idx(path, VALUES.shape)
    np.testing.assert_array_equal(found, VALUES)
    assert found.dtype == np.uint8


FAULTS = {
    "empty": (b"", "begins with nothing"),
    "a web page": (b"<!DOCTYPE html>", "begins with 3c 21 44 4f.*begins with 00 00 08 03"),
    "signed bytes": (flipped(PLAIN, 2), "unsigned bytes"),
    "labels for images": (bytes([0, 0, 8, 1, 0, 0, 0, 5]) + bytes(5), "on 3 axes begins with 00 00 08 03"),
    "cut in the header": (PLAIN[:10], "inside its header"),
    "cut": (PLAIN[:-1], "holds 29 values, its header promises 30"),
    "too long": (PLAIN + b"\0", "holds 31 values, its header promises 30"),
    "another shape": (PLAIN.replace(b"\5", b"\6", 1), "holds 6 x 3 x 2 values, expected 5 x 3 x 2"),
    "gzip, cut after its magic": (GZIPPED[:2], "damaged gzip"),
    "gzip, cut in its header": (GZIPPED[:7], "damaged gzip"),
    "gzip, cut in its data": (GZIPPED[:-20], "damaged gzip"),
    "gzip, cut in its checksum": (GZIPPED[:-3], "damaged gzip"),
    "gzip, wrong checksum": (flipped(GZIPPED, len(GZIPPED) - 6), "damaged gzip"),
    "gzip, wrong data": (flipped(GZIPPED, 12), "damaged gzip"),
    "gzip, something behind": (GZIPPED + b"more", "damaged gzip"),
    "gzip of a cut file": (gzip.compress(PLAIN[:-1]), "holds 29 values"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_content_is_named(tmp_path, fault):
    raw, message = FAULTS[fault]
    path = tmp_path / "images"
    path.write_bytes(raw)
    with pytest.raises(BpgenError, match=message) as caught:
        read_idx(path, VALUES.shape)
    assert str(path) in str(caught.value)
    assert str(caught.value).count("\n") <= 1


def test_missing_file(tmp_path):
    with pytest.raises(BpgenError, match="nothing_here does not exist"):
        read_idx(tmp_path / "nothing_here", VALUES.shape)


def test_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(BpgenError, match=r"cannot read .*directory"):
        read_idx(tmp_path, VALUES.shape)


def test_no_permission(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything
    with pytest.raises(BpgenError, match=r"no permission to read .*images.*chmod"):
        read_idx(tmp_path / "images", VALUES.shape)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission_on_disk(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(PLAIN)
    path.chmod(0)
    with pytest.raises(BpgenError, match="no permission to read"):
        read_idx(path, VALUES.shape)


SEARCH = settings(max_examples=200, deadline=None, database=None, derandomize=True)
changes = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=4)


@SEARCH
@example([(4, 255), (5, 255), (6, 255), (7, 255)], 0, b"", False)  # four billion images
@example([(3, 0)], 0, b"", True)  # no axes
@example([], 0, bytes(10**6), True)
@given(changes, st.integers(0, 50), st.binary(max_size=9), st.booleans())
def test_bytes_changed_cut_and_added_are_read_or_named(tmp_path_factory, changed, cut, more, zipped):
    """What is read is what stands there; anything else is one message, whatever the header claims."""
    data = bytearray(GZIPPED if zipped else PLAIN)
    for at, byte in changed:
        data[at % len(data)] = byte
    path = tmp_path_factory.mktemp("idx") / "images"
    path.write_bytes(bytes(data[: len(data) - cut] if cut else data) + more)
    refused = ""
    try:
        found = read_idx(path, VALUES.shape)
    except BpgenError as error:
        refused = str(error)
    if refused:
        assert str(path) in refused
        assert len(refused) < 700
        return
    assert (found.shape, found.dtype) == (VALUES.shape, np.uint8)
    assert zipped or found.tobytes() == path.read_bytes()[-VALUES.size :]


@SEARCH
@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_are_no_images(tmp_path_factory, data, zipped):
    path = tmp_path_factory.mktemp("idx") / "images"
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(BpgenError, match="images"):
        read_idx(path, VALUES.shape)
