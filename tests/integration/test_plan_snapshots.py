# SPDX-License-Identifier: LGPL-2.1-or-later
"""libvirt's own snapshots and jobs of a domain that is to be moved."""

from __future__ import annotations

import pathlib
import re
import time
from collections.abc import Callable

import libvirt
import pytest

import virmirror
from support.guest import Guest
from support.refusal import refused
from virmirror import testguest

pytestmark = pytest.mark.qemu

INVALID = libvirt.VIR_ERR_OPERATION_INVALID
DISK_ONLY = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
LEADS_BACK = "would lead back to the old storage"


def take_internal(guest: Guest, name: str = "inside") -> libvirt.virDomainSnapshot:
    return guest.dom.snapshotCreateXML(virmirror.snapshot_xml(name), 0)


def take_external(guest: Guest, name: str = "outside") -> libvirt.virDomainSnapshot:
    return guest.dom.snapshotCreateXML(virmirror.snapshot_xml(name), DISK_ONLY)


@pytest.mark.parametrize("take", [take_internal, take_external])
def test_domain_with_a_snapshot_is_refused(guest: Guest, take: Callable[..., object]) -> None:
    take(guest, "mine")
    words = ("('mine')", LEADS_BACK, "snapshots='keep'")
    for call in (virmirror.plan, virmirror.migrate):
        with refused(guest, virmirror.StateError, INVALID, *words):
            call(guest.dom, {"vda": guest.path2})


def test_all_snapshots_are_named(guest: Guest) -> None:
    for name in ("one", "two"):
        take_internal(guest, name)
    with refused(guest, virmirror.StateError, INVALID, "'one'", "'two'"):
        virmirror.plan(guest.dom, {"vda": guest.path2})


def test_domain_with_a_snapshot_that_is_kept_is_moved_and_reverts_to_the_old_storage(
    guest: Guest,
) -> None:
    snapshot = take_internal(guest)
    plan = virmirror.plan(guest.dom, {"vda": guest.path2}, snapshots="keep", collapse="commit")
    assert "a revert to a snapshot ('inside') leads back to the old storage" in plan.notes
    virmirror.run(plan, conn=guest.dom.connect())
    assert guest.chain()[0] == guest.path2 / "old.qcow2"
    guest.wait_for_writes()
    assert guest.dom.revertToSnapshot(snapshot, 0) == 0
    assert guest.chain()[0] == guest.path1 / "old.qcow2"


def test_snapshots_and_removal_of_what_they_need_exclude_each_other(guest: Guest) -> None:
    take_internal(guest)
    with refused(guest, virmirror.StateError, INVALID, "('inside')", "need the old files"):
        virmirror.plan(guest.dom, {"vda": guest.path2}, snapshots="keep", remove_source=True)


def test_source_that_a_snapshot_taken_meanwhile_needs_is_left(guest: Guest) -> None:
    top = guest.path1 / "old.qcow2"

    def take(progress: virmirror.Progress) -> None:
        if progress.phase == "collapse" and not guest.dom.snapshotNum():
            take_external(guest)

    plan = virmirror.plan(guest.dom, {"vda": guest.path2}, remove_source=True, collapse="none")
    report = virmirror.run(plan, conn=guest.dom.connect(), on_progress=take)
    assert str(top) in report.left
    assert top.exists()
    guest.wait_for_writes()
    guest.check()


def test_snapshot_that_was_taken_after_the_plan_is_refused(guest: Guest) -> None:
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    snapshot = take_internal(guest)
    with refused(guest, virmirror.StateError, INVALID, "('inside')", LEADS_BACK):
        virmirror.run(plan, conn=guest.dom.connect())
    snapshot.delete()
    virmirror.migrate(guest.dom, {"vda": guest.path2})
    guest.wait_for_writes()
    guest.check()


# ---- internal snapshots can follow


def rounds_on(guest: Guest, top: pathlib.Path) -> int:
    """How many rounds are on a disk, which must be whole up to the last one; what the guest
    has reported began anew when it was started again."""
    serial = guest.serial.with_name("rounds")
    serial.write_bytes(b".")
    with pytest.raises(testguest.WritesLost, match=r"(\d+) is the highest there") as caught:
        testguest.check(top, serial, layers=guest.layers)
    (highest,) = re.findall(r"(\d+) is the highest there", str(caught.value))
    serial.write_bytes(b"." * int(highest))
    return testguest.check(top, serial, layers=guest.layers).highest


def reported(guest: Guest) -> int:
    return guest.serial.read_bytes().count(b".")


def test_internal_snapshots_follow_and_a_revert_needs_no_old_file(guest: Guest) -> None:
    before = reported(guest)
    first = take_internal(guest, "first")
    after = reported(guest)
    guest.wait_for_writes()
    take_internal(guest, "second")
    guest.wait_for_writes()
    plan = virmirror.plan(
        guest.dom,
        {"vda": guest.path2},
        snapshots="follow",
        collapse="commit",
        remove_source=True,
    )
    assert not any("leads back" in note for note in plan.notes)
    report = virmirror.run(plan, conn=guest.dom.connect())
    assert str(guest.path1 / "old.qcow2") in report.removed
    guest.path1.rename(guest.path1.with_name("away"))
    assert sorted(guest.dom.snapshotListNames()) == ["first", "second"]
    assert guest.dom.snapshotCurrent().getName() == "second"
    assert guest.dom.snapshotLookupByName("second").getParent().getName() == "first"
    guest.wait_for_writes()

    guest.dom.revertToSnapshot(guest.dom.snapshotLookupByName("second"), 0)
    assert guest.chain() == [guest.path2 / "old.qcow2", guest.path2 / "common"]
    guest.wait_for_writes()
    guest.dom.revertToSnapshot(first, 0)
    assert guest.chain() == [guest.path2 / "old.qcow2", guest.path2 / "common"]
    guest.wait_for_writes()
    guest.dom.destroy()
    # it has gone on from the first snapshot, not from the second
    at_first = rounds_on(guest, guest.path2 / "old.qcow2") - reported(guest)
    assert before <= at_first <= after + 1


def test_external_snapshot_cannot_follow(guest: Guest) -> None:
    take_external(guest)
    words = ("'outside'", "cannot follow", "not internal")
    with refused(guest, virmirror.StateError, INVALID, *words):
        virmirror.plan(guest.dom, {"vda": guest.path2}, snapshots="follow", collapse="commit")


# ---- what works, and is to stay so


def take_checkpoint(guest: Guest) -> None:
    guest.dom.checkpointCreateXML("<domaincheckpoint><name>since</name></domaincheckpoint>", 0)


def test_checkpoints_come_along(guest: Guest) -> None:
    take_checkpoint(guest)
    virmirror.migrate(guest.dom, {"vda": guest.path2}, collapse="commit")
    assert [checkpoint.getName() for checkpoint in guest.dom.listAllCheckpoints()] == ["since"]
    backup = guest.path1.parent / "backup.qcow2"
    guest.wait_for_writes()
    guest.dom.suspend()
    guest.dom.backupBegin(
        "<domainbackup><incremental>since</incremental><disks><disk name='vda' type='file'>"
        f"<target file='{backup}'/><driver type='qcow2'/></disk></disks></domainbackup>",
        None,
    )
    wait_for_no_job(guest)
    assert backup.stat().st_size > 0
    guest.dom.resume()
    guest.wait_for_writes()
    guest.check()


def wait_for_no_job(guest: Guest) -> None:
    end = time.monotonic() + 60
    while guest.dom.jobStats()["type"] != libvirt.VIR_DOMAIN_JOB_NONE:
        assert time.monotonic() < end
        time.sleep(0.02)


# ---- jobs on the domain


def start_backup(guest: Guest, mode: str, where: pathlib.Path) -> None:
    if mode == "pull":
        xml = (
            f"<domainbackup mode='pull'><server transport='unix' socket='{where}.socket'/>"
            f"<disks><disk name='vda' type='file'><scratch file='{where}'/></disk></disks>"
            "</domainbackup>"
        )
    else:
        xml = (
            "<domainbackup><disks><disk name='vda' type='file'>"
            f"<target file='{where}'/><driver type='qcow2'/></disk></disks></domainbackup>"
        )
    guest.dom.backupBegin(xml, None)


def test_domain_with_a_running_backup_is_refused(guest: Guest) -> None:
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    start_backup(guest, "pull", guest.path1.parent / "scratch")
    words = ("a job of libvirt works on the domain (backup)", "wait for it or end it")
    with refused(guest, virmirror.BusyError, INVALID, *words):
        virmirror.MirrorSnapshot.create(guest.dom, "m", f"vda,mirror={guest.path2}/new.qcow2")
    for name in ("old.qcow2", "common"):
        (guest.path2 / name).unlink()
    with refused(guest, virmirror.BusyError, INVALID, *words):
        virmirror.plan(guest.dom, {"vda": guest.path2})
    guest.dom.abortJob()
    wait_for_no_job(guest)
    virmirror.migrate(guest.dom, {"vda": guest.path2})
    guest.wait_for_writes()
    guest.check()


def test_jobs_are_told_with_all_else(guest: Guest) -> None:
    take_internal(guest)
    start_backup(guest, "pull", guest.path1.parent / "scratch")
    (guest.path2 / "old.qcow2").touch()
    words = ("(backup)", LEADS_BACK, "is there already")
    with refused(guest, virmirror.SpecError, libvirt.VIR_ERR_CONFIG_UNSUPPORTED, *words):
        virmirror.plan(guest.dom, {"vda": guest.path2})
    guest.dom.abortJob()
    wait_for_no_job(guest)
