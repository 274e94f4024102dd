# SPDX-License-Identifier: LGPL-2.1-or-later
"""What virmirror promises, situation by situation, on a guest that writes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import libvirt
import pytest

import virmirror
from support.guest import JOURNAL, Guest
from support.mirrors import create_empty, seed_spec, slow_mirror
from support.refusal import refused
from support.storage import (
    READ,
    WRITE,
    denied,
    denied_once_written,
    is_written_to,
    missing_once_released,
)
from virmirror import embed

pytestmark = pytest.mark.qemu

ABORT = virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_ABORT
PIVOT = virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_PIVOT
CHILDREN = virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN
CHILDREN_ONLY = virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY
METADATA_ONLY = virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY
REUSE = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
DISK_ONLY = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY


def specs(guest: Guest, disks: int = 1) -> list[str]:
    """Where each disk is to go, its skeleton made."""
    targets = guest.targets()[:disks]
    for target in targets:
        virmirror.prepare_chain(guest.dom, target, guest.path2)
    return [f"{target},mirror={guest.path2}/new-{target}.qcow2" for target in targets]


def seed_xml(guest: Guest) -> str:
    return virmirror.snapshot_xml("migrate", None, seed_spec(guest))


def copy_in_place(guest: Guest) -> None:
    for path in guest.path2.iterdir():
        source = guest.path1 / path.name
        if source.exists():
            subprocess.run(["cp", "--sparse=always", source, path], check=True)


# ---- flags


def test_flags_are_those_of_the_seed() -> None:
    assert (CHILDREN, METADATA_ONLY, CHILDREN_ONLY, ABORT, PIVOT) == (1, 2, 4, 8, 16)


@pytest.fixture(scope="module")
def mirrored(host: embed.Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest of two disks whose vda has a snapshot 'before' and, below that one,
    the mirrored snapshot 'migrate', which is ready. Refusals leave it like this."""
    guest = Guest(host, tmp_path_factory.mktemp("mirrored"), disks=2)
    try:
        before = virmirror.snapshot_xml("before", None, ["vda", "vdb,snapshot=no"])
        guest.dom.snapshotCreateXML(before, DISK_ONLY)
        mirror = virmirror.MirrorSnapshot.create(guest.dom, "migrate", specs(guest))
        mirror.wait_ready(timeout=30)
        mirror.detach()
        with guest.resting():
            yield guest
        # refusing all that has not harmed the mirror
        virmirror.snapshotDelete(guest.dom.snapshotLookupByName("migrate"), ABORT)
        assert guest.dom.snapshotListNames() == ["before"]
        guest.check()
    finally:
        guest.end()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (
            ABORT | PIVOT,
            libvirt.VIR_ERR_INVALID_ARG,
            ["delete mirror flags are mutually exclusive"],
        ),
        (
            CHILDREN | CHILDREN_ONLY | PIVOT,
            libvirt.VIR_ERR_INVALID_ARG,
            ["delete children flags are mutually exclusive"],
        ),
        (CHILDREN_ONLY | ABORT, libvirt.VIR_ERR_INVALID_ARG, ["'migrate'", "itself is kept"]),
        (32 | PIVOT, libvirt.VIR_ERR_INVALID_ARG, ["unsupported flags (0x20)"]),
    ],
)
def test_delete_with_flags_that_exclude_each_other_is_refused(
    mirrored: Guest, flags: int, code: int, words: list[str]
) -> None:
    snap = mirrored.dom.snapshotLookupByName("migrate")
    with refused(mirrored, virmirror.SpecError, code, *words):
        virmirror.snapshotDelete(snap, flags)


@pytest.mark.parametrize("flags", [0, CHILDREN, METADATA_ONLY, METADATA_ONLY | CHILDREN])
def test_delete_of_a_mirrored_snapshot_without_mirror_flag_says_which_to_give(
    mirrored: Guest, flags: int
) -> None:
    snap = mirrored.dom.snapshotLookupByName("migrate")
    words = ("'migrate'", "DELETE_MIRROR_ABORT", "DELETE_MIRROR_PIVOT")
    with refused(mirrored, virmirror.StateError, libvirt.VIR_ERR_OPERATION_INVALID, *words):
        virmirror.snapshotDelete(snap, flags)


@pytest.mark.parametrize("flags", [ABORT, PIVOT])
def test_delete_of_a_plain_snapshot_with_a_mirror_flag_is_refused(
    mirrored: Guest, flags: int
) -> None:
    snap = mirrored.dom.snapshotLookupByName("before")
    words = ("'before' is not mirrored",)
    with refused(mirrored, virmirror.StateError, libvirt.VIR_ERR_OPERATION_INVALID, *words):
        virmirror.snapshotDelete(snap, flags)


@pytest.mark.parametrize("flags", [CHILDREN, CHILDREN_ONLY, CHILDREN | METADATA_ONLY])
def test_delete_of_the_parent_with_its_children_is_refused(mirrored: Guest, flags: int) -> None:
    snap = mirrored.dom.snapshotLookupByName("before")
    words = ("'migrate'", "'before'", "pivot or abort it first")
    with refused(mirrored, virmirror.StateError, libvirt.VIR_ERR_OPERATION_INVALID, *words):
        virmirror.snapshotDelete(snap, flags)


def test_delete_of_a_mirrored_snapshot_that_is_not_current_is_refused(
    make_guest: Callable[..., Guest],
) -> None:
    guest = make_guest(disks=2)
    mirror = virmirror.MirrorSnapshot.create(guest.dom, "migrate", specs(guest))
    mirror.detach()
    later = virmirror.snapshot_xml("later", None, ["vda,snapshot=no", "vdb"])
    guest.dom.snapshotCreateXML(later, DISK_ONLY)
    snap = guest.dom.snapshotLookupByName("migrate")
    for flag in (ABORT, PIVOT):
        with refused(
            guest,
            virmirror.StateError,
            libvirt.VIR_ERR_OPERATION_INVALID,
            "'migrate'",
            "not the current one",
        ):
            virmirror.snapshotDelete(snap, flag)
    guest.dom.snapshotLookupByName("later").delete(METADATA_ONLY)
    assert virmirror.snapshotDelete(snap, ABORT) == 0
    guest.check()


# ---- what is refused while a snapshot is mirrored


def test_another_mirrored_snapshot_is_refused(mirrored: Guest) -> None:
    spec = f"vdb,mirror={mirrored.path2}/other.qcow2"
    with refused(mirrored, virmirror.BusyError, libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, "'migrate'"):
        virmirror.MirrorSnapshot.create(mirrored.dom, "other", spec)


def test_plain_snapshot_through_virmirror_is_refused(mirrored: Guest) -> None:
    xml = virmirror.snapshot_xml("other", None, ["vda,snapshot=no", "vdb"])
    with refused(mirrored, virmirror.BusyError, libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, "'migrate'"):
        virmirror.snapshotCreateXML(mirrored.dom, xml, DISK_ONLY)


def test_pull_of_the_mirrored_disk_is_refused(mirrored: Guest) -> None:
    with refused(mirrored, virmirror.MirrorError, libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, "vda"):
        virmirror.block_pull(mirrored.dom, "vda")


def detach_disk(guest: Guest) -> None:
    xml = guest.dom.XMLDesc()
    begin = xml.index("<disk ")
    guest.dom.detachDeviceFlags(
        xml[begin : xml.index("</disk>") + len("</disk>")], libvirt.VIR_DOMAIN_AFFECT_LIVE
    )


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (
            libvirt.VIR_ERR_BLOCK_COPY_ACTIVE,
            lambda guest: guest.dom.snapshotCreateXML(
                virmirror.snapshot_xml("other", None, ["vda", "vdb,snapshot=no"]), DISK_ONLY
            ),
        ),
        (
            libvirt.VIR_ERR_OPERATION_INVALID,
            lambda guest: guest.dom.save(str(guest.path2 / "saved")),
        ),
        (libvirt.VIR_ERR_OPERATION_INVALID, lambda guest: guest.dom.managedSave()),
        (
            libvirt.VIR_ERR_OPERATION_INVALID,
            lambda guest: guest.dom.migrate3(
                guest.dom.connect(), {}, libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_UNSAFE
            ),
        ),
        (
            libvirt.VIR_ERR_OPERATION_INVALID,
            lambda guest: guest.dom.revertToSnapshot(guest.dom.snapshotLookupByName("before")),
        ),
        (libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, detach_disk),
        (
            libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
            lambda guest: guest.dom.snapshotLookupByName("migrate").delete(),
        ),
    ],
    ids=["snapshot", "save", "managed-save", "migrate", "revert", "detach", "delete"],
)
def test_libvirt_itself_refuses(
    mirrored: Guest, code: int, action: Callable[[Guest], object]
) -> None:
    with refused(mirrored, libvirt.libvirtError, code):
        action(mirrored)


@pytest.mark.parametrize("end", ["pivot", "abort"])
def test_mirror_of_an_undefined_domain_can_be_ended(guest: Guest, end: str) -> None:
    virmirror.MirrorSnapshot.create(guest.dom, "migrate", specs(guest)).detach()
    # libvirt allows this, and leaves a transient domain
    guest.dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
    mirror = virmirror.adopt(guest.dom)
    mirror.wait_ready(timeout=30)
    copy_in_place(guest)
    mirror.pivot() if end == "pivot" else mirror.abort()
    top = guest.path2 / "new-vda.qcow2" if end == "pivot" else guest.path1 / "old.migrate"
    assert guest.chain()[0] == top
    assert JOURNAL not in guest.dom.XMLDesc()
    guest.wait_for_writes(50)
    guest.check()


# ---- creating: refusals


@pytest.fixture(scope="module")
def still(host: embed.Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest that stays as it is, with all that its migration needs."""
    guest = Guest(host, tmp_path_factory.mktemp("still"))
    specs(guest)
    with guest.resting():
        yield guest
    guest.check()
    guest.end()


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        (libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_HALT, ["halt the domain"]),
        (libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA, ["needs its metadata"]),
        (libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE, ["redefined"]),
        (libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT, ["current one"]),
        (libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE, ["no memory"]),
    ],
)
def test_create_with_a_flag_that_no_mirror_can_have_is_refused(
    still: Guest, flag: int, words: list[str]
) -> None:
    xml = virmirror.snapshot_xml("migrate", None, f"vda,mirror={still.path2}/new.qcow2")
    with refused(still, virmirror.NotSupportedError, libvirt.VIR_ERR_OPERATION_UNSUPPORTED, *words):
        virmirror.snapshotCreateXML(still.dom, xml, DISK_ONLY | flag)


def test_create_on_a_domain_that_is_shut_off_is_refused(still: Guest, host: embed.Host) -> None:
    off = host.conn.defineXML(
        still.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        .replace(f"<name>{still.dom.name()}</name>", "<name>off</name>")
        .replace(still.dom.UUIDString(), "5b2e6f1c-0000-4000-8000-000000000001")
    )
    try:
        xml = virmirror.snapshot_xml("migrate", None, f"vda,mirror={still.path2}/new.qcow2")
        words = ("domain 'off' is not running",)
        with refused(still, virmirror.StateError, libvirt.VIR_ERR_OPERATION_INVALID, *words):
            virmirror.snapshotCreateXML(off, xml)
        assert off.snapshotListNames() == []
    finally:
        off.undefine()


@pytest.mark.parametrize("existing", ["mirror", "overlay"])
def test_create_on_an_existing_file_without_reuse_is_refused(still: Guest, existing: str) -> None:
    paths = {"mirror": still.path2 / "new.qcow2", "overlay": still.path1 / "old.migrate"}
    paths[existing].write_bytes(b"precious")
    words = (f"disk 'vda': its {existing} '{paths[existing]}' exists already", "reuse_external")
    spec = f"vda,file={paths['overlay']},mirror={paths['mirror']}"
    with refused(
        still, virmirror.ExistsError, libvirt.VIR_ERR_CONFIG_UNSUPPORTED, *words, disk="vda"
    ):
        virmirror.MirrorSnapshot.create(still.dom, "migrate", spec)
    paths[existing].unlink()


# ---- creating: all disks or none


@pytest.fixture(scope="module")
def resting_trio(host: embed.Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest of three disks; the skeletons are made, the last one on a tmpfs."""
    guest = Guest(host, tmp_path_factory.mktemp("trio"), disks=3)
    other = guest.path2 / "other"
    other.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", other], check=True)
    try:
        for target, folder in (("vda", guest.path2), ("vdb", guest.path2), ("vdc", other)):
            virmirror.prepare_chain(guest.dom, target, folder)
        with guest.resting():
            yield guest
        guest.wait_for_writes(50)
        guest.check()
    finally:
        guest.end()
        subprocess.run(["umount", other], check=True)


@pytest.fixture
def trio(resting_trio: Guest) -> Iterator[Guest]:
    resting_trio.dom.resume()
    resting_trio.wait_for_writes(20)
    yield resting_trio
    resting_trio.dom.suspend()


def trio_specs(guest: Guest) -> list[str]:
    return [
        f"vda,file={guest.path1}/old.over,mirror={guest.path2}/new.qcow2",
        f"vdb,file={guest.path1}/old2.over,mirror={guest.path2}/new2.qcow2",
        f"vdc,file={guest.path1}/old3.over,mirror={guest.path2}/other/new3.qcow2",
    ]


@contextlib.contextmanager
def read_only(mount: pathlib.Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", mount], check=True)


@contextlib.contextmanager
def out_of_inodes(mount: pathlib.Path) -> Iterator[None]:
    """While this context is open, no file can be made on the tmpfs ``mount``."""
    status = os.statvfs(mount)
    remount = ["mount", "-o"]
    used = status.f_files - status.f_ffree
    subprocess.run([*remount, f"remount,nr_inodes={used}", mount], check=True)
    try:
        yield
    finally:
        subprocess.run([*remount, f"remount,nr_inodes={status.f_files}", mount], check=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


@needs_root
def test_create_whose_third_mirror_cannot_be_made_leaves_all_as_it_was(trio: Guest) -> None:
    words = ("new3.qcow2", "No space left on device")
    with out_of_inodes(trio.path2 / "other"):
        with refused(
            trio, virmirror.StorageError, libvirt.VIR_ERR_SYSTEM_ERROR, *words, disk="vdc"
        ):
            virmirror.MirrorSnapshot.create(trio.dom, "migrate", trio_specs(trio))


@needs_root
def test_create_whose_third_copy_cannot_start_leaves_all_as_it_was(trio: Guest) -> None:
    overlay, mirror = trio.path1 / "old3.over", trio.path2 / "other" / "new3.qcow2"
    with denied_once_written(mirror, WRITE, awaited=overlay):
        with refused(
            trio, virmirror.MirrorError, libvirt.VIR_ERR_INTERNAL_ERROR, "lock", disk="vdc"
        ):
            virmirror.MirrorSnapshot.create(trio.dom, "migrate", trio_specs(trio))


@needs_root
def test_create_on_reused_files_that_is_undone_says_that_they_are_stale(trio: Guest) -> None:
    overlays = [trio.path1 / f"old{n}.over" for n in ("", 2, 3)]
    mirrors = [trio.path2 / name for name in ("new.qcow2", "new2.qcow2", "other/new3.qcow2")]
    for paths in (overlays, mirrors):
        for path, n in zip(paths, ("", 2, 3), strict=True):
            create_empty(path, f"old{n}.qcow2")
    before = trio.state()
    with read_only(trio.path2 / "other"), pytest.raises(virmirror.MirrorError) as caught:
        virmirror.MirrorSnapshot.create(trio.dom, "migrate", trio_specs(trio), reuse_external=True)
    assert caught.value.disk == "vdc"
    assert not caught.value.partial
    for overlay in overlays:
        assert f"'{overlay}' was in use and holds stale data now" in str(caught.value)
    after = trio.state()
    for path in (*overlays, *mirrors):
        assert not is_written_to(path)
        before["files"].pop(path)  # type: ignore[attr-defined]
        after["files"].pop(path)  # type: ignore[attr-defined]
        path.unlink()
    assert after == before


# ---- ending it


def test_pivot_before_the_mirror_is_ready_is_refused(guest: Guest) -> None:
    with slow_mirror(guest) as mirror:
        words = ("mirror of disk 'vda' is not ready yet",)
        code = libvirt.VIR_ERR_BLOCK_COPY_ACTIVE
        with refused(guest, virmirror.NotReadyError, code, *words, disk="vda"):
            mirror.pivot(pause_budget=None)
        with refused(guest, virmirror.NotReadyError, code, *words, disk="vda"):
            virmirror.snapshotDelete(mirror.snapshot, PIVOT)
    assert guest.chain()[0] == guest.path1 / "old.migrate"
    guest.check()


def test_pivot_goes_on_with_the_mirror_and_its_own_chain(guest: Guest) -> None:
    snap = virmirror.snapshotCreateXML(guest.dom, seed_xml(guest), REUSE)
    assert isinstance(snap, libvirt.virDomainSnapshot)
    assert guest.dom.snapshotListNames() == [snap.getName()] == ["migrate"]
    copy_in_place(guest)
    mirror = virmirror.adopt(guest.dom)
    mirror.wait_ready(timeout=30)
    mirror.detach()
    assert virmirror.snapshotDelete(snap, PIVOT) == 0
    shutil.rmtree(guest.path1)
    expected = [guest.path2 / name for name in ("new.qcow2", "old.qcow2", "common")]
    assert guest.chain() == expected
    assert guest.chain(inactive=True)[0] == expected[0]
    assert guest.dom.snapshotListNames() == []
    assert not guest.has_journal()
    guest.wait_for_writes(100)
    guest.check()


def test_abort_goes_on_with_the_primary_file(guest: Guest) -> None:
    snap = virmirror.snapshotCreateXML(guest.dom, seed_xml(guest), REUSE)
    assert virmirror.snapshotDelete(snap, ABORT) == 0
    expected = [guest.path1 / name for name in ("old.migrate", "old.qcow2", "common")]
    assert guest.chain() == expected
    assert guest.chain(inactive=True)[0] == expected[0]
    assert guest.dom.snapshotListNames() == []
    assert not guest.has_journal()
    shutil.rmtree(guest.path2)
    guest.wait_for_writes(100)
    guest.check()


@contextlib.contextmanager
def pivot_fails_half_way(guest: Guest, fault: AbstractContextManager[None]) -> Iterator[None]:
    """The mirrored snapshot 'migrate' of two disks, of which the fault keeps the
    second one from being pivoted. It lasts until the end of the context."""
    mirror = virmirror.MirrorSnapshot.create(guest.dom, "migrate", specs(guest, 2))
    mirror.wait_ready(timeout=30)
    mirror.detach()
    copy_in_place(guest)
    snap = guest.dom.snapshotLookupByName("migrate")
    with fault:
        with pytest.raises(virmirror.MirrorError) as caught:
            virmirror.snapshotDelete(snap, PIVOT)
        error = caught.value
        assert (error.disk, error.phase, error.partial) == ("vdb", "pivot", True)
        assert guest.sources() == [guest.path2 / "new-vda.qcow2", guest.path1 / "old2.migrate"]
        assert guest.dom.snapshotListNames() == ["migrate"]
        assert disk_states(guest) == ["pivoted", "pivoting"]
        yield


def disk_states(guest: Guest) -> list[str]:
    """What the journal says of each disk."""
    mirror = virmirror.adopt(guest.dom, "migrate")
    mirror.detach()
    return [disk.state for disk in mirror.disks]


def check_ended(guest: Guest, *tops: pathlib.Path) -> None:
    assert guest.sources() == list(tops)
    assert [guest.chain(target, inactive=True)[0] for target in guest.targets()] == list(tops)
    assert guest.dom.snapshotListNames() == []
    assert not guest.has_journal()
    guest.wait_for_writes(50)
    guest.check()


def test_pivot_that_failed_half_way_is_recorded_and_finished_later(
    make_guest: Callable[..., Guest],
) -> None:
    guest = make_guest(disks=2)
    # all layers are there when virmirror looks, but not when QEMU opens them
    fault = missing_once_released(guest.path2 / "common2", awaited=guest.path1 / "old.migrate")
    snap = None
    with pivot_fails_half_way(guest, fault):
        snap = guest.dom.snapshotLookupByName("migrate")
        with pytest.raises(virmirror.NotFoundError) as again:
            virmirror.snapshotDelete(snap, PIVOT)
        assert f"'{guest.path2}/common2'" in str(again.value)
        assert (again.value.disk, again.value.partial) == ("vdb", True)
        guest.wait_for_writes(50)
    virmirror.snapshotDelete(snap, PIVOT)
    shutil.rmtree(guest.path1)
    check_ended(guest, guest.path2 / "new-vda.qcow2", guest.path2 / "new-vdb.qcow2")


def test_pivot_that_failed_half_way_is_aborted_for_the_rest(
    make_guest: Callable[..., Guest],
) -> None:
    guest = make_guest(disks=2)
    with pivot_fails_half_way(guest, denied(guest.path2 / "old2.qcow2", READ)):
        snap = guest.dom.snapshotLookupByName("migrate")
    with pytest.raises(virmirror.MirrorError, match=r"left layers .* abort it"):
        virmirror.snapshotDelete(snap, PIVOT)
    virmirror.snapshotDelete(snap, ABORT)
    # of each disk what is not in use, and was made for this, is gone
    assert not (guest.path1 / "old.migrate").exists()
    assert not (guest.path2 / "new-vdb.qcow2").exists()
    check_ended(guest, guest.path2 / "new-vda.qcow2", guest.path1 / "old2.migrate")
