# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pivot of all disks at one point in the guest's time, or of none of them."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import libvirt
import pytest

import virmirror
from support.guest import Guest
from support.mirrors import BYTES_PER_SECOND, copy_in_place, seed_spec
from support.storage import READ, SlowFile, denied, missing_once_released

pytestmark = pytest.mark.qemu

RUNNING = libvirt.VIR_DOMAIN_RUNNING
NOT_CONVERGING = (
    r"do not converge: [\d.]+ MiB are left, the guest writes [\d.]+ MiB/s, "
    r"[\d.]+ MiB/s are mirrored, the pause budget is 0\.5 s"
)
PAUSED_BY_USER = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER]


def overlays(guest: Guest) -> list[pathlib.Path]:
    return [top.with_suffix(".migrate") for top in guest.tops]


def mirrors(guest: Guest) -> list[pathlib.Path]:
    return [guest.path2 / f"new-{target}.qcow2" for target in guest.targets()]


def start_mirror(guest: Guest) -> virmirror.MirrorSnapshot:
    """A mirror of all disks that is ready, on chains that are copied."""
    for target in guest.targets():
        virmirror.prepare_chain(guest.dom, target, guest.path2)
    specs = [
        f"{target},mirror={path}"
        for target, path in zip(guest.targets(), mirrors(guest), strict=True)
    ]
    mirror = virmirror.MirrorSnapshot.create(guest.dom, "migrate", specs)
    copy_in_place(guest)
    mirror.wait_ready(timeout=30)
    return mirror


@contextlib.contextmanager
def watched(guest: Guest) -> Iterator[list[str]]:
    """What happens to the guest's CPUs meanwhile."""
    names = {
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED: "suspended",
        libvirt.VIR_DOMAIN_EVENT_RESUMED: "resumed",
    }
    seen: list[str] = []

    def note(
        conn: libvirt.virConnect, dom: libvirt.virDomain, event: int, detail: int, opaque: None
    ) -> None:
        seen.append(names.get(event, str(event)))

    conn = guest.dom.connect()
    handle = conn.domainEventRegisterAny(
        guest.dom, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, note, None
    )
    try:
        yield seen
        time.sleep(0.3)  # the last event is on its way
    finally:
        conn.domainEventDeregisterAny(handle)


def check_ended(guest: Guest, tops: list[pathlib.Path], *, left: list[pathlib.Path]) -> None:
    """The guest writes to ``tops`` alone, has lost nothing, and ``left`` are gone."""
    assert guest.sources() == tops
    assert [guest.chain(target, inactive=True)[0] for target in guest.targets()] == tops
    assert not any(guest.dom.blockJobInfo(target) for target in guest.targets())
    assert not guest.has_journal()
    assert guest.dom.snapshotNum() == 0
    assert not any(path.exists() for path in left)
    guest.wait_for_writes(50)
    guest.check(*tops)


# ---- all of them


def test_pivot_suspends_once_and_tells_for_how_long(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(disks=2)
    mirror = start_mirror(guest)
    begin = time.monotonic()
    with watched(guest) as seen:
        pause = mirror.pivot(pause_budget=5.0)
        took = time.monotonic() - begin
        assert guest.dom.state()[0] == RUNNING
    assert seen == ["suspended", "resumed"]
    assert 0 < pause < took
    check_ended(guest, mirrors(guest), left=overlays(guest))


def test_pivot_without_a_budget_does_not_suspend(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(disks=2)
    mirror = start_mirror(guest)
    with watched(guest) as seen:
        assert mirror.pivot(pause_budget=None) == 0
    assert seen == []
    check_ended(guest, mirrors(guest), left=overlays(guest))


def test_pivot_of_a_guest_that_was_paused_leaves_it_so(guest: Guest) -> None:
    mirror = start_mirror(guest)
    guest.dom.suspend()
    with watched(guest) as seen:
        assert mirror.pivot() == 0
    assert seen == []
    assert guest.dom.state() == PAUSED_BY_USER
    guest.dom.resume()
    check_ended(guest, mirrors(guest), left=overlays(guest))


def test_pivot_lifts_the_limit_of_the_copy(guest: Guest) -> None:
    mirror = start_mirror(guest)
    guest.dom.blockJobSetSpeed("vda", 1)
    assert guest.dom.blockJobInfo("vda")["bandwidth"] == 1
    # QEMU opens a layer at the end, when the limit is lifted
    with denied(guest.path2 / "old.qcow2", READ), pytest.raises(virmirror.MirrorError):
        mirror.pivot()
    assert guest.dom.blockJobInfo("vda")["bandwidth"] == 0
    mirror.abort()
    check_ended(guest, overlays(guest), left=mirrors(guest))


# ---- or none


@pytest.mark.parametrize("budget", [5.0, None], ids=["suspended", "running"])
def test_atomic_pivot_that_fails_half_way_brings_all_back(
    make_guest: Callable[..., Guest], budget: float | None
) -> None:
    guest = make_guest(disks=2)
    mirror = start_mirror(guest)
    with watched(guest) as seen, denied(guest.path2 / "old2.qcow2", READ):
        with pytest.raises(virmirror.MirrorError, match="were brought back") as caught:
            mirror.pivot(atomic=True, pause_budget=budget)
        assert guest.dom.state()[0] == RUNNING
    assert (caught.value.disk, caught.value.partial) == ("vdb", False)
    assert seen == (["suspended", "resumed"] if budget else [])
    assert guest.sources() == overlays(guest)
    assert [disk.state for disk in mirror.disks] == ["aborted", "pivoting"]
    guest.wait_for_writes(50)
    mirror.abort()
    check_ended(guest, overlays(guest), left=mirrors(guest))


def test_pivot_that_is_not_atomic_is_finished_by_a_second_call(
    make_guest: Callable[..., Guest],
) -> None:
    guest = make_guest(disks=2)
    mirror = start_mirror(guest)
    # all layers are there when virmirror looks, but not when QEMU opens them
    with missing_once_released(guest.path2 / "common2", awaited=overlays(guest)[0]):
        with pytest.raises(virmirror.MirrorError) as caught:
            mirror.pivot(atomic=False)
        assert (caught.value.disk, caught.value.partial) == ("vdb", True)
        assert guest.dom.state()[0] == RUNNING
        assert guest.sources() == [mirrors(guest)[0], overlays(guest)[1]]
        assert [disk.state for disk in mirror.disks] == ["pivoted", "pivoting"]
        guest.wait_for_writes(50)
    mirror.pivot(atomic=False)
    check_ended(guest, mirrors(guest), left=overlays(guest))


# ---- a mirror that cannot follow


def test_mirror_that_never_converges_ends_with_figures(guest: Guest) -> None:
    spec = seed_spec(guest)
    with SlowFile(guest.path2 / "new.qcow2", BYTES_PER_SECOND):
        with guest.resting():  # so that there is nothing to copy yet
            mirror = virmirror.MirrorSnapshot.create(
                guest.dom, "migrate", spec, reuse_external=True
            )
            copy_in_place(guest)
            mirror.wait_ready(timeout=30)
        guest.wait_for_writes(100)
        with watched(guest) as seen:
            begin = time.monotonic()
            with pytest.raises(virmirror.MirrorTimeoutError, match=NOT_CONVERGING):
                mirror.pivot(pause_budget=0.5, timeout=4)
            assert 3 < time.monotonic() - begin < 60
        assert seen == []
        assert [disk.state for disk in mirror.disks] == ["mirroring"]
        with pytest.raises(virmirror.MirrorTimeoutError, match="what is still missing"):
            mirror.abort(timeout=1)
        with guest.resting():
            mirror.abort(timeout=60)
    check_ended(guest, overlays(guest), left=[])


# ---- whoever dies meanwhile


DIE_SUSPENDED = """
    import os, signal, sys
    import libvirt, virmirror
    virmirror.start_event_loop()
    conn = libvirt.open(sys.argv[1])
    dom = conn.lookupByName(sys.argv[2])

    def die(conn, dom, event, detail, opaque):
        if event == libvirt.VIR_DOMAIN_EVENT_SUSPENDED:
            os.kill(os.getpid(), signal.SIGKILL)

    conn.domainEventRegisterAny(dom, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, die, None)
    virmirror.adopt(dom).pivot(pause_budget=5.0)
"""


def test_guest_of_a_pivot_that_was_killed_is_resumed(
    qemus_reaped: None, tmp_path: pathlib.Path
) -> None:
    from support.daemon import Daemon

    folder = tmp_path / "daemon"
    folder.mkdir()
    with Daemon(folder) as daemon:
        guest = Guest(daemon, tmp_path, disks=2)
        start_mirror(guest).detach()
        # the layers of the second disk cannot be opened, so that it takes its time
        with denied(guest.path2 / "old2.qcow2", READ):
            process = subprocess.run(
                [
                    *(sys.executable, "-c", textwrap.dedent(DIE_SUSPENDED)),
                    *(daemon.uri, guest.dom.name()),
                ],
                timeout=60,
                check=False,
            )
        assert process.returncode == -signal.SIGKILL
        inspection = virmirror.inspect(guest.dom)
        assert (inspection.paused, inspection.paused_by_us) == (True, True)
        recovery = virmirror.recover(guest.dom, "abort", timeout=30)
        assert (recovery.verdict, recovery.left) == ("nothing", ())
        assert guest.dom.state()[0] == RUNNING
        assert not guest.has_journal()
        guest.wait_for_writes(50)
        guest.check()
