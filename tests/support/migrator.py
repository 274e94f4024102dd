# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run as a program: finish or undo the migration that died, and die in the next one.

The one argument is a JSON object. ``last`` names the folder of a guest whose migration
was killed, and whether it is to be undone; what it came to is printed as JSON.
``next`` names the folder of a new guest, and where this process is to be killed: at
the n-th of the moments at which Python touches a file (``touch``), or at the n-th call
of libvirt (``call``; the killshim), or ``delay`` µs after it has begun its n-th commit
(``commit``). With n = 0 nothing happens, and the number of
moments is printed.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import signal
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import ctypes

import virmirror
from support import guest as guests
from support.guest import Guest
from virmirror import embed

_COMMIT = b"virDomainBlockCommit"  # the shim keeps a pointer to it

# Python's audit events around everything that is made, named or removed.
TOUCHES = {"os.link", "os.remove", "os.rename", "os.mkdir", "subprocess.Popen", "fcntl.fcntl"}


class Touches:
    """Counts touches of files from its start on, and ends the process at the n-th."""

    def __init__(self, n: int) -> None:
        self.count = 0
        self._n = n
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, args: tuple[Any, ...]) -> None:
        if event in TOUCHES:
            self.count += 1
            if self.count == self._n:
                os.kill(os.getpid(), signal.SIGKILL)


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def check_end(guest: Guest, folder: pathlib.Path) -> None:
    """The guest is in ``folder`` on files with the old names, and nothing is left."""
    other = guest.path1 if folder == guest.path2 else guest.path2
    for target, top in zip(guest.targets(), guest.tops, strict=True):
        assert guest.chain(target)[0] == folder / top.name
        assert guest.chain(target, inactive=True)[0] == folder / top.name
        assert not guest.dom.blockJobInfo(target)
    assert names(guest.path1) == guest_files(guest)
    assert names(guest.path2) == (guest_files(guest) if other == guest.path1 else [])
    assert not guest.has_journal()
    assert guest.dom.snapshotNum() == 0
    assert virmirror.unfinished(guest.dom) is None
    guest.wait_for_writes(20)
    guest.check()


def guest_files(guest: Guest) -> list[str]:
    tops = [top.name for top in guest.tops]
    return sorted([*tops, *(name.replace("old", "common").split(".")[0] for name in tops)])


def finish(host: embed.Host, guest: Guest, plan: virmirror.Plan) -> None:
    """Run the plan; where libvirt has missed the end of a commit do first what is told."""
    try:
        virmirror.run(plan, conn=host.conn)
    except virmirror.DivergedError as error:
        assert "shut it down and start it again" in str(error), error
        guest.wait_for_writes(20)
        guest.check(*(guest.chain(target, inactive=True)[0] for target in guest.targets()))
        guest.serial.write_bytes(b"")
        guest.dom.create()
        virmirror.run(plan, conn=host.conn)
        guest.wait_for_writes(300)  # from round 1 on, and over all that was there


def settle(host: embed.Host, job: dict[str, Any]) -> dict[str, Any]:
    """Finish or undo what the last process began."""
    guest = Guest.found(host, pathlib.Path(job["folder"]))
    plan = virmirror.unfinished(guest.dom)
    report: dict[str, Any] = {
        "plan": plan is not None,
        "verdict": virmirror.inspect(guest.dom).verdict,
        "top": guest.chain()[0].name,
    }
    print(json.dumps(report), flush=True)
    folder = guest.path2
    if plan is None and guest.chain()[0].parent == guest.path1:
        folder = guest.path1  # it died before anything was noted down, or made
    elif plan is not None and job["undo"]:
        try:
            virmirror.undo(plan, conn=host.conn)
            folder = guest.path1
        except virmirror.StateError as error:
            assert "on the new storage already" in str(error), error
            finish(host, guest, plan)
    elif plan is not None:
        finish(host, guest, plan)
    report["ended"] = folder.name
    check_end(guest, folder)
    guest.end()
    print(json.dumps(report), flush=True)
    return report


def begin(host: embed.Host, job: dict[str, Any]) -> None:
    guests._numbers = itertools.count(job["number"])  # this process is not the first
    guest = Guest(host, pathlib.Path(job["folder"]), disks=2)
    plan = virmirror.plan(guest.dom, dict.fromkeys(guest.targets(), guest.path2))
    if job["kind"] != "touch":
        shim = ctypes.CDLL(None)
        log = job["log"].encode()
        if job["kind"] == "commit":
            types = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_long]
            shim.killshim_arm_in.argtypes = types
            shim.killshim_arm_in(log, _COMMIT, job["n"], job["delay"])
        else:
            shim.killshim_arm.argtypes = [ctypes.c_char_p, *[ctypes.c_int] * 3, ctypes.c_long]
            shim.killshim_arm(log, job["n"], 0, 0, 0)
        virmirror.run(plan, conn=host.conn)
        print(json.dumps({"count": len(pathlib.Path(job["log"]).read_text().splitlines())}))
    else:
        touches = Touches(job["n"])
        virmirror.run(plan, conn=host.conn)
        print(json.dumps({"count": touches.count}), flush=True)


def main() -> None:
    job = json.loads(sys.argv[1])
    with embed.Host(job["root"], keep_guests=True, capabilities_cache=job["cache"]) as host:
        if job["last"]:
            settle(host, job["last"])
        if job["next"]:
            begin(host, job["next"])


if __name__ == "__main__":
    main()
