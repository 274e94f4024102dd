# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever extents a file has, each backend makes the same file of it."""

import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import virmirror
from virmirror import _core

BLOCK = 4096
METHODS = ["io_uring", "copy_file_range", "threads"]

# what an extent may be: far apart or next to each other, odd or aligned, full of zeros
LENGTHS = st.one_of(st.integers(1, 3 * BLOCK), st.sampled_from([BLOCK, 16 * BLOCK, 300 * BLOCK]))
EXTENTS = st.lists(
    st.tuples(st.integers(0, 40 * BLOCK), LENGTHS, st.booleans(), st.integers(0, 2**32)),
    max_size=12,
)


def make(path, extents, rest):
    """Write a file of (hole before it, length, whether zeros, seed)."""
    at = 0
    with path.open("wb") as file:
        for hole, length, zeros, seed in extents:
            at += hole
            file.seek(at)
            file.write(bytes(length) if zeros else random.Random(seed).randbytes(length))
            at += length
        file.truncate(at + rest)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def extents_of(path):
    found, at = [], 0
    with path.open("rb") as file:
        while True:
            try:
                begin = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return found
            at = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            found.append((begin, at))


@pytest.mark.parametrize("method", METHODS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(extents=EXTENTS, rest=st.integers(0, 20 * BLOCK), old=st.integers(0, 30 * BLOCK))
def test_copy_of_any_extents_is_the_same(tmp_path, method, extents, rest, old):
    source, destination = tmp_path / "source", tmp_path / "destination"
    make(source, extents, rest)
    destination.write_bytes(b"\xff" * old)  # must not show through
    report = _core._copy_by(source, destination, method)
    assert report.method == method
    assert destination.read_bytes() == source.read_bytes()
    assert extents_of(destination) == extents_of(source)
    assert report.checksum == virmirror.checksum(destination)


def test_copy_by_no_method_is_refused(tmp_path):
    with pytest.raises(virmirror.SpecError):
        _core._copy_by(tmp_path, tmp_path, "magic")
