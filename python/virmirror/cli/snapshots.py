# SPDX-License-Identifier: LGPL-2.1-or-later
"""virsh's snapshot commands, with mirrors."""

from __future__ import annotations

import argparse
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable

import libvirt

import virmirror

from .syntax import Command, CommandParser


def _add_flags(parser: CommandParser, flags: Iterable[tuple[str, int, str]]) -> None:
    for name, flag, text in flags:
        parser.add_argument(
            f"--{name}", action="append_const", dest="flags", const=flag, default=[], help=text
        )


_CREATE_FLAGS = (
    (
        "no-metadata",
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA,
        "take snapshot but create no metadata",
    ),
    ("halt", libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_HALT, "halt domain after snapshot is created"),
    (
        "disk-only",
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY,
        "capture disk state but not vm state",
    ),
    (
        "reuse-external",
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT,
        "reuse any existing external files",
    ),
    ("quiesce", libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE, "quiesce guest's file systems"),
    ("atomic", libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC, "require atomic operation"),
    ("live", libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE, "take a live snapshot"),
)


def _add_create_as(parser: CommandParser) -> None:
    parser.add_word("domain", "domain name, id or uuid", required=True)
    parser.add_word("name", "name of snapshot")
    parser.add_word("description", "description of snapshot")
    parser.add_argument(
        "--print-xml", action="store_true", help="print XML document rather than create"
    )
    _add_flags(parser, _CREATE_FLAGS)
    parser.add_word(
        "diskspec",
        "disk attributes: disk[,snapshot=type][,driver=type][,file=name][,mirror=name]; "
        "a comma within a value is doubled. A literal --diskspec must precede each diskspec "
        "unless all three of domain, name, and description are also present",
        many=True,
        default=[],
    )


def _create_as(dom: libvirt.virDomain, args: argparse.Namespace) -> None:
    xml = virmirror.snapshot_xml(args.name, args.description, args.diskspec)
    if args.print_xml:
        print(xml.rstrip())
        return
    snap = virmirror.snapshotCreateXML(dom, xml, sum(set(args.flags)))
    print(f"Domain snapshot {snap.getName()} created")


_DELETE_FLAGS = (
    (
        "children",
        virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN,
        "delete snapshot and all children",
    ),
    (
        "children-only",
        virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY,
        "delete children but not snapshot",
    ),
    (
        "metadata",
        virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY,
        "delete only libvirt metadata, leaving snapshot contents behind",
    ),
    (
        "mirror-abort",
        virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_ABORT,
        "abort a mirror while removing snapshot",
    ),
    (
        "mirror-pivot",
        virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_PIVOT,
        "pivot to the mirror before removing snapshot",
    ),
)


def _add_delete(parser: CommandParser) -> None:
    parser.add_word("domain", "domain name, id or uuid", required=True)
    parser.add_word("snapshotname", "snapshot name")
    parser.add_argument("--current", action="store_true", help="delete current snapshot")
    _add_flags(parser, _DELETE_FLAGS)


def _check_delete(parser: CommandParser, args: argparse.Namespace) -> None:
    if args.snapshotname and args.current:
        parser.error("--snapshotname and --current are mutually exclusive")
    if not args.snapshotname and not args.current:
        parser.error("--snapshotname or --current is required")


def _delete(dom: libvirt.virDomain, args: argparse.Namespace) -> None:
    if args.current:
        snap = dom.snapshotCurrent()
    else:
        snap = dom.snapshotLookupByName(args.snapshotname)
    name = snap.getName()
    virmirror.snapshotDelete(snap, sum(set(args.flags)))
    if virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY in args.flags:
        print(f"Domain snapshot {name} children deleted")
    else:
        print(f"Domain snapshot {name} deleted")


def _add_dumpxml(parser: CommandParser) -> None:
    parser.add_word("domain", "domain name, id or uuid", required=True)
    parser.add_word("snapshotname", "snapshot name", required=True)


def _dumpxml(dom: libvirt.virDomain, args: argparse.Namespace) -> None:
    snap = dom.snapshotLookupByName(args.snapshotname)
    print(virmirror.snapshotGetXMLDesc(snap).rstrip())


def _add_list(parser: CommandParser) -> None:
    parser.add_word("domain", "domain name, id or uuid", required=True)


def _list(dom: libvirt.virDomain, args: argparse.Namespace) -> None:
    mirrored, mirror = _mirror_of(dom) or (None, "")
    rows: list[tuple[str, ...]] = [("Name", "Creation Time", "State", "Mirror")]
    for snap in sorted(dom.listAllSnapshots(), key=lambda snap: snap.getName().lower()):
        name = snap.getName()
        xml = ET.fromstring(snap.getXMLDesc())
        created = time.localtime(int(xml.findtext("creationTime", "0")))
        rows.append(
            (
                name,
                time.strftime("%Y-%m-%d %H:%M:%S %z", created),
                xml.findtext("state", ""),
                mirror if name == mirrored else "",
            )
        )
    _print_table(rows)


def _mirror_of(dom: libvirt.virDomain) -> tuple[str, str] | None:
    """The name of the mirrored snapshot of a domain, and how its mirrors stand."""
    try:
        snapshot = virmirror.adopt(dom)
    except virmirror.NotFoundError:
        return None
    try:
        if snapshot.state != "mirroring":
            return snapshot.name, snapshot.state
        return snapshot.name, ", ".join(map(_describe, snapshot.progress()))
    finally:
        snapshot.detach()


def _describe(disk: virmirror.DiskProgress) -> str:
    if disk.ready:
        return f"{disk.target} ready"
    if not disk.active:
        return f"{disk.target} stopped"
    percent = 100 * disk.current // disk.end if disk.end else 0
    return f"{disk.target} {min(percent, 99)} %"


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """Print a table in virsh's layout, the first row being its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = (f" {cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
        if number == 0:
            print("-" * sum(width + 3 for width in widths))


COMMANDS = (
    Command(
        "snapshot-create-as",
        (
            "DOMAIN [NAME] [DESCRIPTION]",
            "[--print-xml] [--no-metadata] [--halt] [--disk-only] [--reuse-external]",
            "[--quiesce] [--atomic] [--live] [[--diskspec] DISKSPEC]...",
        ),
        "create a snapshot, mirrored where a diskspec names a mirror",
        _add_create_as,
        _create_as,
    ),
    Command(
        "snapshot-delete",
        (
            "DOMAIN {SNAPSHOTNAME | --current} [--metadata]",
            "[--children | --children-only] [--mirror-abort | --mirror-pivot]",
        ),
        "delete a snapshot; a mirrored one after its mirror was ended",
        _add_delete,
        _delete,
        _check_delete,
    ),
    Command(
        "snapshot-dumpxml",
        ("DOMAIN SNAPSHOTNAME",),
        "print the XML of a snapshot, with its mirrors",
        _add_dumpxml,
        _dumpxml,
    ),
    Command(
        "snapshot-list",
        ("DOMAIN",),
        "list the snapshots of a domain, and how the mirrors of one stand",
        _add_list,
        _list,
    ),
)
