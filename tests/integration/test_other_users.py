# SPDX-License-Identifier: LGPL-2.1-or-later
"""What other users of the host have put, or could put, where a guest is to go."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Callable

import libvirt
import pytest

import virmirror
from support.guest import Guest
from support.refusal import refused

pytestmark = pytest.mark.qemu

NOBODY = 65534


def empty_for_all(guest: Guest, path: pathlib.Path) -> None:
    path.touch()
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o666)


def forged(guest: Guest, path: pathlib.Path) -> None:
    """A file with the right header, other data, and a mark that says all is well."""
    source = guest.path1 / "common"
    shutil.copyfile(source, path)
    virmirror.copy(source, path, overwrite=True)
    mark = os.getxattr(path, "user.virmirror.copy")
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(b"\xee" * 512)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.setxattr(path, "user.virmirror.copy", mark)
    os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize("plant", [empty_for_all, forged])
def test_migrate_does_not_use_a_base_of_another_user(
    guest: Guest, plant: Callable[[Guest, pathlib.Path], None]
) -> None:
    common = guest.path2 / "common"
    plant(guest, common)
    content = common.read_bytes()
    with pytest.raises(virmirror.ExistsError, match="belongs to another user"):
        virmirror.migrate(guest.dom, {"vda": guest.path2})
    assert common.read_bytes() == content
    assert virmirror.unfinished(guest.dom) is None
    guest.wait_for_writes()
    guest.check()


@pytest.mark.parametrize("call", [virmirror.migrate, virmirror.plan])
def test_migrate_into_a_folder_that_others_can_write_is_refused(
    guest: Guest, call: Callable[..., object]
) -> None:
    guest.path2.chmod(0o777)
    with pytest.raises(virmirror.SpecError, match="may be written by everybody"):
        call(guest.dom, {"vda": guest.path2})
    assert not list(guest.path2.iterdir())
    guest.wait_for_writes()
    guest.check()


def test_prepare_chain_does_not_keep_a_file_of_another_user(guest: Guest) -> None:
    paths = virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    os.chown(paths[-1], NOBODY, NOBODY)
    with pytest.raises(virmirror.ExistsError, match="belongs to another user"):
        virmirror.prepare_chain(guest.dom, "vda", guest.path2)


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("common", virmirror.ExistsError, libvirt.VIR_ERR_CONFIG_UNSUPPORTED),
        (".", virmirror.SpecError, libvirt.VIR_ERR_INVALID_ARG),
    ],
)
def test_create_on_a_chain_that_others_can_change_is_refused(
    guest: Guest, name: str, kind: type[libvirt.libvirtError], code: int
) -> None:
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    os.chown(guest.path2 / name, NOBODY, NOBODY)
    with guest.resting(), refused(guest, kind, code, "belongs to another user"):
        virmirror.MirrorSnapshot.create(guest.dom, "move", f"vda,mirror={guest.path2}/new")
