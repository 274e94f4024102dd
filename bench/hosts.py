# SPDX-License-Identifier: LGPL-2.1-or-later
"""The libvirtd that all contenders talk to, its guests, and the rivals' steps on them.

The daemon is one of our own, in a namespace of its own: no libvirt that is there
already, nor any guest on it, is touched.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import queue
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable

import libvirt

from tools import run

sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests"))

from support.daemon import Daemon
from support.guest import Guest
from support.mirrors import seed_spec
from support.reaper import reaped_qemus

__all__ = ["Daemon", "Guest", "JobEvents", "Seed", "Virsh", "lazy_daemon", "top_of"]

# What JobEvents waits for: a kind of job, and what becomes of it.
READY = (libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY, libvirt.VIR_DOMAIN_BLOCK_JOB_READY)
PIVOTED = (libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY, libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED)
PULLED = (libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_PULL, libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED)


def lazy_daemon(stack: contextlib.ExitStack) -> Callable[[], Daemon]:
    """Starts the daemon when it is wanted first; it ends with the stack."""

    @functools.cache
    def daemon() -> Daemon:
        # libvirt-python prints each error besides raising it, unless told not to.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        stack.enter_context(reaped_qemus())
        # not below the work folder: the path of a socket must be short
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vmb-")))
        return stack.enter_context(Daemon(folder))

    return daemon


class Virsh:
    """virsh, a process for each command, as people use it in scripts."""

    def __init__(self, daemon: Daemon) -> None:
        self._command = ["virsh", "--quiet", "--connect", daemon.uri]

    def __call__(self, *arguments: str | pathlib.Path) -> str:
        return run([*self._command, *arguments])


class JobEvents:
    """libvirt-python's events about the block jobs of a connection."""

    def __init__(self, conn: libvirt.virConnect) -> None:
        self._conn = conn
        self._events: queue.Queue[tuple[str, tuple[int, int]]] = queue.Queue()
        #: when each was last seen (ns of the monotonic clock)
        self.times: dict[tuple[str, tuple[int, int]], int] = {}
        self._calls: dict[tuple[str, tuple[int, int]], list[Callable[[], object]]] = {}
        self._id = conn.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, self._arrived, None
        )

    def _arrived(
        self, _conn: object, dom: libvirt.virDomain, _disk: str, kind: int, status: int, _: object
    ) -> None:
        event = (dom.name(), (kind, status))
        self.times[event] = time.monotonic_ns()
        for call in self._calls.pop(event, ()):
            call()
        self._events.put(event)

    def wait(self, name: str, wanted: tuple[int, int], timeout: float = 60) -> None:
        """Wait for an event of the guest ``name``; those before it are dropped."""
        while self._events.get(timeout=timeout) != (name, wanted):
            pass

    def on(self, name: str, wanted: tuple[int, int], call: Callable[[], object]) -> None:
        """Have something called, once, at the next event of that kind, in its thread."""
        self._calls.setdefault((name, wanted), []).append(call)

    def close(self) -> None:
        self._conn.domainEventDeregisterAny(self._id)


class Seed:
    """The seed's files and names for the one disk of a guest, and the rivals' XML.

    The guest's chain is path1/common <- path1/old.qcow2. Made by ``prepare()``:
    path1/old.migrate and path2/new.qcow2, the new tops, and below the latter the
    skeleton that the copies go to.
    """

    SNAPSHOT = (
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    )
    COPY = (
        libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW
        | libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT
        | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    )

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.name = guest.dom.name()
        self.overlay = guest.path1 / "old.migrate"
        self.mirror = guest.path2 / "new.qcow2"
        self.base = guest.path2 / "common"

    def prepare(self) -> str:
        """Make the files; returns the diskspec with both."""
        return seed_spec(self.guest)

    def copy_layers(self) -> None:
        """The seed's ``cp``, into the skeleton."""
        for name in ("common", "old.qcow2"):
            source, target = self.guest.path1 / name, self.guest.path2 / name
            run(["cp", "--sparse=always", source, target])
            run(["sync", target])

    def snapshot_xml(self) -> str:
        return (
            "<domainsnapshot><name>migrate</name><disks>"
            f"<disk name='vda' snapshot='external'><source file='{self.overlay}'/>"
            "<driver type='qcow2'/></disk></disks></domainsnapshot>"
        )

    def mirror_xml(self) -> str:
        return (
            f"<disk type='file'><source file='{self.mirror}'/><driver type='qcow2'/>"
            "<target dev='vda'/></disk>"
        )

    def virsh_mirror(self, virsh: Virsh) -> None:
        """Snapshot and mirror, and wait until it is ready."""
        virsh(
            *("snapshot-create-as", self.name, "--disk-only", "--no-metadata"),
            *("--reuse-external", "--diskspec", f"vda,file={self.overlay}"),
        )
        virsh(
            *("blockcopy", self.name, "vda", self.mirror, "--format", "qcow2", "--shallow"),
            *("--reuse-external", "--transient-job", "--wait"),
        )

    def virsh_pivot(self, virsh: Virsh) -> None:
        virsh("blockjob", self.name, "vda", "--pivot")

    def virsh_pull(self, virsh: Virsh) -> None:
        virsh("blockpull", self.name, "vda", "--base", self.base, "--keep-relative", "--wait")


def top_of(dom: libvirt.virDomain) -> pathlib.Path:
    """The top layer of a guest's one disk, as libvirt tells."""
    source = ET.fromstring(dom.XMLDesc()).find(".//disk/source")
    assert source is not None
    return pathlib.Path(source.attrib["file"])
