# SPDX-License-Identifier: LGPL-2.1-or-later
"""libvirt's own snapshots of a domain whose disks are moved.

libvirt's record of a snapshot has the definition that the domain had, with the files
that its disks were on, and a revert goes by that. An internal snapshot is within the
image, and is copied with it: so its record may name the copy, once that is what the disk
runs on. That of an external snapshot cannot follow: its overlays are files of their own.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import libvirt

from . import _core

if TYPE_CHECKING:
    from .planning import DiskPlan

__all__ = ["check_followers", "follow"]

_SECURE = libvirt.VIR_DOMAIN_SNAPSHOT_XML_SECURE


def check_followers(dom: libvirt.virDomain, disks: Sequence[DiskPlan], ours: str) -> None:
    """That all snapshots of ``dom``, but ``ours``, can follow the move of the disks.

    Raises StateError with all that cannot. Calls virDomainListAllSnapshots and
    virDomainSnapshotGetXMLDesc.
    """
    found = []
    for snapshot in dom.listAllSnapshots():
        why = _why_not(ET.fromstring(snapshot.getXMLDesc(_SECURE)), disks)
        if why is not None and snapshot.getName() != ours:
            found.append(f"the snapshot {snapshot.getName()!r} cannot follow: {why}")
    if found:
        raise _core._make_error(
            "invalid-state", "; ".join(found) + ": delete it, or keep it (snapshots='keep')"
        )


def follow(dom: libvirt.virDomain, disks: Sequence[DiskPlan]) -> None:
    """Have the snapshots of ``dom`` name the copies of the disks' top layers.

    Those that do already stay as they are. Calls virDomainListAllSnapshots,
    virDomainSnapshotGetXMLDesc and virDomainSnapshotCreateXML.
    """
    for snapshot in dom.listAllSnapshots():
        root = ET.fromstring(snapshot.getXMLDesc(_SECURE))
        if not _move(root, disks):
            continue
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE
        if snapshot.isCurrent():
            flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT
        dom.snapshotCreateXML(ET.tostring(root, encoding="unicode"), flags)


def _why_not(root: ET.Element, disks: Sequence[DiskPlan]) -> str | None:
    kinds = {node.get("snapshot") for node in (*root.iterfind("memory"), *root.iterfind("disks/*"))}
    if not kinds <= {"internal", "no"}:
        return "it is not internal"
    if root.find("domain") is None:
        return "libvirt has no definition for it"
    for disk, node in _disks_in(root, disks):
        if _source(node) != disk.layers[0].source:
            return f"disk {disk.target!r} was on {_source(node)!r}"
        if node.find("backingStore/source") is not None:
            return f"its definition of disk {disk.target!r} names the backing chain"
    return None


def _disks_in(root: ET.Element, disks: Sequence[DiskPlan]) -> Iterator[tuple[DiskPlan, ET.Element]]:
    """The disks' elements in a snapshot's definitions, live and persistent."""
    by_target = {disk.target: disk for disk in disks}
    for definition in (*root.iterfind("domain"), *root.iterfind("inactiveDomain")):
        for node in definition.iterfind("devices/disk"):
            target = node.find("target")
            disk = None if target is None else by_target.get(target.get("dev", ""))
            if disk is not None:
                yield disk, node


def _source(node: ET.Element) -> str | None:
    source = node.find("source")
    return None if source is None else source.get("file", source.get("dev"))


def _move(root: ET.Element, disks: Sequence[DiskPlan]) -> bool:
    """Put the disks on the new files; whether there were any on the old ones."""
    moved = False
    for disk, node in _disks_in(root, disks):
        source = node.find("source")
        if source is not None and _source(node) == disk.layers[0].source:
            node.set("type", "file")
            source.attrib.pop("dev", None)
            source.set("file", disk.layers[0].destination)
            moved = True
    return moved
