# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the guest is pivoted onto is what was frozen: nothing else is taken for it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import time
from collections.abc import Callable, Iterator

import libvirt
import pytest

import virmirror
from support.guest import Guest
from support.mirrors import create_empty, seed_spec

pytestmark = pytest.mark.qemu

MARK = "user.virmirror.copy"


@contextlib.contextmanager
def without_marks(folder: pathlib.Path) -> Iterator[None]:
    """While this context is open, ``folder`` is on storage without extended attributes."""
    subprocess.run(["mount", "-t", "ramfs", "-o", "mode=0700", "ramfs", str(folder)], check=True)
    try:
        with pytest.raises(OSError):
            os.setxattr(folder, "user.x", b"")
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def commit_top(guest: Guest) -> None:
    """Commit the guest's top layer into the one below it, and go on with that."""
    top = guest.chain()[0]
    flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW
    guest.dom.blockCommit("vda", None, str(top), 0, flags)
    end = time.monotonic() + 60
    while "ready='yes'" not in guest.dom.XMLDesc():
        assert time.monotonic() < end
        time.sleep(0.02)
    guest.dom.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def back_up(guest: Guest, *, in_place: bool) -> None:
    """What a nightly backup does: the top is committed down, and taken anew under its
    name; ``in_place`` it keeps its inode."""
    top, below = guest.chain()[:2]
    commit_top(guest)
    if in_place:
        os.truncate(top, 0)
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", below.name, "-F", "qcow2"]
        subprocess.run([*command, str(top), str(guest.size)], check=True)
    else:
        create_empty(top, below.name, size=str(guest.size))
    xml = (
        "<domainsnapshot><name>nightly</name><disks><disk name='vda' snapshot='external'>"
        f"<driver type='qcow2'/><source file='{top}'/></disk></disks></domainsnapshot>"
    )
    flags = (
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    )
    guest.dom.snapshotCreateXML(xml, flags)
    guest.wait_for_writes(20)


def check_stays(guest: Guest) -> None:
    """The guest is on the old side, nothing is left on the new one, nothing is lost."""
    assert guest.chain()[0].parent == guest.path1
    assert guest.chain(inactive=True)[0].parent == guest.path1
    assert not guest.dom.blockJobInfo("vda")
    assert not guest.has_journal()
    guest.wait_for_writes(20)
    guest.check()


def test_run_plan_of_before_another_move_refused(guest: Guest, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stale = virmirror.plan(guest.dom, {"vda": other})
    virmirror.migrate(guest.dom, {"vda": guest.path2})
    guest.wait_for_writes(20)
    with pytest.raises(virmirror.DivergedError):
        virmirror.run(stale, conn=guest.dom.connect())
    assert list(other.iterdir()) == []
    assert guest.chain()[0].parent == guest.path2
    assert virmirror.unfinished(guest.dom) is None
    guest.wait_for_writes(20)
    guest.check()


@pytest.mark.parametrize("in_place", [False, True])
def test_run_plan_of_before_a_backup_refused(guest: Guest, in_place: bool) -> None:
    stale = virmirror.plan(guest.dom, {"vda": guest.path2})
    back_up(guest, in_place=in_place)
    with pytest.raises(virmirror.DivergedError, match="plan"):
        virmirror.run(stale, conn=guest.dom.connect())
    assert list(guest.path2.iterdir()) == []
    check_stays(guest)


def test_migrate_top_replaced_meanwhile_undone(guest: Guest) -> None:
    def replace(progress: virmirror.Progress) -> None:
        if progress.phase == "mirror":
            back_up(guest, in_place=False)

    with pytest.raises(virmirror.DivergedError):
        virmirror.migrate(guest.dom, {"vda": guest.path2}, on_progress=replace)
    assert list(guest.path2.iterdir()) == []
    check_stays(guest)


def test_migrate_base_written_meanwhile_is_copied_again(guest: Guest) -> None:
    def write(progress: virmirror.Progress) -> None:
        if progress.phase == "mirror":
            back_up(guest, in_place=True)

    virmirror.migrate(guest.dom, {"vda": guest.path2}, on_progress=write)
    assert guest.chain()[0].parent == guest.path2
    guest.wait_for_writes(20)
    guest.check()


@contextlib.contextmanager
def seed_mirror(guest: Guest) -> Iterator[virmirror.MirrorSnapshot]:
    """The seed's mirror, ready; aborted at the end."""
    spec = seed_spec(guest)
    with virmirror.MirrorSnapshot.create(guest.dom, "migrate", spec, reuse_external=True) as mirror:
        mirror.wait_ready(timeout=60)
        yield mirror


def copy_layer(guest: Guest, name: str) -> None:
    virmirror.copy(guest.path1 / name, guest.path2 / name, overwrite=True)


@pytest.mark.parametrize("marks", [True, False])
@pytest.mark.parametrize("forgotten", ["common", "old.qcow2"])
def test_pivot_layer_never_copied_refused_until_copied(
    guest: Guest, forgotten: str, marks: bool
) -> None:
    (other,) = {"common", "old.qcow2"} - {forgotten}
    with contextlib.ExitStack() as stack:
        if not marks:
            stack.enter_context(without_marks(guest.path2))
        mirror = stack.enter_context(seed_mirror(guest))
        copy_layer(guest, other)
        with pytest.raises(virmirror.ImageError, match=f"path2/{forgotten}"):
            mirror.pivot()
        assert guest.chain()[0].parent == guest.path1
        copy_layer(guest, forgotten)
        mirror.pivot()
        assert guest.chain()[0].parent == guest.path2
        guest.wait_for_writes(20)
        guest.check()


@pytest.mark.parametrize("time_put_back", [False, True])
def test_pivot_base_written_since_its_copy_refused(guest: Guest, time_put_back: bool) -> None:
    base = guest.path1 / "common"
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    copy_layer(guest, "common")
    before = base.stat()
    back_up(guest, in_place=False)
    if time_put_back:
        os.utime(base, ns=(before.st_atime_ns, before.st_mtime_ns))
    with seed_mirror(guest) as mirror:
        copy_layer(guest, "old.qcow2")
        with pytest.raises(virmirror.ImageError, match="path2/common"):
            mirror.pivot()
        copy_layer(guest, "common")
        mirror.pivot()
    assert guest.chain()[0].parent == guest.path2
    guest.wait_for_writes(20)
    guest.check()


def test_pivot_owner_of_base_changed_since_its_copy_taken(guest: Guest) -> None:
    with seed_mirror(guest) as mirror:
        for name in ("common", "old.qcow2"):
            copy_layer(guest, name)
        os.chown(guest.path1 / "common", 0, 1)
        mirror.pivot()
    guest.wait_for_writes(20)
    guest.check()


def test_pivot_raw_copy_broken_off_without_marks_refused(
    make_guest: Callable[..., Guest],
) -> None:
    guest = make_guest(base_format="raw")
    with without_marks(guest.path2), seed_mirror(guest) as mirror:
        copy_layer(guest, "old.qcow2")
        with virmirror.Copy.start(
            guest.path1 / "common",
            guest.path2 / "common",
            overwrite=True,
            bandwidth=64 * 1024,
            reflink=False,
        ) as copy:
            copy.cancel()
        with pytest.raises(virmirror.ImageError, match="path2/common"):
            mirror.pivot()
        assert guest.chain()[0].parent == guest.path1
        copy_layer(guest, "common")
        mirror.pivot()
        guest.wait_for_writes(20)
        guest.check()


def test_pivot_copies_with_other_bytes_and_the_same_content_taken(guest: Guest) -> None:
    with seed_mirror(guest) as mirror:
        for name, backing in (("common", None), ("old.qcow2", "common")):
            command = ["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "qcow2"]
            if backing:
                command += ["-B", backing, "-F", "qcow2"]
            made = guest.path2 / "converted"
            options = ["-o", "cluster_size=16k"]
            source = guest.path1 / name
            subprocess.run([*command, *options, str(source), str(made)], check=True)
            # in place, since the mirror was started on that very file
            subprocess.run(["cp", str(made), str(guest.path2 / name)], check=True)
            made.unlink()
        mirror.pivot()
    assert guest.chain()[0].parent == guest.path2
    guest.wait_for_writes(20)
    guest.check()


def test_pivot_frozen_layer_replaced_refused(guest: Guest) -> None:
    base = guest.path1 / "common"
    with seed_mirror(guest) as mirror:
        for name in ("common", "old.qcow2"):
            copy_layer(guest, name)
        kept = base.with_name("kept")
        base.rename(kept)
        subprocess.run(["cp", "-a", str(kept), str(base)], check=True)
        with pytest.raises(virmirror.DivergedError, match="path1/common"):
            mirror.pivot()
        kept.rename(base)
        mirror.pivot()
    guest.wait_for_writes(20)
    guest.check()


def test_pivot_copy_written_since_it_was_made_refused(guest: Guest) -> None:
    with seed_mirror(guest) as mirror:
        for name in ("common", "old.qcow2"):
            copy_layer(guest, name)
        assert os.getxattr(guest.path2 / "common", MARK).startswith(b"2 complete")
        write = "write -q -P 1 8M 64k"
        subprocess.run(
            ["qemu-io", "-f", "qcow2", "-c", write, str(guest.path2 / "common")], check=True
        )
        with pytest.raises(virmirror.ImageError, match="path2/common"):
            mirror.pivot()
        copy_layer(guest, "common")
        mirror.pivot()
    guest.wait_for_writes(20)
    guest.check()


def test_migrate_snapshot_onto_old_storage_after_cut_over_refused(guest: Guest) -> None:
    foreign = guest.path1 / "foreign"

    def snapshot(progress: virmirror.Progress) -> None:
        if progress.phase == "collapse" and not foreign.exists():
            xml = (
                "<domainsnapshot><name>x</name><disks><disk name='vda' snapshot='external'>"
                f"<source file='{foreign}'/></disk></disks></domainsnapshot>"
            )
            guest.dom.snapshotCreateXML(xml, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)

    with pytest.raises(virmirror.DivergedError, match=r"since the cut-over.*forget"):
        virmirror.migrate(guest.dom, {"vda": guest.path2}, remove_source=True, on_progress=snapshot)
    assert guest.chain()[0] == foreign
    assert (guest.path1 / "old.qcow2").exists()
    plan = virmirror.unfinished(guest.dom)
    assert plan is not None
    virmirror.forget(plan, conn=guest.dom.connect())
    guest.wait_for_writes(20)
    guest.check()
