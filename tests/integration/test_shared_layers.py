# SPDX-License-Identifier: LGPL-2.1-or-later
"""Layers that need no copy: they are where the guest goes to, in use or not."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable

import libvirt
import pytest

import virmirror
from support.guest import Guest

pytestmark = pytest.mark.qemu


def restart_on(guest: Guest, *tops: pathlib.Path) -> None:
    """Start the guest anew, each of its disks on such a top."""
    text = guest.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    for old, new in zip(guest.tops, tops, strict=True):
        text = text.replace(str(old), str(new))
    if guest.dom.isActive():
        guest.dom.destroy()
    guest.dom.connect().defineXML(text)
    guest.serial.write_bytes(b"")
    guest.dom.create()
    guest.wait_for_writes(20)


def rebase(path: pathlib.Path, name: object) -> None:
    command = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", name, path]
    subprocess.run([*map(str, command)], check=True)


@pytest.fixture
def sharing(make_guest: Callable[..., Guest]) -> Guest:
    """A guest of two disks on one base."""
    guest = make_guest(disks=2, writes=False)
    guest.dom.destroy()
    rebase(guest.tops[1], "common")
    restart_on(guest, *guest.tops)
    return guest


def test_migrate_second_disk_uses_the_base_that_the_first_has_moved_to(sharing: Guest) -> None:
    guest = sharing
    virmirror.migrate(guest.dom, {"vda": guest.path2})
    common = (guest.path2 / "common").stat()
    report = virmirror.migrate(guest.dom, {"vdb": guest.path2})
    methods = {os.path.basename(one.destination): one.method for one in report.layers}
    assert methods["common"] == "none"
    assert (guest.path2 / "common").stat().st_ino == common.st_ino
    for target, top in (("vda", "old.qcow2"), ("vdb", "old2.qcow2")):
        assert guest.chain(target) == [guest.path2 / top, guest.path2 / "common"]
    shutil.rmtree(guest.path1)
    guest.wait_for_writes()
    guest.check()


def base_below(guest: Guest, way: str) -> None:
    """Have the base of vda in path2, and vda on it."""
    guest.dom.destroy()
    base = guest.path1 / "common"
    if way == "hard link":
        (guest.path2 / "common").hardlink_to(base)
    else:
        base.rename(guest.path2 / "common")
        name = guest.path2 / "common" if way == "absolute" else "../path2/common"
        rebase(guest.tops[0], name)
    restart_on(guest, guest.tops[0])


@pytest.mark.parametrize("way", ["relative", "absolute", "hard link"])
def test_migrate_leaves_a_base_that_lies_in_the_new_folder_where_it_is(
    guest: Guest, way: str
) -> None:
    base_below(guest, way)
    common = guest.path2 / "common"
    before = common.stat()
    report = virmirror.migrate(guest.dom, {"vda": guest.path2})
    assert {one.method for one in report.layers if one.destination == str(common)} == {"none"}
    after = common.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert guest.chain() == [guest.path2 / "old.qcow2", common]
    shutil.rmtree(guest.path1)
    guest.wait_for_writes()
    guest.check()


def test_single_steps_leave_a_base_that_lies_in_the_new_folder_where_it_is(guest: Guest) -> None:
    base_below(guest, "relative")
    assert virmirror.prepare_chain(guest.dom, "vda", guest.path2) == [
        str(guest.path2 / name) for name in ("old.qcow2", "common")
    ]
    with virmirror.MirrorSnapshot.create(
        guest.dom, "move", f"vda,mirror={guest.path2}/new.qcow2"
    ) as mirror:
        virmirror.copy(guest.tops[0], guest.path2 / "old.qcow2", overwrite=True)
        rebase(guest.path2 / "old.qcow2", "common")
        mirror.wait_ready(timeout=60)
        mirror.pivot()
    shutil.rmtree(guest.path1)
    guest.wait_for_writes()
    guest.check()


def test_migration_that_fails_leaves_a_base_in_place(guest: Guest) -> None:
    base_below(guest, "relative")
    content = (guest.path2 / "common").read_bytes()

    def fail(progress: virmirror.Progress) -> None:
        if progress.phase == "cut-over":
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        virmirror.migrate(guest.dom, {"vda": guest.path2}, on_progress=fail)
    assert [path.name for path in guest.path2.iterdir()] == ["common"]
    assert (guest.path2 / "common").read_bytes() == content
    guest.wait_for_writes()
    guest.check()


def test_layer_in_place_on_one_elsewhere_is_refused(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(layers=3, writes=False)
    guest.dom.destroy()
    (guest.path1 / "layer1").rename(guest.path2 / "layer1")
    rebase(guest.path2 / "layer1", guest.path1 / "common")
    rebase(guest.tops[0], guest.path2 / "layer1")
    restart_on(guest, guest.tops[0])
    with pytest.raises(virmirror.NotSupportedError, match="is not there by a relative name"):
        virmirror.plan(guest.dom, {"vda": guest.path2})
