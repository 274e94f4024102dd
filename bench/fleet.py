# SPDX-License-Identifier: LGPL-2.1-or-later
"""Moving guests that share one base, all at once.

Each guest has a layer of its own on the base. They are paused while they are
moved, so that it is the storage that is measured and not their own CPU time;
before and after they write, and nothing of it may be lost.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import pathlib
import shutil
import sys
from collections.abc import Callable, Mapping

import libvirt

import virmirror
from harness import Bench, Column, Results, Target, Values, main
from hosts import Virsh, top_of
from support.guest import fill
from support.mirrors import create_empty
from tools import Wrong, allocated, clock, drop_caches, run, written_to_device
from virmirror import testguest
from virmirror.testguest import MIB

FLATTEN = "virsh blockcopy (flattens)"
BY_HAND = "virsh blockcopy --shallow, base by hand"
SEED, OURS = "the seed's steps with cp", "virmirror.migrate"


class Fleet(Bench):
    __doc__ = __doc__
    name = "fleet"
    title = "guests on one base, moved at once"
    notes = (
        "the guests are paused meanwhile; caches cold; until all is on the disk (sync)",
        "allocated: on the disk at the destination, in the end; written: to the device, "
        "whoever did it (/proc/diskstats)",
    )
    columns = (
        Column("seconds", "seconds", 2, ratio=True),
        Column("allocated", "allocated (MiB)", 0),
        Column("written", "written (MiB)", 0),
        Column("needed", "base and layers (MiB)", 0),
    )
    reference = OURS

    def prepare(self) -> None:
        self.count = 2 if self.quick else 8
        base, own = self.amount(1536, quick=32), self.amount(64, quick=4)
        self.daemon = self.setting.daemon()
        self.virsh = Virsh(self.daemon)
        self.old, self.new = self.work / "old", self.work / "new"
        self.old.mkdir()
        self.size = base + own + 64 * MIB
        self.base, first = testguest.make_chain(
            self.old, ("base", "pristine"), size=self.size, data=base
        )
        fill(first, self.size - own, own)
        self.pristine = first
        self.names = [f"fleet{n}" for n in range(self.count)]

    def contenders(self, case: str) -> Mapping[str, Callable[[], Values]]:
        ways = {
            FLATTEN: self._flatten,
            BY_HAND: self._by_hand,
            SEED: lambda: self._at_once(self._seed_steps),
            OURS: lambda: self._at_once(self._migrate),
        }
        return {name: lambda way=way: self._move(way) for name, way in ways.items()}

    def _move(self, way: Callable[[], None]) -> Values:
        """Move all guests, which are new and must lose nothing."""
        self.new.mkdir()
        try:
            self.doms = {name: self._start(name) for name in self.names}
            layers = [self.old / name for name in self.names]
            needed = allocated(self.base, *layers)
            drop_caches(self.base, *layers)
            before = written_to_device(self.work)
            with clock() as took:
                way()
                run(["sync", "--file-system", self.new])
            after = written_to_device(self.work)
            size = allocated(*(path for path in self.new.rglob("*") if path.is_file()))
            for name in self.names:
                self._check(name)
        finally:
            self._end()
        values = {"seconds": took[0], "allocated": size / MIB, "needed": needed / MIB}
        if before is not None and after is not None:
            values["written"] = (after - before) / MIB
        return values

    def _start(self, name: str) -> libvirt.virDomain:
        top, serial = self.old / name, self.work / f"{name}.serial"
        shutil.copyfile(self.pristine, top)
        serial.unlink(missing_ok=True)
        dom = self.daemon.start(testguest.domain_xml(name, [top], serial))
        testguest.wait_for_writes(serial, 20)
        dom.suspend()
        return dom

    def _check(self, name: str) -> None:
        dom, serial = self.doms[name], self.work / f"{name}.serial"
        top = top_of(dom)
        if self.new not in top.parents:
            raise Wrong(f"{name} is at {top}")
        dom.resume()
        testguest.wait_for_writes(serial, 20)
        dom.destroy()
        # a flattened disk has what its layers had
        testguest.check(top, serial)

    def _end(self) -> None:
        for dom in self.doms.values():
            with contextlib.suppress(libvirt.libvirtError):  # it may have ended
                dom.destroy()
            dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
        shutil.rmtree(self.new)
        for path in self.old.iterdir():
            if path not in (self.base, self.pristine):
                path.unlink()

    def _at_once(self, move: Callable[[str], object]) -> None:
        with concurrent.futures.ThreadPoolExecutor(self.count) as pool:
            for future in [pool.submit(move, name) for name in self.names]:
                future.result()

    def _blockcopy(self, name: str, *options: str) -> None:
        self.virsh(
            *("blockcopy", name, "vda", self.new / name, "--format", "qcow2", *options),
            *("--transient-job", "--wait", "--pivot"),
        )

    def _flatten(self) -> None:
        self._at_once(self._blockcopy)

    def _by_hand(self) -> None:
        """The base once, and then what each guest has of its own."""
        copy_file(self.base, self.new / "base")

        def move(name: str) -> None:
            create_empty(self.new / name, "base", size=str(self.size))
            self._blockcopy(name, "--shallow", "--reuse-external")

        self._at_once(move)

    def _seed_steps(self, name: str) -> None:
        """As the seed has it, for each guest and in a folder of its own."""
        folder, overlay = self.new / name, self.old / f"{name}.migrate"
        folder.mkdir()
        virmirror.prepare_chain(self.doms[name], "vda", folder)
        create_empty(overlay, name, size=str(self.size))
        create_empty(folder / "new.qcow2", name, size=str(self.size))
        self.virsh(
            *("snapshot-create-as", name, "--disk-only", "--no-metadata", "--reuse-external"),
            *("--diskspec", f"vda,file={overlay}"),
        )
        self.virsh(
            *("blockcopy", name, "vda", folder / "new.qcow2", "--format", "qcow2", "--shallow"),
            *("--reuse-external", "--transient-job", "--wait"),
        )
        for layer in ("base", name):
            copy_file(self.old / layer, folder / layer)
        self.virsh("blockjob", name, "vda", "--pivot")
        self.virsh(
            *("blockpull", name, "vda", "--base", folder / "base"),
            *("--keep-relative", "--wait"),
        )

    def _migrate(self, name: str) -> None:
        virmirror.migrate(self.doms[name], {"vda": self.new})

    def targets(self, results: Results) -> list[Target]:
        seconds = {name: results.median("", name, "seconds") for name in results.contenders("")}
        size, needed = (results.median("", OURS, key) for key in ("allocated", "needed"))
        return [
            Target(
                "times faster than flattening", seconds[FLATTEN] / seconds[OURS], 8, at_least=True
            ),
            Target(f"seconds over those of {BY_HAND}", seconds[OURS] / seconds[BY_HAND], 1),
            Target("bytes over those of base and layers", size / needed, 1.05),
        ]


def copy_file(source: pathlib.Path, target: pathlib.Path) -> None:
    run(["cp", "--reflink=never", source, target])
    run(["sync", target])


if __name__ == "__main__":
    sys.exit(main(Fleet))
