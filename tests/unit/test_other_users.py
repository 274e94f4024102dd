# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file that another user of this host could change is not filled and not used."""

import os
import struct

import pytest

import virmirror
from virmirror import _core

NOBODY = 65534
ANY = 0xFFFFFFFF
DATA = b"\x5a" * 200_000


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    path = folder / "source"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    return folder


def owned_by_nobody(path):
    os.chown(path, NOBODY, NOBODY)


def writable_by_everybody(path):
    path.chmod(0o666)


def writable_by_a_group(path):
    os.chown(path, -1, NOBODY)
    path.chmod(0o660)


def writable_by_a_list(path):
    entries = [(1, 6, ANY), (2, 6, NOBODY), (4, 0, ANY), (0x10, 6, ANY), (0x20, 0, ANY)]
    packed = (struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(packed))


HARM = [
    (owned_by_nobody, f"belongs to another user .uid {NOBODY}."),
    (writable_by_everybody, "may be written by everybody"),
    (writable_by_a_group, f"may be written by a group .gid {NOBODY}."),
    (writable_by_a_list, "in its access control list"),
]


@pytest.mark.parametrize(("harm", "words"), HARM)
def test_copy_into_a_file_that_others_can_write_is_refused(source, folder, harm, words):
    destination = folder / "copy"
    destination.touch(mode=0o600)
    harm(destination)
    with pytest.raises(virmirror.ExistsError, match=words):
        virmirror.copy(source, destination, overwrite=True)
    assert destination.read_bytes() == b""


@pytest.mark.parametrize(("harm", "words"), HARM)
def test_mark_of_a_file_that_others_can_write_is_not_believed(source, folder, harm, words):
    destination = folder / "copy"
    virmirror.copy(source, destination)
    harm(destination)
    with pytest.raises(virmirror.ExistsError, match=words):
        _core._copy_state(source, destination)
    with pytest.raises(virmirror.ExistsError, match=words):
        virmirror.copy(source, destination, overwrite=True)


def test_copy_into_a_file_of_who_owns_the_source_is_made(source, folder):
    """As it is where libvirt gives the files of a guest to its QEMU's user."""
    owned_by_nobody(source)
    destination = folder / "copy"
    destination.touch(mode=0o600)
    owned_by_nobody(destination)
    virmirror.copy(source, destination, overwrite=True)
    assert destination.read_bytes() == DATA
    assert _core._copy_state(source, destination) == "fits"


def test_copy_into_a_file_of_whom_the_source_is_lent_by_is_made(source, folder):
    """libvirt notes who has had a file before it gave it to a QEMU's user."""
    os.setxattr(source, "trusted.libvirt.security.dac", b"+12:+34")
    owned_by_nobody(source)
    destination = folder / "copy"
    destination.touch(mode=0o600)
    os.chown(destination, 12, 34)
    virmirror.copy(source, destination, overwrite=True)
    assert destination.read_bytes() == DATA


def test_copy_into_a_file_of_a_group_that_can_write_the_source_is_made(source, folder):
    destination = folder / "copy"
    destination.touch()
    for path in (source, destination):
        writable_by_a_group(path)
    virmirror.copy(source, destination, overwrite=True)
    assert destination.read_bytes() == DATA


@pytest.mark.parametrize("mode", [0o777, 0o722])
def test_copy_into_a_folder_that_others_can_write_is_refused(source, folder, mode):
    folder.chmod(mode)
    with pytest.raises(virmirror.SpecError, match="may be written by everybody"):
        virmirror.copy(source, folder / "copy")
    assert not list(folder.iterdir())


def test_copy_into_a_folder_of_another_user_is_refused(source, folder):
    owned_by_nobody(folder)
    with pytest.raises(virmirror.SpecError, match="belongs to another user"):
        virmirror.copy(source, folder / "copy")
    owned_by_nobody(source.parent)  # who has the original could change that
    virmirror.copy(source, folder / "copy")


def test_copy_into_a_folder_with_the_sticky_bit_is_made(source, folder):
    folder.chmod(0o1777)
    virmirror.copy(source, folder / "copy")
    assert (folder / "copy").read_bytes() == DATA


def test_copy_through_a_link_of_another_user_is_refused(source, folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    virmirror.copy(source, link / "copy")
    os.lchown(link, NOBODY, NOBODY)
    with pytest.raises(virmirror.SpecError, match="is a link that belongs to another user"):
        virmirror.copy(source, link / "other")
