# SPDX-License-Identifier: LGPL-2.1-or-later
"""What it costs to prove, before a pivot, that the copies hold what is frozen.

The seed's steps on a guest that writes, with its layers copied in three ways, after
which the copies are known by their marks, by their bytes, or by their content only.
The time is that of ``MirrorSnapshot.pivot``, which proves first; the guest is
suspended after the proof.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping

import virmirror
from harness import Bench, Column, Results, Target, Values, main
from hosts import Guest, Seed
from tools import Wrong, run
from virmirror.testguest import MIB

MARKS = "copies by virmirror.copy (marks)"
BYTES = "copies by cp (bytes)"
CONTENT = "copies by qemu-img convert (content)"


class Proof(Bench):
    __doc__ = __doc__
    name = "proof"
    title = "the pivot, and the proof before it"
    notes = ("the base has 256 MiB of data; pivot: virmirror's, the proof included",)
    columns = (
        Column("seconds", "pivot (s)", 3, ratio=True),
        Column("suspended", "suspended (ms)", 1),
    )
    reference = MARKS

    def prepare(self) -> None:
        self.daemon = self.setting.daemon()
        self.data = self.amount(256, quick=8)

    def contenders(self, case: str) -> Mapping[str, Callable[[], Values]]:
        ways = {MARKS: self._mark, BYTES: self._cp, CONTENT: self._convert}
        return {name: lambda way=way: self._pivot(way) for name, way in ways.items()}

    def _pivot(self, copy: Callable[[Guest], None]) -> Values:
        guest = Guest(self.daemon, self.work, data=self.data, size=64 * MIB + self.data)
        try:
            spec = Seed(guest).prepare()
            with virmirror.MirrorSnapshot.create(
                guest.dom, "migrate", spec, reuse_external=True
            ) as mirror:
                copy(guest)
                mirror.wait_ready(timeout=60)
                guest.wait_for_writes(20)
                start = time.monotonic()
                pause = mirror.pivot()
                seconds = time.monotonic() - start
            guest.wait_for_writes(20)
            top = guest.chain()[0]
            if top.parent != guest.path2:
                raise Wrong(f"the guest is on {top}")
            guest.check(top)
        finally:
            guest.end()
        return {"seconds": seconds, "suspended": pause * 1000}

    def _mark(self, guest: Guest) -> None:
        for name in ("common", "old.qcow2"):
            virmirror.copy(guest.path1 / name, guest.path2 / name, overwrite=True)

    def _cp(self, guest: Guest) -> None:
        Seed(guest).copy_layers()

    def _convert(self, guest: Guest) -> None:
        made = guest.path2 / "made"
        for name, below in (("common", ()), ("old.qcow2", ("-B", "common", "-F", "qcow2"))):
            convert = ["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "qcow2", *below]
            run([*convert, guest.path1 / name, made])
            run(["cp", "--sparse=always", made, guest.path2 / name])  # in place
            made.unlink()

    def targets(self, results: Results) -> list[Target]:
        marks, content = (results.median("", name, "suspended") for name in (MARKS, CONTENT))
        return [Target("pause after reading all of it over that by marks", content / marks, 1.5)]


if __name__ == "__main__":
    sys.exit(main(Proof))
