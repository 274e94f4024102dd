# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run as a program: put right what the last one left, and be killed in turn.

The one argument is a JSON object. ``recover`` names the folder of a guest whose
manager was killed, and the policy: what was found, and what became of it, is
printed as JSON. ``next`` names the folder of a new guest, a scenario to play
with it, and the call of libvirt that this process is to be killed at.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import pathlib
import shutil
import sys
import time
from typing import Any

import libvirt

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import virmirror
from support import guest as guests
from support.guest import Guest
from support.patience import PATIENCE
from support.storage import is_written_to
from virmirror import embed, testguest

GOING = ("mirroring", "ready")
UNKNOWN_TO_LIBVIRT = ("stuck", "lying")
TARGETS = ("vda", "vdb")


def mirror_of(guest: Guest, n: int) -> pathlib.Path:
    return guest.path2 / f"new{n}.qcow2"


def overlay_of(guest: Guest, n: int) -> pathlib.Path:
    return guest.tops[n].with_suffix(".migrate")


def create(guest: Guest) -> virmirror.MirrorSnapshot:
    # without asking libvirt, since its calls are counted
    specs = [f"{target},mirror={mirror_of(guest, n)}" for n, target in enumerate(TARGETS)]
    specs = specs[: len(guest.tops)]
    return virmirror.MirrorSnapshot.create(guest.dom, "migrate", specs)


def copy_backing(guest: Guest) -> None:
    """Fill the skeletons, once: they must not be touched when they are in use."""
    done = guest.path2 / "copied"
    if not done.exists():
        for source in guest.path1.iterdir():
            if (guest.path2 / source.name).exists():
                shutil.copyfile(source, guest.path2 / source.name)
        done.touch()


def begin(guest: Guest) -> virmirror.MirrorSnapshot:
    create(guest).detach()
    copy_backing(guest)
    mirror = virmirror.adopt(guest.dom)
    mirror.wait_ready(30)
    return mirror


def play_pivot(guest: Guest, shim: ctypes.CDLL) -> None:
    begin(guest).pivot()


def play_running(guest: Guest, shim: ctypes.CDLL) -> None:
    begin(guest).pivot(pause_budget=None)


def play_abort(guest: Guest, shim: ctypes.CDLL) -> None:
    begin(guest).abort()


def play_return(guest: Guest, shim: ctypes.CDLL) -> None:
    """The last disk cannot be pivoted, so those before it are brought back."""
    shim.killshim_fail_pivot(len(guest.tops))
    mirror = begin(guest)
    try:
        mirror.pivot()
    except virmirror.MirrorError:
        mirror.abort(timeout=120)  # the guest may be faster than the mirror for long


def play_recover(guest: Guest, shim: ctypes.CDLL) -> None:
    create(guest).detach()
    copy_backing(guest)
    virmirror.recover(guest.dom, "pivot")


def wait_until(condition: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def check_end(
    guest: Guest, *, leaked: bool = False, split: bool = False, restarted: bool = False
) -> list[str]:
    """Nothing is left of it, the guest writes, and no write was lost.

    A QEMU that has ``leaked`` files keeps them open, and so they are still there;
    ``split``: the disks may be on different sides.
    """
    tops = guest.sources()
    sides = set()
    for n, (target, top) in enumerate(zip(guest.targets(), tops, strict=True)):
        files = {"new": mirror_of(guest, n), "old": overlay_of(guest, n), "source": guest.tops[n]}
        (side,) = (side for side, path in files.items() if path == top)
        sides.add(side)
        assert guest.chain(target, inactive=True)[0] == top, target
        assert not guest.dom.blockJobInfo(target), target
        for path in files.values():
            if path == top:
                assert is_written_to(path), path
            elif path == guest.tops[n]:
                assert not is_written_to(path), path
            elif not leaked:
                assert not path.exists(), path
    assert split or len(sides) == 1, sides
    assert not guest.has_journal()
    assert guest.dom.snapshotNum() == 0
    guest.wait_for_writes(20)
    if not restarted:  # it writes from round 1 on, over what was checked before
        guest.check(*tops)
    return sorted(sides)


def next_tops(guest: Guest) -> list[pathlib.Path]:
    """The files that the next start of the guest uses."""
    return [guest.chain(target, inactive=True)[0] for target in guest.targets()]


def restart(guest: Guest, recovery: virmirror.Recovery, report: dict[str, Any]) -> None:
    """What a person is told to do where QEMU writes to what libvirt does not know."""
    assert len(recovery.left) > 0
    guest.wait_for_writes(20)
    guest.dom.destroy()
    report["restarted"] = True
    guest.check(*next_tops(guest))
    guest.serial.write_bytes(b"")
    guest.dom.create()
    guest.wait_for_writes(20)


def is_whole(guest: Guest, top: pathlib.Path, drive: int) -> bool:
    try:
        testguest.check(top, guest.serial, drive=drive)
    except testguest.WritesLost:
        return False
    return True


def end_lost(host: embed.Host, guest: Guest, job: dict[str, Any], report: dict[str, Any]) -> bool:
    """What a person is told to do where libvirt has lost a QEMU that still runs.

    A start is held back by the lock of the file that QEMU writes to, where that is
    known. What the guest wrote before it was suspended is on both sides; where it
    was not suspended a person may have to look which one is newer, and this returns
    False.
    """
    assert not guest.dom.isActive()
    tops = next_tops(guest)
    assert any(is_written_to(top) for top in tops), tops
    assert embed.end_qemus(host.root)
    recovery = virmirror.recover(guest.dom, job["policy"])
    if recovery.verdict == "off":
        assert recovery.left and not report["inspection"]["paused_by_us"], recovery
        for n in range(len(guest.tops)):
            sides = mirror_of(guest, n), overlay_of(guest, n)
            assert any(side.exists() and is_whole(guest, side, n) for side in sides), n
        return False
    assert recovery.verdict == "nothing", recovery
    report["restarted"] = True
    guest.check(*tops)
    assert next_tops(guest) == tops
    guest.serial.write_bytes(b"")
    guest.dom.create()
    guest.wait_for_writes(20)
    return True


def recover(host: embed.Host, job: dict[str, Any]) -> dict[str, Any]:
    guest = Guest.found(host, pathlib.Path(job["folder"]))
    inspection = virmirror.inspect(guest.dom)
    report: dict[str, Any] = {"inspection": json.loads(inspection.to_json())}
    print(json.dumps(report), flush=True)
    if inspection.verdict != "nothing":
        copy_backing(guest)
    recovery = virmirror.recover(guest.dom, job["policy"])
    report["recovery"] = json.loads(recovery.to_json())
    print(json.dumps(report), flush=True)
    if recovery.verdict == "lost":
        if not end_lost(host, guest, job, report):
            guest.end()
            return report
        recovery = virmirror.recover(guest.dom, job["policy"])
    assert guest.dom.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    again = virmirror.recover(guest.dom, job["policy"])
    assert (again.verdict, again.done) == (recovery.verdict, ()), again
    policy = job["policy"]
    if recovery.verdict in GOING and policy == "resume":
        assert not recovery.left, recovery
        policy = job["then"]
        recovery = virmirror.recover(guest.dom, policy)
    if recovery.verdict in (*GOING, "cut-over"):
        # the pivot had left layers in QEMU that keep any other one from working
        assert policy != "abort" and "recover with 'abort'" in recovery.left[0], recovery
        policy = "abort"
        recovery = virmirror.recover(guest.dom, policy)
    assert inspection.verdict != "creating" or not recovery.left, recovery
    if recovery.verdict in UNKNOWN_TO_LIBVIRT:
        restart(guest, recovery, report)
        recovery = virmirror.recover(guest.dom, job["policy"])
    assert recovery.verdict == "nothing", recovery
    report["left"] = recovery.left
    # an abort leaves those on the mirrors that had been pivoted by then, and a
    # restart ends the mirrors of those that had not
    split = (inspection.verdict, policy) == ("cut-over", "abort") or "restarted" in report
    report["side"] = check_end(
        guest, leaked=bool(recovery.left), split=split, restarted="restarted" in report
    )
    guest.end()
    print(json.dumps(report), flush=True)
    return report


def play(host: embed.Host, job: dict[str, Any]) -> None:
    shim = ctypes.CDLL(None)
    shim.killshim_arm.argtypes = [ctypes.c_char_p, *[ctypes.c_int] * 3, ctypes.c_long]
    guests._numbers = itertools.count(job["number"])  # this process is not the first
    guest = Guest(host, pathlib.Path(job["folder"]), disks=job["disks"])
    for target in guest.targets():
        virmirror.prepare_chain(guest.dom, target, guest.path2)
    shim.killshim_arm(job["log"].encode(), job["before"], job["after"], job["during"], job["delay"])
    globals()["play_" + job["scenario"]](guest, shim)
    print(json.dumps({"finished": True}), flush=True)
    time.sleep(0.2)  # one that is to be killed in the last call still is


def main() -> None:
    job = json.loads(sys.argv[1])
    with embed.Host(job["root"], keep_guests=True, capabilities_cache=job["cache"]) as host:
        if job["recover"]:
            recover(host, job["recover"])
        if job["next"]:
            play(host, job["next"])


if __name__ == "__main__":
    main()
