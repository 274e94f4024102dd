# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nothing is copied over itself, whatever stands between the two."""

import ctypes
import fcntl
import os
import pathlib
import struct
import subprocess

import pytest

import virmirror
from support import storage

MIB = 1024 * 1024
# linux/blkpg.h
BLKPG = 0x1269
BLKPG_ADD_PARTITION = 1
REFUSED = "are on the same storage"


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(os.urandom(4 * MIB))
    return path


def refuse(source, destination):
    """The copy is refused, and neither file is changed."""
    before = pathlib.Path(source).read_bytes()
    with pytest.raises(virmirror.SpecError, match=REFUSED):
        virmirror.copy(source, destination, overwrite=True)
    assert pathlib.Path(source).read_bytes() == before


def add_partition(device, number):
    """Have the kernel know of a partition of 1 MiB; not all of them read tables.

    As addpart does, which Debian 13 does not have any more.
    """
    partition = ctypes.create_string_buffer(
        struct.pack("@qqi64s64s4x", number * MIB, MIB, number, b"", b"")
    )
    size, address = ctypes.sizeof(partition), ctypes.addressof(partition)
    request = struct.pack("@iiiP", BLKPG_ADD_PARTITION, 0, size, address)
    with open(device, "rb") as file:
        fcntl.ioctl(file, BLKPG, request)
    path = pathlib.Path(f"{device}p{number}")
    assert path.is_block_device()
    return path


def test_copy_onto_a_loop_device_over_the_source_is_refused(image):
    with storage.loop_device(image) as device:
        refuse(image, device)
        refuse(device, image)


def test_copy_between_two_loop_devices_over_one_file_is_refused(image):
    with storage.loop_device(image) as one, storage.loop_device(image) as other:
        refuse(one, other)


def test_copy_onto_a_loop_device_over_a_loop_device_over_the_source_is_refused(image):
    with storage.loop_device(image) as lower, storage.loop_device(lower) as upper:
        refuse(image, upper)


def test_copy_onto_a_partition_of_a_loop_device_over_the_source_is_refused(image):
    small = image.with_name("small")
    small.write_bytes(bytes(MIB))
    with storage.loop_device(image, partitions=True) as device:
        first, second = (add_partition(device, number) for number in (1, 2))
        refuse(image, first)
        refuse(device, first)
        refuse(first, image)
        # the two are no more the same than two disks are
        virmirror.copy(small, first, overwrite=True)
        virmirror.copy(first, second, overwrite=True)


def test_copy_onto_what_the_source_lies_in_is_refused(image, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with storage.mounted(image, folder):
        (folder / "source").write_bytes(b"data")
        refuse(folder / "source", image)


def test_copy_between_loop_devices_over_two_files_is_made(image, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(bytes(4 * MIB))
    with storage.loop_device(image) as one, storage.loop_device(other) as two:
        virmirror.copy(one, two, overwrite=True)
        subprocess.run(["blockdev", "--flushbufs", two], check=True)
    assert other.read_bytes() == image.read_bytes()
