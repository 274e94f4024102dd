# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a guest waits for a write while its disk is moved.

The guest of virmirror.testguest writes 8 KiB blocks, one after another, and reports
each by a byte on its serial port: the time between two bytes is what a write took
it, whatever was the cause. It runs without KVM.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import virmirror
from harness import Bench, Column, Results, Target, Values, main
from hosts import PIVOTED, Guest, JobEvents, Seed, Virsh
from tools import Wrong, build, run
from virmirror.testguest import MIB

FLATTEN, SHALLOW = "virsh blockcopy --pivot", "virsh blockcopy --shallow --pivot"
STEPS, MIGRATE = "virmirror, step by step", "virmirror.migrate"

# The cut-over is that long before and after the event of the end of the copy (ns).
AROUND = 300_000_000


class Pause(Bench):
    __doc__ = __doc__
    name = "pause"
    title = "the longest write of a guest whose disk is moved"
    notes = (
        "milliseconds between two reports of the guest; cut-over: around the end of the copy",
        f"'{SHALLOW}': its base was copied before, uncounted",
    )
    columns = (
        Column("cutover", "longest at the cut-over (ms)", 1, ratio=True),
        Column("longest", "longest in all (ms)", 1),
        Column("undisturbed", "undisturbed (ms)", 1),
        Column("suspended", "suspended (ms)", 1),
        Column("seconds", "seconds", 2),
    )
    reference = FLATTEN

    def prepare(self) -> None:
        self.daemon = self.setting.daemon()
        self.virsh = Virsh(self.daemon)
        self.events = JobEvents(self.daemon.conn)
        self.data = self.amount(256, quick=8)

    def close(self) -> None:
        if hasattr(self, "events"):
            self.events.close()

    def contenders(self, case: str) -> Mapping[str, Callable[[], Values]]:
        ways = {
            FLATTEN: self._flatten,
            SHALLOW: self._shallow,
            STEPS: self._steps,
            MIGRATE: self._migrate,
        }
        return {name: lambda way=way: self._move(way) for name, way in ways.items()}

    def _move(self, way: Callable[[Guest], tuple[Callable[[], float], int]]) -> Values:
        """Move the disk of a new guest, which must lose nothing."""
        guest = Guest(self.daemon, self.work, data=self.data, size=64 * MIB + self.data)
        try:
            move, depth = way(guest)
            guest.wait_for_writes(50 if self.quick else 300)  # its ring is allocated by then
            with self._watch(guest) as log:
                before = time.monotonic_ns()
                time.sleep(0.5 if self.quick else 2)
                start = time.monotonic_ns()
                suspended = move()
                end = time.monotonic_ns()
                guest.wait_for_writes(20)
            chain = guest.chain()
            if len(chain) != depth or any(path.parent != guest.path2 for path in chain):
                raise Wrong(f"the chain is {chain}")
            guest.check(chain[0])
        finally:
            guest.end()
        pivot = self.events.times[guest.dom.name(), PIVOTED]
        reports = array.array("Q", log.read_bytes())
        return {
            "undisturbed": longest(reports, before, start),
            "longest": longest(reports, start, end),
            "cutover": longest(reports, max(start, pivot - AROUND), pivot + AROUND),
            "suspended": suspended * 1000,
            "seconds": (end - start) / 1e9,
        }

    def _flatten(self, guest: Guest) -> tuple[Callable[[], float], int]:
        target = guest.path2 / "flat.qcow2"
        options = ("--format", "qcow2", "--transient-job", "--wait", "--pivot")
        return lambda: self._blockcopy(guest, target, *options), 1

    def _shallow(self, guest: Guest) -> tuple[Callable[[], float], int]:
        virmirror.prepare_chain(guest.dom, "vda", guest.path2)
        run(["cp", "--sparse=always", guest.path1 / "common", guest.path2 / "common"])
        target = guest.path2 / "old.qcow2"  # the skeleton's, which is empty
        options = ("--shallow", "--reuse-external", "--transient-job", "--wait", "--pivot")
        return lambda: self._blockcopy(guest, target, "--format", "qcow2", *options), 2

    def _blockcopy(self, guest: Guest, target: pathlib.Path, *options: str) -> float:
        self.virsh("blockcopy", guest.dom.name(), "vda", target, *options)
        return 0.0

    def _steps(self, guest: Guest) -> tuple[Callable[[], float], int]:
        seed = Seed(guest)
        spec = seed.prepare()

        def move() -> float:
            with virmirror.MirrorSnapshot.create(
                guest.dom, "migrate", spec, reuse_external=True
            ) as mirror:
                seed.copy_layers()
                mirror.wait_ready(timeout=60)
                pause = mirror.pivot()
            virmirror.block_pull(guest.dom, "vda", base=seed.base)
            return pause

        return move, 2

    def _migrate(self, guest: Guest) -> tuple[Callable[[], float], int]:
        def move() -> float:
            pause = virmirror.migrate(guest.dom, {"vda": guest.path2}).pause
            if pause is None:
                raise Wrong("the report has no pause")
            return pause

        return move, 2

    @contextlib.contextmanager
    def _watch(self, guest: Guest) -> Iterator[pathlib.Path]:
        log = self.work / "reports"
        watcher = subprocess.Popen(
            [build("serialwatch"), guest.serial, log], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert watcher.stdout is not None
            if watcher.stdout.readline() != b"ready\n":
                raise Wrong("the serial port is not watched")
            yield log
        finally:
            watcher.communicate()

    def targets(self, results: Results) -> list[Target]:
        targets = []
        for key, text in (("cutover", "cut-over"), ("longest", "longest write")):
            ours, theirs = (results.median("", name, key) for name in (MIGRATE, FLATTEN))
            targets.append(Target(f"{text} over that of {FLATTEN}", ours / theirs, 1))
        return targets


def longest(reports: array.array[int], start: int, end: int) -> float:
    """The longest time between two reports, in ms, of those that reach into a stretch."""
    return max((b - a) / 1e6 for a, b in itertools.pairwise(reports) if b >= start and a <= end)


if __name__ == "__main__":
    sys.exit(main(Pause))
