# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest on real files, and the questions that a test asks about it."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import stat
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator

import libvirt

from support.storage import is_written_to
from virmirror import embed, testguest

JOURNAL = "urn:virmirror:journal"
SIZE = 64 * testguest.MIB
_numbers = itertools.count(1)


class Guest:
    """``path1`` has its chains, ``path2`` is where they are to go.

    Disk n has the chain ``common`` <- ``old.qcow2``, with ``n`` appended to the
    stem from the second disk on. ``data`` is how much the base holds, in bytes, and
    ``top_data`` the layer on top of it. ``edit`` gets the definition of the domain, and
    returns the one that is used.
    """

    def __init__(
        self,
        host: embed.Host,
        folder: pathlib.Path,
        *,
        disks: int = 1,
        paused: bool = False,
        persistent: bool = True,
        writes: bool = True,
        layers: int = 2,
        base_format: str = "qcow2",
        data: int = 0,
        size: int = SIZE,
        top_data: int = 0,
        edit: Callable[[str], str] = lambda xml: xml,
    ) -> None:
        number = next(_numbers)
        folder = folder / f"guest{number}"
        self.path1, self.path2 = folder / "path1", folder / "path2"
        self.path1.mkdir(parents=True)
        self.path2.mkdir()
        self.serial = folder / "serial"
        self.layers = layers
        self.size = size
        self.tops = []
        for n in range(disks):
            names = [*(f"layer{i}" for i in range(layers - 1)), "old.qcow2"]
            names[0] = "common" if layers > 1 else "old.qcow2"
            chain = testguest.make_chain(
                self.path1,
                [_numbered(name, n) for name in names],
                base_format=base_format,
                data=data,
                size=size,
            )
            if top_data:
                fill(chain[-1], size - top_data, top_data)
            self.tops.append(chain[-1])
        top_format = base_format if layers == 1 else "qcow2"
        xml = testguest.domain_xml(f"guest{number}", self.tops, self.serial, disk_format=top_format)
        self.dom = host.start(edit(xml), paused=paused, persistent=persistent)
        if writes and not paused:
            testguest.wait_for_writes(self.serial, 20)

    @classmethod
    def found(cls, host: embed.Host, folder: pathlib.Path) -> Guest:
        """The guest that another process has started on this host, in ``folder``."""
        guest = cls.__new__(cls)
        (folder,) = folder.glob("guest*")
        guest.path1, guest.path2 = folder / "path1", folder / "path2"
        guest.serial = folder / "serial"
        guest.layers = 2
        guest.size = SIZE
        guest.tops = sorted(guest.path1.glob("old*.qcow2"))
        guest.dom = host.conn.lookupByName(folder.name)
        return guest

    def end(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):  # it may have ended
            self.dom.destroy()
        with contextlib.suppress(libvirt.libvirtError):  # or be transient
            self.dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)

    def wait_for_writes(self, more: int = 50) -> int:
        return testguest.wait_for_writes(self.serial, more)

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Let it write nothing, and leave the processor to the others."""
        self.dom.suspend()
        yield
        self.dom.resume()

    def check(self, *tops: pathlib.Path, image_format: str = "qcow2") -> None:
        """Stop the guest; its disks, with these top layers, must be whole."""
        tops = tops or tuple(self.sources())
        if self.dom.isActive():
            self.dom.destroy()
        for drive, top in enumerate(tops):
            writes = testguest.check(
                top, self.serial, layers=self.layers, drive=drive, image_format=image_format
            )
            assert writes.reported > 20

    def chain(self, target: str = "vda", *, inactive: bool = False) -> list[pathlib.Path]:
        """The files of a disk, top first, as libvirt tells."""
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE if inactive else 0
        disk = ET.fromstring(self.dom.XMLDesc(flags)).find(f".//disk/target[@dev='{target}']/..")
        assert disk is not None
        paths = []
        layer: ET.Element | None = disk
        while layer is not None and (source := layer.find("source")) is not None:
            paths.append(pathlib.Path(source.get("file") or source.get("dev") or ""))
            layer = layer.find("backingStore")
        return paths

    def sources(self) -> list[pathlib.Path]:
        """The top layer of each disk, as libvirt tells."""
        return [self.chain(target)[0] for target in self.targets()]

    def targets(self) -> list[str]:
        """The target name of each disk."""
        targets = ET.fromstring(self.dom.XMLDesc()).findall(".//disk/target")
        return [target.get("dev") or "" for target in targets]

    def has_journal(self) -> bool:
        """Whether any trace of a journal is in the domain."""
        inactive = self.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        return JOURNAL in self.dom.XMLDesc() or JOURNAL in inactive

    def state(self) -> dict[str, object]:
        """Everything that a call that failed must have left as it was."""
        live = ET.fromstring(self.dom.XMLDesc())
        jobs = [self.dom.blockJobInfo(target) or {"type": None} for target in self.targets()]
        folders = [self.path1, self.path2]
        return {
            "chains": [self.chain(target) for target in self.targets()],
            # libvirt keeps an empty element where there once was metadata
            "inactive": self.dom.isPersistent()
            and self.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace("  <metadata/>\n", ""),
            "metadata": [ET.tostring(element) for element in live.findall("metadata/*")],
            "snapshots": self.dom.snapshotListNames(),
            "files": {path: _fingerprint(path) for d in folders for path in sorted(d.rglob("*"))},
            "jobs": [job["type"] for job in jobs],
            "running": self.dom.state(),
        }


def fill(top: pathlib.Path, offset: int, length: int) -> None:
    """Give a layer data of its own, where nobody else has any."""
    command = ["qemu-io", "-f", "qcow2", "-c", f"write -q -P 90 {offset} {length}", str(top)]
    subprocess.run(command, check=True)


def _fingerprint(path: pathlib.Path) -> tuple[int, ...]:
    """What tells a file from another one, or from how it was before."""
    status = path.lstat()
    same = (status.st_ino, status.st_mode)
    if not stat.S_ISREG(status.st_mode) or is_written_to(path):
        return same
    return (*same, status.st_size, status.st_mtime_ns)


def _numbered(name: str, n: int) -> str:
    if n == 0:
        return name
    path = pathlib.Path(name)
    return f"{path.stem}{n + 1}{path.suffix}"
