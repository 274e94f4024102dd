# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies on block devices, and on a file system where files can share their data."""

import os
import pathlib
import subprocess
import time

import pytest

import virmirror
from support import storage
from support.patience import PATIENCE
from virmirror import _core

KIB = 1024
MIB = 1024 * KIB
SIZE = 5 * MIB + 3 * 512


@pytest.fixture
def source(tmp_path):
    """Return a file with holes, one of which it begins with."""
    path = tmp_path / "source"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for at in (128 * KIB, 2 * MIB, SIZE - 700):
            file.seek(at)
            file.write(os.urandom(700))
        file.flush()
        os.fsync(file.fileno())
    return path


def blocks_shared(path):
    """Whether the kernel says of an extent of the file that others have it, too."""
    command = ["filefrag", "-v", path]
    return "shared" in subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def reflinking(tmp_path):
    folder = tmp_path / "xfs"
    folder.mkdir()
    with storage.xfs(tmp_path / "image", folder):
        yield folder


def copied_inside(source, folder):
    """Copy the source into the folder, for a source on the same file system."""
    path = folder / "source"
    virmirror.copy(source, path)
    return path


def test_copy_where_files_can_share_shares(source, reflinking):
    inside = copied_inside(source, reflinking)
    destination = reflinking / "destination"
    report = virmirror.copy(inside, destination)
    assert (report.method, report.copied, report.checksum) == ("reflink", 0, None)
    assert destination.read_bytes() == source.read_bytes()
    assert blocks_shared(destination)
    assert os.getxattr(destination, "user.virmirror.copy").startswith(b"2 complete ")


def test_copy_that_shares_over_a_longer_file_has_the_right_size(source, reflinking):
    inside = copied_inside(source, reflinking)
    destination = reflinking / "destination"
    destination.write_bytes(b"\xff" * 8 * MIB)
    virmirror.copy(inside, destination, overwrite=True)
    assert destination.read_bytes() == source.read_bytes()


def test_copy_that_shares_verified_tells_the_checksum(source, reflinking):
    inside = copied_inside(source, reflinking)
    report = virmirror.copy(inside, reflinking / "destination", verify=True)
    assert (report.method, report.verified) == ("reflink", True)
    assert report.checksum == virmirror.checksum(source)


@pytest.mark.parametrize("pace", ["auto", "full"])
def test_copy_without_reflink_shares_nothing(source, reflinking, pace):
    inside = copied_inside(source, reflinking)
    destination = reflinking / "destination"
    report = virmirror.copy(inside, destination, reflink=False, pace=pace)
    assert report.method in ("io_uring", "threads")
    assert not blocks_shared(destination)
    assert destination.read_bytes() == source.read_bytes()


def test_copy_by_reflink_only_where_it_cannot_be_is_refused(source, tmp_path):
    destination = tmp_path / "destination"
    with pytest.raises(virmirror.NotSupportedError):
        _core._copy_by(source, destination, "reflink")
    assert not destination.exists()


@pytest.mark.parametrize("method", ["io_uring", "threads"])
def test_copy_to_a_device_zeroes_what_is_a_hole(source, tmp_path, method):
    image = tmp_path / "image"
    image.write_bytes(b"\xff" * 8 * MIB)
    with storage.loop_device(image) as device:
        report = _core._copy_by(source, device, method)
        assert report.method == method
        subprocess.run(["blockdev", "--flushbufs", device], check=True)
    content = image.read_bytes()
    assert content[:SIZE] == source.read_bytes()
    assert content[SIZE:] == b"\xff" * (8 * MIB - SIZE)  # none of our business


def test_copy_to_a_device_wants_to_be_told_to_overwrite(source, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"\xff" * 8 * MIB)
    with storage.loop_device(image) as device:
        with pytest.raises(virmirror.ExistsError):
            virmirror.copy(source, device)
    assert image.read_bytes() == b"\xff" * 8 * MIB


def test_copy_to_a_device_that_is_too_small_is_refused(source, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"\xff" * 4 * MIB)
    with storage.loop_device(image) as device:
        with pytest.raises(virmirror.SpecError, match="too few"):
            virmirror.copy(source, device, overwrite=True)
    assert image.read_bytes() == b"\xff" * 4 * MIB


def test_copy_to_a_device_that_is_broken_off_leaves_no_header(source, tmp_path):
    """Of what was on the device before, too."""
    image = tmp_path / "image"
    image.write_bytes(b"\xff" * 8 * MIB)
    with source.open("r+b") as file:
        file.write(b"QFI\xfb")  # so that the beginning is no hole
        file.seek(MIB)
        file.write(os.urandom(3 * MIB))
    with storage.loop_device(image) as device:
        with virmirror.Copy.start(source, device, overwrite=True, bandwidth=MIB) as copy:
            end = time.monotonic() + PATIENCE
            while copy.progress().current == 0:
                assert time.monotonic() < end
                time.sleep(0.01)
            copy.cancel()
            with pytest.raises(virmirror.CancelledError):
                copy.wait()
        subprocess.run(["blockdev", "--flushbufs", device], check=True)
    content = image.read_bytes()
    assert content[: 64 * KIB] == bytes(64 * KIB)
    assert b"\xff" * 64 * KIB in content


def test_device_that_is_mounted_is_not_copied_to(source, tmp_path):
    image, folder = tmp_path / "image", tmp_path / "folder"
    folder.mkdir()
    with storage.xfs(image, folder):
        mounts = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
        (device,) = [mount[0] for mount in mounts if mount[1] == str(folder)]
        with pytest.raises(virmirror.BusyError, match="is mounted"):
            virmirror.copy(source, device, overwrite=True)


def test_copy_of_a_device_through_a_link_copies_all_of_it(tmp_path):
    image, link = tmp_path / "image", tmp_path / "link"
    image.write_bytes(os.urandom(3 * MIB))
    with storage.loop_device(image) as device:
        link.symlink_to(device)
        report = virmirror.copy(link, tmp_path / "destination", verify=True)
    assert report.copied == report.size == 3 * MIB
    assert (tmp_path / "destination").read_bytes() == image.read_bytes()


def test_device_and_another_name_of_it_are_the_same(tmp_path):
    image, link = tmp_path / "image", tmp_path / "link"
    image.write_bytes(bytes(MIB))
    with storage.loop_device(image) as device:
        link.symlink_to(device)
        with pytest.raises(virmirror.SpecError, match="one and the same"):
            virmirror.copy(link, device, overwrite=True)
