# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shortening the chain after a migration: what is written for it.

The old layer holds much, the guest writes little meanwhile. The seed pulls the
old layer into the new one; virmirror may commit the new one into the old one.
"""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Callable, Mapping

import virmirror
from harness import Bench, Column, Results, Target, Values, main
from hosts import PIVOTED, Guest, JobEvents, Seed, Virsh
from tools import Wrong, allocated
from virmirror.testguest import MIB

PULL, AUTO, OURS_PULL = "virsh blockpull", "virmirror.migrate", "virmirror.migrate, pull"

BLOCK = 8192  # bytes the guest writes at a time


class Collapse(Bench):
    __doc__ = __doc__
    name = "collapse"
    title = "collapse of the chain after a migration"
    notes = (
        "from the end of the copy (the pivot) to the end of the collapse",
        "written: by QEMU, from its /proc/PID/io, less the guest's own writes in that time",
        "guest: what it has written from the snapshot to the end of the collapse",
    )
    columns = (
        Column("written", "written (MiB)", 1, ratio=True),
        Column("guest", "guest (MiB)", 1),
        Column("grown", "allocated for it (MiB)", 1),
        Column("seconds", "seconds", 2),
    )
    reference = PULL

    def prepare(self) -> None:
        self.daemon = self.setting.daemon()
        self.virsh = Virsh(self.daemon)
        self.events = JobEvents(self.daemon.conn)
        self.data = self.amount(1024, quick=32)

    def close(self) -> None:
        if hasattr(self, "events"):
            self.events.close()

    def contenders(self, case: str) -> Mapping[str, Callable[[], Values]]:
        ways: dict[str, Callable[[Guest], Values]] = {
            PULL: self._pull,
            AUTO: lambda guest: self._migrate(guest, "auto"),
            OURS_PULL: lambda guest: self._migrate(guest, "pull"),
        }
        return {name: lambda way=way: self._collapse(way) for name, way in ways.items()}

    def _collapse(self, way: Callable[[Guest], Values]) -> Values:
        size = 64 * MIB + self.data
        guest = Guest(self.daemon, self.work, size=size, top_data=self.data)
        try:
            values = way(guest)
            chain = guest.chain()
            if len(chain) != 2 or any(path.parent != guest.path2 for path in chain):
                raise Wrong(f"the chain is {chain}")
            guest.wait_for_writes(20)
            guest.check(chain[0])
        finally:
            guest.end()
        return values

    def _pull(self, guest: Guest) -> Values:
        seed = Seed(guest)
        spec = seed.prepare()
        pid = self.daemon.qemu_pids()[seed.name]
        begun = Written(guest, pid)
        with virmirror.MirrorSnapshot.create(
            guest.dom, "migrate", spec, reuse_external=True
        ) as mirror:
            seed.copy_layers()
            mirror.wait_ready(timeout=60)
            mirror.pivot()
        pivoted = Written(guest, pid)
        seed.virsh_pull(self.virsh)
        return Written(guest, pid).since(begun, pivoted)

    def _migrate(self, guest: Guest, collapse: str) -> Values:
        name = guest.dom.name()
        # known in advance: what follows the end of the copy must not go uncounted
        pid = self.daemon.qemu_pids()[name]
        begun = Written(guest, pid)
        pivoted: list[Written] = []
        self.events.on(name, PIVOTED, lambda: pivoted.append(Written(guest, pid)))
        virmirror.migrate(guest.dom, {"vda": guest.path2}, collapse=collapse)
        if len(pivoted) != 1:
            raise Wrong(f"the end of the copy was seen {len(pivoted)} times")
        return Written(guest, pid).since(begun, pivoted[0])

    def targets(self, results: Results) -> list[Target]:
        written, guest = (results.median("", AUTO, key) for key in ("written", "guest"))
        return [Target("bytes written over what the guest wrote meanwhile", written / guest, 1.2)]


class Written:
    """What QEMU, and its guest, have written by now."""

    def __init__(self, guest: Guest, pid: int) -> None:
        self.time = time.monotonic()
        lines = pathlib.Path(f"/proc/{pid}/io").read_text().splitlines()
        counters = dict(line.split(": ") for line in lines)
        self.qemu = int(counters["wchar"])
        self.guest = guest.serial.stat().st_size * BLOCK
        self.allocated = allocated(*guest.path2.iterdir())

    def since(self, begun: Written, pivoted: Written) -> Values:
        own = self.guest - pivoted.guest
        return {
            "written": (self.qemu - pivoted.qemu - own) / MIB,
            "guest": (self.guest - begun.guest) / MIB,
            "grown": (self.allocated - pivoted.allocated) / MIB,
            "seconds": self.time - pivoted.time,
        }


if __name__ == "__main__":
    sys.exit(main(Collapse))
