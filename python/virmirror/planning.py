# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a migration will do, as a value: found out, and not done yet.

`plan` looks at the domain, the disks, the files and the folders, and either tells
everything that is wrong at once or returns a `Plan`. It changes nothing.
"""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import libvirt

from . import _core, jobs, values
from .oserrors import os_errors
from .snapshots import check_followers

__all__ = ["DiskPlan", "LayerPlan", "Plan", "plan"]

Collapse: TypeAlias = Literal["auto", "commit", "pull", "none"]
Converge: TypeAlias = Literal["wait", "throttle"]
Pace: TypeAlias = Literal["auto", "full"]
Snapshots: TypeAlias = Literal["refuse", "keep", "follow"]

_BLOCK = 512  # bytes, of st_blocks


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """One image of a backing chain, and where its copy is to be.

    ``source`` is the file, with its ``format``, ``virtual_size`` and ``size`` in
    bytes, and the ``allocated`` ones of these; ``dev``, ``ino``, ``born`` and ``mtime_ns``
    (ns since 1970, 0: not known) tell whether it is still the same later on.
    ``destination`` is the path of the copy, and ``backing_name`` (of ``backing_format``)
    what its header is to name as its backing file; with ``rebase`` the source's header
    names it otherwise.
    ``there``: a file of that name exists, and is used if it is the same.
    """

    source: str
    format: str
    virtual_size: int
    size: int
    allocated: int
    dev: int
    ino: int
    born: int
    mtime_ns: int
    destination: str
    backing_name: str | None
    backing_format: str | None
    rebase: bool
    there: bool


@dataclasses.dataclass(frozen=True)
class DiskPlan:
    """One disk: its target name ('vda'), where it goes, and through which files.

    ``overlay`` and ``mirror`` are the new top layers on the old and the new side;
    ``layers`` the chain in use, top first.
    """

    target: str
    folder: str
    overlay: str
    mirror: str
    layers: tuple[LayerPlan, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A migration, planned: `run` carries it out.

    ``id`` identifies it; ``uri`` is the connection to open, ``domain`` and
    ``uuid`` the domain, ``name`` the snapshot's. ``notes`` has what is worth
    knowing, one line each. The rest is as given to `plan`.
    """

    id: str
    uri: str
    domain: str
    uuid: str
    name: str
    disks: tuple[DiskPlan, ...]
    notes: tuple[str, ...]
    collapse: Collapse
    remove_source: bool
    pace: Pace
    bandwidth: int
    reflink: bool
    verify: bool
    pause_budget: float | None
    snapshots: Snapshots
    converge: Converge

    @property
    def bytes_to_copy(self) -> int:
        """Bytes that the copies of the layers will take, each counted once."""
        layers = {layer.destination: layer for disk in self.disks for layer in disk.layers}
        return sum(layer.allocated for layer in layers.values() if not layer.there)

    def to_json(self) -> str:
        """The plan as a JSON object."""
        return values.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote. Raises SpecError."""
        return values.from_json(cls, text)


def plan(
    dom: Any,
    disks: Mapping[str, str | os.PathLike[str]],
    *,
    name: str | None = None,
    collapse: Collapse = "auto",
    remove_source: bool = False,
    pace: Pace = "auto",
    bandwidth: int = 0,
    reflink: bool = True,
    verify: bool = False,
    pause_budget: float | None = 2.0,
    converge: Converge = "wait",
    overlay_folder: str | os.PathLike[str] | None = None,
    snapshots: Snapshots = "refuse",
    timeout: float | None = 60.0,
) -> Plan:
    """Plan to move disks of a running domain into other folders.

    ``dom`` is a libvirt.virDomain, ``disks`` says for each disk, by its target
    ('vda') or the path of its source, the folder that it is to go to, an absolute
    path; ``name`` is for the snapshot, and for the files that exist meanwhile.
    ``overlay_folder`` is where the new top layers on the old side are to be: a folder
    that lasts as long as the disks, for a few minutes of the guest's writes. Without it
    each is beside the disk's source, which does not do for a block device, in /dev.
    ``snapshots`` says what of libvirt's own snapshots of the domain: a revert to one
    leads back to the old storage, so a domain that has any is refused; ``"keep"`` is for
    who knows that, and does not go with ``remove_source``; with ``"follow"`` they name the
    new files in the end, which internal ones can, with ``collapse="commit"``.

    ``collapse`` says how the chain, which is one longer after the pivot, gets
    short again: ``"commit"`` the new top down, so that all files keep their names,
    ``"pull"`` the layer below up into it, ``"none"``, or ``"auto"``: commit, unless a
    pull writes less by more than 64 MiB. ``remove_source`` removes the disks' top
    layers from the old place in the end; backing files stay, since other guests may be
    based on them. ``pace``, ``bandwidth`` (bytes/s, 0: no limit), ``reflink`` and
    ``verify`` are those of `copy`; ``pause_budget`` (seconds, None: the guest is not
    suspended) and ``converge``, for a guest that writes faster than is mirrored, are those
    of `MirrorSnapshot.pivot`, and hold for undoing it, too; ``timeout`` in seconds, or None.

    Returns the `Plan`. Raises, with everything that was found in one error,
    SpecError, StateError, NotFoundError, ExistsError, BusyError,
    NotSupportedError (also a folder on a file system without extended attributes, an
    overlay that would be in memory, something in a disk's definition that is not known
    to be harmless), ImageError, StorageError (no space, a folder that cannot be
    written to); JournalError, MirrorTimeoutError, MirrorError.
    Calls virDomainGetXMLDesc, virDomainGetMetadata, virDomainListAllSnapshots and
    virConnectGetURI.
    """
    folders = {disk: os.fspath(folder) for disk, folder in disks.items()}
    overlay_folder = None if overlay_folder is None else os.fspath(overlay_folder)
    _check_options(collapse, pace, bandwidth, pause_budget, converge)
    _check_snapshots(snapshots, collapse)
    _check_folders(folders, overlay_folder)
    identity = uuid.uuid4().hex
    snapshot = name if name is not None else f"virmirror-{identity[:8]}"
    pairs = [(disk, os.path.normpath(folder)) for disk, folder in folders.items()]
    _check_unfinished(dom)
    keep, remove_source = snapshots != "refuse", bool(remove_source)
    removal = remove_source and snapshots != "follow"
    found = _core._plan_move(dom, pairs, snapshot, overlay_folder, keep, removal, timeout)
    with os_errors():  # a file may be gone since it was looked at
        planned = tuple(_disk_plan(disk) for disk in found["disks"])
    if snapshots == "follow":
        check_followers(jobs.libvirt_domain(dom), planned, snapshot)
    return Plan(
        id=identity,
        uri=jobs.libvirt_domain(dom).connect().getURI(),
        domain=found["domain"],
        uuid=found["uuid"],
        name=snapshot,
        disks=planned,
        notes=(
            *_notes(found["disks"], collapse),
            *found["notes"],
            *_snapshot_notes(jobs.libvirt_domain(dom), snapshots),
            *_notes_on_converging(pause_budget),
        ),
        collapse=collapse,
        remove_source=remove_source,
        pace=pace,
        bandwidth=int(bandwidth),
        reflink=bool(reflink),
        verify=bool(verify),
        pause_budget=None if pause_budget is None else float(pause_budget),
        snapshots=snapshots,
        converge=converge,
    )


def _check_options(
    collapse: str, pace: str, bandwidth: int, pause_budget: float | None, converge: str
) -> None:
    findings = []
    if collapse not in ("auto", "commit", "pull", "none"):
        findings.append(f"collapse must be 'auto', 'commit', 'pull' or 'none', not {collapse!r}")
    if pace not in ("auto", "full"):
        findings.append(f"pace must be 'auto' or 'full', not {pace!r}")
    if not (bandwidth >= 0 and bandwidth % 1 == 0):  # 50e6 is as good as 50_000_000
        findings.append("bandwidth must be a whole number of bytes per second, 0 or more")
    if pause_budget is not None and not 0 <= pause_budget < float("inf"):
        findings.append("pause_budget must be None, or 0 or more seconds")
    if converge not in ("wait", "throttle"):
        findings.append(f"converge must be 'wait' or 'throttle', not {converge!r}")
    elif converge == "throttle" and pause_budget is None:
        findings.append("converge='throttle' needs a pause_budget")
    if findings:
        raise _core._make_error("invalid-spec", "; ".join(findings))


def _check_snapshots(snapshots: str, collapse: str) -> None:
    if snapshots not in ("refuse", "keep", "follow"):
        raise _core._make_error(
            "invalid-spec", f"snapshots must be 'refuse', 'keep' or 'follow', not {snapshots!r}"
        )
    if snapshots == "follow" and collapse != "commit":
        raise _core._make_error(
            "invalid-spec",
            f"snapshots='follow' wants collapse='commit', not {collapse!r}: else the disk is on a "
            "file that has none of them",
        )


def _snapshot_notes(dom: libvirt.virDomain, snapshots: Snapshots) -> list[str]:
    names = ", ".join(repr(name) for name in dom.snapshotListNames())
    if not names or snapshots == "follow":
        return []
    return [f"a revert to a snapshot ({names}) leads back to the old storage"]


def _check_folders(folders: Mapping[str, str], overlay_folder: str | None) -> None:
    named = [(f"the folder for disk {disk!r}", folder) for disk, folder in folders.items()]
    if overlay_folder is not None:
        named.append(("overlay_folder", overlay_folder))
    findings = [
        f"{what} must be an absolute path, not {folder!r}"
        for what, folder in named
        if not os.path.isabs(folder)
    ]
    if findings:
        raise _core._make_error("invalid-spec", "; ".join(findings))


def _check_unfinished(dom: Any) -> None:
    pid = _core._find_holder(jobs.libvirt_domain(dom).UUIDString())
    if pid is not None:
        who = f"process {pid}" if pid else "another process"
        raise _core._make_error("busy", f"{who} is at work on the disks of this domain")
    unfinished = jobs.unfinished(dom)
    if unfinished is not None:
        raise _core._make_error(
            "busy",
            f"a migration of domain '{unfinished.domain}' is unfinished: run it again, undo "
            "it, or forget it, as virmirror.unfinished(dom) finds it",
        )


def _disk_plan(disk: dict[str, Any]) -> DiskPlan:
    return DiskPlan(
        target=disk["target"],
        folder=disk["folder"],
        overlay=disk["overlay"],
        mirror=disk["mirror"],
        layers=tuple(_layer_plan(layer) for layer in disk["layers"]),
    )


def _layer_plan(layer: dict[str, Any]) -> LayerPlan:
    status = os.stat(layer["source"])
    name, header = layer["backing_name"], layer["header_name"]
    return LayerPlan(
        source=layer["source"],
        format=layer["format"],
        virtual_size=layer["virtual_size"],
        size=layer["size"],
        # what the kernel tells of a device is about its node
        allocated=layer["size"] if layer["ino"] == 0 else status.st_blocks * _BLOCK,
        dev=layer["dev"],
        ino=layer["ino"],
        born=layer["born"],
        mtime_ns=0 if layer["ino"] == 0 else status.st_mtime_ns,
        destination=layer["destination"],
        backing_name=name,
        backing_format=layer["backing_format"],
        rebase=name is not None and name != header,
        there=os.path.lexists(layer["destination"]),
    )


def _notes(disks: list[dict[str, Any]], collapse: Collapse) -> list[str]:
    notes = []
    for disk in disks:
        top = disk["layers"][0]
        kept = (
            "they are copied, and stay"
            if collapse == "commit"
            else ("a pull would lose them: collapse='commit' keeps them")
        )
        for what, has in (("internal snapshots", "snapshots"), ("bitmaps", "bitmaps")):
            if top[has]:
                notes.append(f"disk '{disk['target']}': '{top['source']}' has {what}; {kept}")
    return notes


def _notes_on_converging(pause_budget: float | None) -> list[str]:
    if pause_budget is not None:
        return []
    return [
        "without a pause budget nothing is done about a guest that writes faster than is "
        "mirrored: the cut-over waits for it to write less, and so does undoing the migration"
    ]
