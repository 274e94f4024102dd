# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands for after something has died: what is, and putting it right."""

from __future__ import annotations

import argparse

import libvirt

import virmirror

from .syntax import Command, CommandParser


def _add_domain(parser: CommandParser) -> None:
    parser.add_word("domain", "domain name, id or uuid", required=True)
    parser.add_argument("--json", action="store_true", help="print a JSON object, for programs")


def _inspect(dom: libvirt.virDomain, args: argparse.Namespace) -> None:
    found = virmirror.inspect(dom)
    if args.json:
        print(found.to_json())
        return
    print(f"{'Verdict:':<11}{found.verdict}: {found.advice}")
    if found.running_pid is not None:
        print(f"{'Process:':<11}{found.running_pid or 'unknown'}")
    elif virmirror.unfinished(dom) is not None:
        ways = "'virmirror migrate' with --resume, --undo or --forget"
        print(f"{'Migration:':<11}unfinished: {ways}")
    if found.snapshot is None:
        return
    print(f"{'Snapshot:':<11}{found.snapshot}, {found.meant} in the journal")
    if found.paused_by_us:
        print(f"{'Guest:':<11}suspended by virmirror")
    for disk in found.disks:
        print(f"\n{'Disk:':<11}{disk.target}, {disk.verdict}")
        print(f"{'  meant:':<11}{disk.meant}")
        print(f"{'  is:':<11}{disk.truth}{', with a block job' if disk.job else ''}")
        files = (
            ("source", disk.source, disk.source_lock),
            ("overlay", disk.overlay, disk.overlay_lock),
            ("mirror", disk.mirror, disk.mirror_lock),
        )
        for role, path, lock in files:
            print(f"{f'  {role}:':<11}{path} ({_LOCKS[lock]})")
        if disk.written:
            print(f"{'  written:':<11}{disk.written}")


_LOCKS = {
    "free": "nobody writes to it",
    "writer": "open for writing",
    "unknown": "cannot tell who writes to it",
}


def _add_recover(parser: CommandParser) -> None:
    _add_domain(parser)
    parser.add_argument(
        "--policy",
        choices=("resume", "abort", "pivot"),
        default="resume",
        help="what to do with mirrors that run: leave them running (the default), "
        "abort them, or pivot to them",
    )


def _recover(dom: libvirt.virDomain, args: argparse.Namespace) -> None:
    recovery = virmirror.recover(dom, args.policy)
    if args.json:
        print(recovery.to_json())
        return
    print(f"{'Found:':<11}{recovery.found}")
    for line in recovery.done:
        print(f"{'Done:':<11}{line}")
    for line in recovery.left:
        print(f"{'To do:':<11}{line}")
    print(f"{'Now:':<11}{recovery.verdict}")


COMMANDS = (
    Command(
        "inspect",
        ("DOMAIN [--json]",),
        "tell what is going on with a domain's mirrored snapshot",
        _add_domain,
        _inspect,
    ),
    Command(
        "recover",
        ("DOMAIN [--policy {resume,abort,pivot}] [--json]",),
        "put right what a crash has left of a mirrored snapshot",
        _add_recover,
        _recover,
    ),
)
