# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a writing guest keeps while a layer is copied on the disk that it writes to.

In the guest's place a program (bench/writer.c) writes 4 KiB at a time, with
O_DIRECT and O_DSYNC, as fast as it can, to a file beside the layer, and takes the
time of each write. It does so undisturbed first, then during the copy. For ``virsh
blockcopy`` it is QEMU that copies, the disk of a paused guest of its own.
"""

from __future__ import annotations

import array
import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import copier
from copying import make_layer
from harness import Bench, Column, Results, Target, Values, main
from hosts import Virsh
from tools import Wrong, build, drop_caches, need, run
from virmirror import testguest
from virmirror.testguest import MIB

CP, CONVERT, DIRECT = "cp", "qemu-img convert", "qemu-img convert, direct"
BLOCKCOPY = "virsh blockcopy"
FULL, AUTO = "virmirror full", "virmirror auto"

CP_COMMAND = 'cp --reflink=never "$1" "$2" && sync "$2"'
CONVERT_COMMAND = 'qemu-img convert -f raw -O raw "$1" "$2" && sync "$2"'
DIRECT_COMMAND = 'qemu-img convert -T none -t none -f raw -O raw "$1" "$2"'


class Guest(Bench):
    __doc__ = __doc__
    name = "guest"
    title = "what a writing guest keeps during a copy on its disk"
    notes = (
        "a stand-in for the guest: 4 KiB writes, O_DIRECT and O_DSYNC, one after another",
        "each copy is preceded by an undisturbed stretch, which its ratios refer to",
        "of virmirror's process the call alone, not the start of Python",
        "caches cold, fsync included; virsh blockcopy copies the disk of a paused guest",
    )
    columns = (
        Column("seconds", "copy (s)", 2, ratio=True),
        Column("rate", "writes/s", 0),
        Column("kept", "kept (%)", 1),
        Column("p50", "p50 (ms)", 2),
        Column("p99", "p99 (ms)", 2),
        Column("p99_ratio", "p99 x undisturbed", 1),
        Column("longest", "longest (ms)", 1),
        Column("base_rate", "undisturbed: writes/s", 0),
        Column("base_p50", "p50 (ms)", 2),
        Column("base_p99", "p99 (ms)", 2),
        Column("base_longest", "longest (ms)", 1),
    )
    reference = CP

    def prepare(self) -> None:
        need("cp", "qemu-img", "virsh")
        self.daemon = self.setting.daemon()
        self.virsh = Virsh(self.daemon)
        self.layer = make_layer(self.work, self.amount(1536, quick=32))
        self.undisturbed = 0.3 if self.quick else 3.0

    def contenders(self, case: str) -> Mapping[str, Callable[[], Values]]:
        commands: dict[str, list[str]] = {
            CP: ["sh", "-c", CP_COMMAND, "sh"],
            CONVERT: ["sh", "-c", CONVERT_COMMAND, "sh"],
            DIRECT: ["sh", "-c", DIRECT_COMMAND, "sh"],
            FULL: [sys.executable, copier.__file__, "full"],
            AUTO: [sys.executable, copier.__file__, "auto"],
        }
        return {
            **{name: lambda c=command: self._copy_file(c) for name, command in commands.items()},
            BLOCKCOPY: self._copy_disk,
        }

    def _copy_file(self, command: list[str]) -> Values:
        target = self.work / "copy"
        if command[0] == sys.executable:
            call = self.work / "call"
            values = self._disturb(lambda: run([*command, self.layer, target, call]), call)
        else:
            values = self._disturb(lambda: run([*command, self.layer, target]))
        run(["cmp", self.layer, target])
        target.unlink()
        return values

    def _copy_disk(self) -> Values:
        target = self.work / "copy"
        xml = testguest.domain_xml("bench-guest", [self.layer], self.work / "serial")
        dom = self.daemon.start(xml, paused=True)

        def copy() -> None:
            self.virsh(
                *("blockcopy", "bench-guest", "vda", target, "--format", "qcow2"),
                *("--transient-job", "--wait", "--finish"),
            )
            run(["sync", target])

        try:
            values = self._disturb(copy)
        finally:
            dom.destroy()
            dom.undefine()
        run(["qemu-img", "compare", self.layer, target])
        target.unlink()
        return values

    def _disturb(self, copy: Callable[[], object], call: pathlib.Path | None = None) -> Values:
        """Copy beside the writer, and see what it had before and what it keeps.

        ``call`` tells of a call that is but a part of ``copy``, the one that counts.
        """
        drop_caches(self.layer)
        with self._writer() as log:
            time.sleep(0.1)
            before = time.monotonic_ns()
            time.sleep(self.undisturbed)
            start = begun = time.monotonic_ns()
            copy()
            end = time.monotonic_ns()
        writes = read_log(log)
        if call is not None:
            report = json.loads(call.read_text())
            start, end = int(report["start"]), int(report["end"])
        base, kept = stretch(writes, before, begun), stretch(writes, start, end)
        return {
            "seconds": (end - start) / 1e9,
            **kept,
            **{f"base_{key}": value for key, value in base.items()},
            "kept": kept["rate"] / base["rate"] * 100,
            "p99_ratio": kept["p99"] / base["p99"],
        }

    @contextlib.contextmanager
    def _writer(self) -> Iterator[pathlib.Path]:
        """The guest's stand-in, writing; it checks in the end what it has written."""
        file, log = self.work / "disk", self.work / "writes"
        size = str(16 * MIB if self.quick else 256 * MIB)
        writer = subprocess.Popen(
            [build("writer"), file, size, log], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert writer.stdout is not None
            if writer.stdout.readline() != b"ready\n":
                raise Wrong("the writer has not begun")
            yield log
        finally:
            writer.communicate()
        if writer.returncode != 0:
            raise Wrong("the writer's disk is not what it has written")

    def targets(self, results: Results) -> list[Target]:
        def ours(key: str) -> float:
            return results.median("", AUTO, key)

        slower = ours("seconds") / results.median("", CP, "seconds")
        return [
            Target("auto: seconds over those of cp", slower, 1),
            Target("auto: % of the guest's writes/s kept", ours("kept"), 50, at_least=True),
            Target("auto: the guest's p99 over the undisturbed one", ours("p99_ratio"), 4),
        ]


def read_log(path: pathlib.Path) -> list[tuple[int, int]]:
    """Start and duration of each write, in ns."""
    numbers = array.array("Q", path.read_bytes())
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def stretch(writes: list[tuple[int, int]], start: int, end: int) -> dict[str, float]:
    """The writes that were begun in a stretch of time."""
    took = sorted(duration for begun, duration in writes if start <= begun < end)
    if not took:
        raise Wrong(f"no write in {(end - start) / 1e9:.2f} s")
    return {
        "rate": len(took) / ((end - start) / 1e9),
        "p50": statistics.median(took) / 1e6,
        "p99": took[len(took) * 99 // 100] / 1e6,
        "longest": took[-1] / 1e6,
    }


if __name__ == "__main__":
    sys.exit(main(Guest))
