# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is going on with a domain's mirrored snapshot, and putting it right.

For operators and managers, after something has died: `inspect` tells the truth
as a value, `recover` does what is safe.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal, TypeAlias

from . import _core
from .jobs import libvirt_domain

__all__ = ["DiskInspection", "Inspection", "Recovery", "inspect", "recover"]

Verdict: TypeAlias = Literal[
    "nothing",
    "ready",
    "mirroring",
    "pivoted",
    "aborted",
    "creating",
    "cut-over",
    "off",
    "leaked",
    "hidden",
    "orphaned",
    "stuck",
    "lying",
    "lost",
    "foreign",
]
Lock: TypeAlias = Literal["free", "writer", "unknown"]


@dataclasses.dataclass(frozen=True)
class DiskInspection:
    """One disk: what was meant, and what is.

    ``meant`` is its state in the journal, ``truth`` what the live XML shows;
    ``live`` and ``persistent`` are the paths that libvirt names as its source
    now and for the next start; ``job`` says whether QEMU has a block job for
    it. The locks say of each file whether a QEMU has it open for writing.
    ``written`` is the file that QEMU writes to where libvirt names another one.
    """

    target: str
    verdict: Verdict
    meant: str
    truth: str
    job: bool
    live: str | None
    persistent: str | None
    source: str
    overlay: str
    mirror: str
    source_lock: Lock
    overlay_lock: Lock
    mirror_lock: Lock
    written: str | None


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The state of a domain's mirrored snapshot.

    ``verdict`` is the worst of the disks' and ``advice`` what it means, in a
    line. ``running``: libvirt says that the domain runs, or is paused;
    ``paused``: somebody asked for that, and ``paused_by_us``: it was
    virmirror. ``snapshot`` and ``meant`` (the state in the journal) are None
    where there is no mirrored snapshot. ``commits`` are the targets of the disks with
    a commit of the top layer that libvirt does not show, or has missed the end of.
    ``running_pid`` is the process on this host that is at work on the domain now, 0 where
    it cannot be told which one, None
    if there is none.
    """

    verdict: Verdict
    advice: str
    running: bool
    paused: bool
    paused_by_us: bool
    persistent: bool
    snapshot: str | None
    meant: str | None
    disks: tuple[DiskInspection, ...]
    commits: tuple[str, ...]
    running_pid: int | None

    def to_json(self) -> str:
        """The same as a JSON object."""
        return json.dumps(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What `recover` found, what it did, and what is left for a person to do.

    ``found`` and ``verdict`` are the verdicts before and after; ``done`` and
    ``left`` have one line for each thing.
    """

    found: Verdict
    verdict: Verdict
    done: tuple[str, ...]
    left: tuple[str, ...]

    def to_json(self) -> str:
        """The same as a JSON object."""
        return json.dumps(dataclasses.asdict(self))


def inspect(dom: Any, *, timeout: float | None = 60.0) -> Inspection:
    """Tell what is going on with the mirrored snapshot of ``dom``.

    The journal is held against the live XML, the persistent definition, the
    block jobs and QEMU's locks on the image files. Nothing is changed.

    ``dom`` is a libvirt.virDomain, running or not; ``timeout`` in seconds, or
    None. Raises JournalError for a journal that cannot be understood,
    MirrorTimeoutError, MirrorError with libvirt's code. Calls
    virDomainGetXMLDesc, virDomainGetBlockJobInfo and, where the locks leave it
    open which file QEMU uses, virDomainQemuMonitorCommand ("info block"), after
    which libvirt calls the domain tainted.
    """
    pid = _core._find_holder(libvirt_domain(dom).UUIDString())
    found = inspect_held(dom, timeout)
    if pid is None:
        return found
    process = f"process {pid}" if pid else "another process"
    advice = f"{process} is at work on it: wait for it to end"
    return dataclasses.replace(found, running_pid=pid, advice=advice)


def inspect_held(dom: Any, timeout: float | None = 60.0) -> Inspection:
    """The same for who holds the domain, and is at work on it."""
    found = _core._inspect(dom, timeout)
    disks = tuple(DiskInspection(**disk) for disk in found.pop("disks"))
    return Inspection(disks=disks, running_pid=None, **found)


def recover(
    dom: Any,
    policy: Literal["resume", "abort", "pivot"] = "resume",
    *,
    timeout: float | None = 300.0,
) -> Recovery:
    """Put right what somebody's death has left of a mirrored snapshot.

    Mirrors that run are left to run (``"resume"``), aborted, or pivoted to, as
    ``policy`` says; a pivot that had begun is finished, or (``"abort"``) only
    the disks that are pivoted stay so; a creation that was broken off is undone.
    A guest that virmirror had suspended is resumed, and no other. Where libvirt
    names another file than the one that QEMU writes to, the persistent
    definition is set to the latter, and the rest is told as left. A commit that libvirt
    died over, and does not show since, is finished, as it cannot be aborted. No guest is
    ever started, no live disk taken away. It can be run again at any time.

    ``dom`` is a libvirt.virDomain, running or not; ``timeout`` in seconds, or
    None. Raises BusyError, with its pid, where a process is at work on the domain;
    what `MirrorSnapshot.pivot` and `MirrorSnapshot.abort` raise, and SpecError for
    another policy.
    """
    hold = _core._hold(libvirt_domain(dom).UUIDString())
    try:
        return recover_held(dom, policy, timeout)
    finally:
        _core._release(hold)


def recover_held(dom: Any, policy: str, timeout: float | None = 300.0) -> Recovery:
    """The same for who holds the domain already."""
    return Recovery(**_core._recover(dom, policy, timeout))
