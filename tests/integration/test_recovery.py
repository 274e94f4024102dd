# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is left of a mirrored snapshot is told, and put right, whatever it is.

Verdicts are provoked on a real QEMU; ``docs/internals/states.rst`` has a table of
them all. What takes the death of a process is in ``test_kill_sweep.py``.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import libvirt
import pytest

import virmirror
from support.guest import Guest
from support.patience import PATIENCE
from support.qemu import monitor
from support.storage import READ, SlowFile, denied

pytestmark = pytest.mark.qemu

TARGETS = ("vda", "vdb")
MIB = 1024 * 1024


def mirror_of(guest: Guest, n: int = 0) -> pathlib.Path:
    return guest.path2 / f"new{n}.qcow2"


def overlay_of(guest: Guest) -> pathlib.Path:
    return guest.path1 / "old.migrate"


def create(guest: Guest, disks: int = 1) -> virmirror.MirrorSnapshot:
    """A mirrored snapshot whose copies are there already."""
    specs = []
    for n, target in enumerate(TARGETS[:disks]):
        virmirror.prepare_chain(guest.dom, target, guest.path2)
        specs.append(f"{target},mirror={mirror_of(guest, n)}")
    mirror = virmirror.MirrorSnapshot.create(guest.dom, "migrate", specs)
    for path in guest.path2.iterdir():
        if (guest.path1 / path.name).exists():
            shutil.copyfile(guest.path1 / path.name, path)
    return mirror


def leave_ready(guest: Guest, disks: int = 1) -> None:
    mirror = create(guest, disks)
    mirror.wait_ready(timeout=30)
    mirror.detach()


def verdict(guest: Guest) -> str:
    return virmirror.inspect(guest.dom).verdict


def wait_for_job_to_end(guest: Guest, target: str = "vda") -> None:
    end = time.monotonic() + PATIENCE
    while guest.dom.blockJobInfo(target):
        assert time.monotonic() < end
        time.sleep(0.02)


def restart(guest: Guest) -> None:
    """Start it again: it writes from round 1 on, over what was checked before."""
    guest.serial.write_bytes(b"")
    guest.dom.create()


def check_recovered(guest: Guest, top: pathlib.Path, *, restarted: bool = False) -> None:
    """It runs on ``top``, nothing else is left, and nothing that it wrote is lost."""
    assert virmirror.recover(guest.dom).done == ()
    assert not guest.has_journal()
    assert guest.dom.snapshotNum() == 0
    assert guest.chain()[0] == guest.chain(inactive=True)[0] == top
    for path in (overlay_of(guest), mirror_of(guest)):
        assert path == top or not path.exists()
    guest.wait_for_writes(20)
    if not restarted:
        guest.check(top)


def qemu_pid(guest: Guest) -> int:
    root = pathlib.Path(monitor_socket_root(guest))
    return int((root / "run" / "qemu" / f"{guest.dom.name()}.pid").read_text())


def monitor_socket_root(guest: Guest) -> str:
    found = re.search(r"root=([^&]+)", guest.dom.connect().getURI())
    assert found is not None
    return found[1]


def wait_until_off(guest: Guest) -> None:
    end = time.monotonic() + PATIENCE
    while guest.dom.isActive():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_inspect_without_a_snapshot_finds_nothing(guest: Guest) -> None:
    inspection = virmirror.inspect(guest.dom)
    assert (inspection.verdict, inspection.running, inspection.disks) == ("nothing", True, ())
    recovery = virmirror.recover(guest.dom)
    assert (recovery.found, recovery.verdict) == ("nothing", "nothing")
    assert (recovery.done, recovery.left) == ((), ())


def test_recover_with_pivot_during_a_copy_names_the_copy(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(data=2 * MIB)
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    spec = f"vda,mirror={mirror_of(guest)}"
    virmirror.MirrorSnapshot.create(guest.dom, "migrate", spec).detach()
    source, copy = guest.path1 / "common", guest.path2 / "common"
    job = virmirror.Copy.start(source, copy, overwrite=True, bandwidth=16 * 1024, reflink=False)
    with pytest.raises(virmirror.ImageError, match=f"'{copy}' is a copy that was not completed"):
        virmirror.recover(guest.dom, "pivot", timeout=30)
    job.cancel()
    with pytest.raises(virmirror.CancelledError):
        job.wait()
    assert virmirror.recover(guest.dom, "abort").verdict == "nothing"
    check_recovered(guest, overlay_of(guest))


def test_to_json_has_all_of_it(guest: Guest) -> None:
    leave_ready(guest)
    inspection = virmirror.inspect(guest.dom)
    told = json.loads(inspection.to_json())
    disks = tuple(virmirror.DiskInspection(**disk) for disk in told.pop("disks"))
    commits = tuple(told.pop("commits"))
    assert virmirror.Inspection(disks=disks, commits=commits, **told) == inspection
    recovery = virmirror.recover(guest.dom, "abort")
    told = json.loads(recovery.to_json())
    assert told["done"] == list(recovery.done) != []


@pytest.mark.parametrize("policy", ["resume", "abort", "pivot"])
def test_ready_mirror_is_recovered_as_the_policy_says(guest: Guest, policy: str) -> None:
    leave_ready(guest)
    assert verdict(guest) == "ready"
    recovery = virmirror.recover(guest.dom, policy)
    assert recovery.found == "ready"
    assert recovery.left == ()
    if policy == "resume":
        assert (recovery.verdict, recovery.done) == ("ready", ())
        virmirror.adopt(guest.dom).abort()
    else:
        assert recovery.verdict == "nothing"
    check_recovered(guest, mirror_of(guest) if policy == "pivot" else overlay_of(guest))


def test_mirror_that_is_not_ready_is_left_running_or_aborted(guest: Guest) -> None:
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    for path in (overlay_of(guest), mirror_of(guest)):
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "old.qcow2", "-F", "qcow2"]
        subprocess.run([*command, path], check=True)
    spec = f"vda,file={overlay_of(guest)},mirror={mirror_of(guest)}"
    with SlowFile(mirror_of(guest), 256 * 1024):
        virmirror.MirrorSnapshot.create(guest.dom, "migrate", spec, reuse_external=True).detach()
        assert verdict(guest) == "mirroring"
        assert virmirror.recover(guest.dom).verdict == "mirroring"
        assert virmirror.recover(guest.dom, "abort").verdict == "nothing"
    assert guest.chain()[0] == overlay_of(guest)
    guest.wait_for_writes(20)
    guest.check()


def test_mirror_without_space_is_found_aborted(guest: Guest) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", guest.path2], check=True)
    try:
        virmirror.prepare_chain(guest.dom, "vda", guest.path2)
        spec = f"vda,mirror={mirror_of(guest)}"
        virmirror.MirrorSnapshot.create(guest.dom, "migrate", spec).detach()
        wait_for_job_to_end(guest)
        assert verdict(guest) == "aborted"
        assert virmirror.recover(guest.dom).verdict == "nothing"
        check_recovered(guest, overlay_of(guest))
    finally:
        subprocess.run(["umount", "--lazy", guest.path2], check=True)


def test_one_of_two_disks_pivoted_is_found_as_cut_over(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(disks=2)
    leave_ready(guest, 2)
    guest.dom.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    inspection = virmirror.inspect(guest.dom)
    assert inspection.verdict == "cut-over"
    assert [disk.verdict for disk in inspection.disks] == ["pivoted", "ready"]
    assert virmirror.recover(guest.dom).verdict == "nothing"
    assert guest.sources() == [mirror_of(guest, 0), mirror_of(guest, 1)]
    guest.check()


def test_pivot_by_somebody_else_is_found_and_finished(guest: Guest) -> None:
    leave_ready(guest)
    guest.dom.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    assert verdict(guest) == "pivoted"
    assert virmirror.recover(guest.dom, "abort").verdict == "nothing"
    check_recovered(guest, mirror_of(guest))


def test_abort_by_somebody_else_is_found_and_finished(guest: Guest) -> None:
    leave_ready(guest)
    guest.dom.blockJobAbort("vda", 0)
    assert verdict(guest) == "aborted"
    assert virmirror.recover(guest.dom, "pivot").verdict == "nothing"
    check_recovered(guest, overlay_of(guest))


@pytest.mark.parametrize("pivoted", [False, True])
def test_guest_destroyed_meanwhile_is_found_off(guest: Guest, pivoted: bool) -> None:
    leave_ready(guest)
    if pivoted:
        guest.dom.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    guest.dom.destroy()
    assert verdict(guest) == "off"
    recovery = virmirror.recover(guest.dom)
    assert (recovery.verdict, recovery.left) == ("nothing", ())
    assert not guest.dom.isActive()
    top = mirror_of(guest) if pivoted else overlay_of(guest)
    guest.check(top)
    restart(guest)
    check_recovered(guest, top, restarted=True)


def test_qemu_killed_meanwhile_is_found_off(guest: Guest) -> None:
    leave_ready(guest)
    os.kill(qemu_pid(guest), signal.SIGKILL)
    wait_until_off(guest)
    assert verdict(guest) == "off"
    assert virmirror.recover(guest.dom).verdict == "nothing"
    guest.check(overlay_of(guest))


def complete_behind_libvirt(guest: Guest) -> None:
    """Have QEMU pivot; libvirt takes it for an abort."""
    (job,) = monitor(guest.dom, "query-block-jobs")
    monitor(guest.dom, "block-job-complete", device=job["device"])
    wait_for_job_to_end(guest)


def test_qemu_on_the_mirror_without_libvirt_is_found_lying(guest: Guest) -> None:
    leave_ready(guest)
    complete_behind_libvirt(guest)
    inspection = virmirror.inspect(guest.dom)
    assert inspection.verdict == "lying"
    assert inspection.disks[0].live == str(overlay_of(guest))
    assert inspection.disks[0].written == str(mirror_of(guest))
    recovery = virmirror.recover(guest.dom)
    assert recovery.verdict == "lying"
    assert len(recovery.left) == 1 and str(mirror_of(guest)) in recovery.left[0]
    assert guest.chain(inactive=True)[0] == mirror_of(guest)
    assert mirror_of(guest).exists() and guest.has_journal()
    guest.wait_for_writes(50)
    guest.dom.destroy()
    guest.check(mirror_of(guest))
    restart(guest)
    assert virmirror.recover(guest.dom).verdict == "nothing"
    check_recovered(guest, mirror_of(guest), restarted=True)


def test_another_file_of_the_mirror_s_name_is_found_foreign(guest: Guest) -> None:
    leave_ready(guest)
    mirror_of(guest).rename(guest.path2 / "away")
    shutil.copyfile(guest.path2 / "away", mirror_of(guest))
    assert verdict(guest) == "foreign"
    recovery = virmirror.recover(guest.dom, "pivot")
    assert (recovery.done, len(recovery.left)) == ((), 1)
    assert mirror_of(guest).exists() and guest.chain()[0] == overlay_of(guest)
    guest.check()


def suspended_by_us(guest: Guest) -> None:
    """What a process leaves that dies with the guest suspended for its pivot."""
    leave_ready(guest)
    uri = "urn:virmirror:journal"
    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
    element = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    text = guest.dom.metadata(element, uri, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    text = re.sub(r'state="mirroring"', 'state="pivoting" paused="yes"', text, count=1)
    text = re.sub(r"<mirror\b", "<mirror", text, count=1)
    guest.dom.setMetadata(element, text, "virmirror", uri, flags)
    guest.dom.suspend()


def test_guest_suspended_by_us_is_resumed(guest: Guest) -> None:
    suspended_by_us(guest)
    inspection = virmirror.inspect(guest.dom)
    assert (inspection.verdict, inspection.paused, inspection.paused_by_us) == ("ready", True, True)
    recovery = virmirror.recover(guest.dom)
    assert recovery.done == ("resumed the guest",)
    assert guest.dom.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    assert virmirror.recover(guest.dom, "pivot").verdict == "nothing"
    check_recovered(guest, mirror_of(guest))


@pytest.mark.parametrize("policy", ["resume", "abort", "pivot"])
def test_guest_suspended_by_somebody_else_stays_so(guest: Guest, policy: str) -> None:
    leave_ready(guest)
    guest.dom.suspend()
    assert not virmirror.inspect(guest.dom).paused_by_us
    virmirror.recover(guest.dom, policy)
    assert guest.dom.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    guest.dom.resume()
    virmirror.recover(guest.dom, "abort")
    assert verdict(guest) == "nothing"
    guest.check()


def test_guest_that_ends_by_a_reset_is_found_off(guest: Guest) -> None:
    leave_ready(guest)
    guest.dom.reset()  # this one has <on_reboot>destroy
    wait_until_off(guest)
    assert verdict(guest) == "off"
    assert virmirror.recover(guest.dom, "pivot").verdict == "nothing"
    guest.check(overlay_of(guest))


def test_domain_undefined_meanwhile_is_recovered(guest: Guest) -> None:
    leave_ready(guest)
    guest.dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
    inspection = virmirror.inspect(guest.dom)
    assert (inspection.verdict, inspection.persistent) == ("ready", False)
    assert virmirror.recover(guest.dom, "pivot").verdict == "nothing"
    guest.wait_for_writes(20)
    assert guest.chain()[0] == mirror_of(guest)
    guest.check(mirror_of(guest))


@pytest.mark.parametrize("policy", ["abort", "pivot"])
def test_domain_defined_anew_meanwhile_is_recovered(guest: Guest, policy: str) -> None:
    """The new definition has no journal, and the disk of before: the live one counts."""
    before = guest.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    leave_ready(guest)
    guest.dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
    guest.dom.connect().defineXML(before)
    assert guest.chain(inactive=True)[0] == guest.tops[0]
    assert verdict(guest) == "ready"
    recovery = virmirror.recover(guest.dom, policy)  # type: ignore[arg-type]
    assert recovery.verdict == "nothing"
    assert "in the persistent definition" in recovery.done[0]
    check_recovered(guest, mirror_of(guest) if policy == "pivot" else overlay_of(guest))


def test_pivot_that_can_never_work_again_is_told_and_aborted(guest: Guest) -> None:
    leave_ready(guest)
    mirror = virmirror.adopt(guest.dom)
    # the top layer cannot be opened, and the one below stays open
    with denied(guest.path2 / "old.qcow2", READ), pytest.raises(virmirror.MirrorError):
        mirror.pivot()
    mirror.detach()
    recovery = virmirror.recover(guest.dom, "pivot")
    assert (recovery.verdict, recovery.done) == ("ready", ())
    assert len(recovery.left) == 1 and "recover with 'abort'" in recovery.left[0]
    assert guest.dom.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    assert virmirror.recover(guest.dom, "abort").verdict == "nothing"
    check_recovered(guest, overlay_of(guest))


def test_unknown_policy_is_refused(guest: Guest) -> None:
    with pytest.raises(virmirror.SpecError):
        virmirror.recover(guest.dom, "guess")  # type: ignore[arg-type]
