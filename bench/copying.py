# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copying one frozen layer: seconds, CPU seconds, memory.

Each contender is a process of its own, from its start to its end, with the copy
safe on the disk at the end of it (fsync). virmirror's has to start Python first.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
from collections.abc import Callable, Mapping

import copier
from harness import Bench, Column, Results, Target, Values, main
from tools import Wrong, allocated, drop_caches, metered, need, run, warm
from virmirror.testguest import MIB

LAYER, FEW, MANY = "qcow2 layer", "raw, few extents", "raw, many extents"
COLD, WARM = "cold", "warm"
FULL, AUTO = "virmirror full", "virmirror auto"

EXTENT = 64 * 1024

# How a rival is told to copy "$1" to "$2" and to have it on the disk. The holes
# of the source are to be holes of the copy.
RIVALS = {
    "cp": 'cp --reflink=never "$1" "$2" && sync "$2"',
    "rsync": 'rsync --sparse --whole-file --fsync "$1" "$2"',
    "dd": 'dd if="$1" of="$2" bs=1M conv=sparse,fsync status=none',
    "qemu-img convert": 'qemu-img convert -f raw -O raw "$1" "$2" && sync "$2"',
    "qemu-img convert -W -m16": 'qemu-img convert -W -m16 -f raw -O raw "$1" "$2" && sync "$2"',
    "qemu-img convert, direct": 'qemu-img convert -T none -t none -f raw -O raw "$1" "$2"',
    "qemu-img convert -W -m16, direct": (
        'qemu-img convert -W -m16 -T none -t none -f raw -O raw "$1" "$2"'
    ),
    "nbdcopy": 'truncate --size="$(stat --format=%s "$1")" "$2" && nbdcopy --flush "$1" "$2"',
}


class Copying(Bench):
    __doc__ = __doc__
    name = "copying"
    title = "copy of one frozen layer"
    notes = (
        "the process from start to end, fsync included; 'call': virmirror.copy() alone, "
        "without what starting Python and importing libvirt took",
        "copies are compared with their source byte by byte, after each run",
    )
    columns = (
        Column("seconds", "seconds", 2, ratio=True),
        Column("cpu", "CPU s", 2),
        Column("memory", "memory (MiB)", 1),
        Column("allocated", "on disk (MiB)", 0),
        Column("call_seconds", "call: s", 2),
        Column("call_cpu", "call: CPU s", 2),
        Column("call_memory", "call: memory (MiB)", 1),
    )
    reference = "cp"

    def prepare(self) -> None:
        need("cp", "rsync", "dd", "qemu-img", "nbdcopy")
        size = self.amount(1536, quick=8)
        self.sources = {
            LAYER: make_layer(self.work, size),
            FEW: make_raw(self.work / "few", size, size // 8),
            MANY: make_raw(self.work / "many", size, EXTENT),
        }

    def cases(self) -> list[str]:
        if self.quick:
            return [f"{LAYER}, {COLD}", f"{FEW}, {WARM}", f"{MANY}, {COLD}"]
        return [f"{source}, {cache}" for source in self.sources for cache in (COLD, WARM)]

    def contenders(self, case: str) -> Mapping[str, Callable[[], Values]]:
        commands: dict[str, list[str | pathlib.Path]] = {
            name: ["sh", "-c", command, "sh"] for name, command in RIVALS.items()
        }
        for name, pace in ((FULL, "full"), (AUTO, "auto")):
            commands[name] = [sys.executable, copier.__file__, pace]
        return {
            name: lambda name=name, command=command: self._copy(case, name, command)
            for name, command in commands.items()
        }

    def _copy(self, case: str, contender: str, command: list[str | pathlib.Path]) -> Values:
        name, _, cache = case.rpartition(", ")
        source, target = self.sources[name], self.work / "copy"
        drop_caches(source)
        if cache == WARM:
            warm(source)
        result = self.work / "call"
        result.unlink(missing_ok=True)
        usage = metered([*command, source, target, *self._result(command, result)], self.work)
        on_disk = allocated(target)
        run(["cmp", source, target])
        if contender in (FULL, AUTO):
            check_holes(source, target)
        target.unlink()
        call = json.loads(result.read_text()) if result.exists() else {}
        call = {key: call[key] for key in ("seconds", "cpu", "memory") if call}
        return {
            "seconds": usage.seconds,
            "cpu": usage.cpu,
            "memory": usage.memory / MIB,
            "allocated": on_disk / MIB,
            **{f"call_{key}": value for key, value in call.items()},
        }

    @staticmethod
    def _result(command: list[str | pathlib.Path], result: pathlib.Path) -> list[pathlib.Path]:
        """Where virmirror's process writes about its one call."""
        return [result] if command[0] == sys.executable else []

    def targets(self, results: Results) -> list[Target]:
        targets = []
        for case in results.cases():
            fastest = results.best(case, "seconds", list(RIVALS))
            cpu = results.median(case, "cp", "cpu") / 10
            speed = 2.0 if case.startswith(MANY) else 1.0
            for prefix, what in (("", "process"), ("call_", "call")):
                ours = {
                    key: results.median(case, FULL, prefix + key)
                    for key in ("seconds", "cpu", "memory")
                }
                text = f"{case}, {what}"
                targets += [
                    Target(f"{text}: seconds", ours["seconds"], fastest / speed),
                    Target(f"{text}: CPU seconds, of cp's a tenth", ours["cpu"], cpu),
                    Target(f"{text}: memory (MiB)", ours["memory"], 32),
                ]
        return targets


def make_layer(folder: pathlib.Path, size: int) -> pathlib.Path:
    """A qcow2 image with ``size`` bytes of data that cannot be compressed."""
    raw, layer = folder / "raw", folder / "layer"
    write_random(raw, size, [(0, size)])
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, layer])
    raw.unlink()
    return layer


def make_raw(path: pathlib.Path, size: int, extent: int) -> pathlib.Path:
    """A raw image with that much data, in extents with holes of the same size between."""
    extents = [(2 * start, extent) for start in range(0, size, extent)]
    return write_random(path, 2 * size, extents)


def write_random(path: pathlib.Path, size: int, extents: list[tuple[int, int]]) -> pathlib.Path:
    with path.open("wb") as file:
        for offset, length in extents:
            file.seek(offset)
            for done in range(0, length, MIB):
                file.write(os.urandom(min(MIB, length - done)))
        file.truncate(size)
        file.flush()
        os.fsync(file.fileno())
    return path


def check_holes(source: pathlib.Path, target: pathlib.Path) -> None:
    """Holes must have stayed holes; of the rivals the table tells."""
    wanted, found = allocated(source), allocated(target)
    if found > wanted * 1.05 + MIB:
        raise Wrong(f"the copy has {found} bytes on the disk, its source {wanted}")


if __name__ == "__main__":
    sys.exit(main(Copying))
