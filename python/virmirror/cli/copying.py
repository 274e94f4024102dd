# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command that copies a layer; it needs no hypervisor."""

from __future__ import annotations

import argparse
import sys

import virmirror

from .syntax import Command, CommandParser, natural, positive

_MIB = 1024 * 1024


def _add_copy(parser: CommandParser) -> None:
    parser.add_word("source", "file or block device to copy", required=True)
    parser.add_word("destination", "file or block device to copy to", required=True)
    parser.add_argument(
        "--pace",
        choices=("auto", "full"),
        default="auto",
        help="auto takes care of guests on the same storage (the default), "
        "full is for idle storage",
    )
    parser.add_word(
        "bandwidth", "bandwidth limit in MiB/s", type=natural, metavar="NUMBER", default=0
    )
    parser.add_argument(
        "--bytes", action="store_true", help="the bandwidth limit is in bytes/s rather than MiB/s"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="fill a destination that exists, in place, unless it is a complete copy already",
    )
    parser.add_argument(
        "--no-reflink", action="store_true", help="copy the data where they could be shared"
    )
    parser.add_argument(
        "--verify", action="store_true", help="read the destination back and compare"
    )
    parser.add_argument(
        "--timeout", type=positive, metavar="SECONDS", help="give up when it takes longer"
    )
    parser.add_argument("--verbose", action="store_true", help="display the progress")


def _show(progress: virmirror.CopyProgress) -> None:
    done = 100 * progress.current // progress.end if progress.end else 0
    print(f"\rCopy: [{done:3} %]", end="", file=sys.stderr, flush=True)


def _copy(args: argparse.Namespace) -> None:
    try:
        report = virmirror.copy(
            args.source,
            args.destination,
            pace=args.pace,
            bandwidth=args.bandwidth if args.bytes else args.bandwidth * _MIB,
            reflink=not args.no_reflink,
            verify=args.verify,
            overwrite=args.overwrite,
            timeout=args.timeout,
            on_progress=_show if args.verbose else None,
        )
    finally:
        if args.verbose:
            print(file=sys.stderr)
    if report.method == "none":
        print(f"{report.destination} is a complete copy already")
        return
    print(
        f"{report.copied} of {report.size} bytes copied in {report.seconds:.2f} s by "
        f"{report.method}{', verified' if report.verified else ''}"
    )
    if report.checksum:
        print(f"checksum {report.checksum}")


COMMANDS = (
    Command(
        "copy",
        (
            "SOURCE DESTINATION [--pace {auto,full}] [--bandwidth NUMBER [--bytes]]",
            "[--overwrite] [--no-reflink] [--verify] [--timeout SECONDS] [--verbose]",
        ),
        "copy an image that nobody writes to, without its holes",
        _add_copy,
        None,
        run_local=_copy,
    ),
)
