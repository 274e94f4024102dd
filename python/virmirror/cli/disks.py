# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands on a disk and its backing chain."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Iterator

import libvirt

import virmirror

from .syntax import Command, CommandParser, Failure, natural, positive

_MIB = 1024 * 1024

# Seconds between two looks at a block job, and those that a cancelled one gets
# to go away.
_LOOK_INTERVAL = 0.5
_CANCEL_TIMEOUT = 10.0


def _add_disk(parser: CommandParser) -> None:
    parser.add_word("domain", "domain name, id or uuid", required=True)
    parser.add_word("path", "the disk: its target (vda), or the path of its file", required=True)


def _add_blockpull(parser: CommandParser) -> None:
    _add_disk(parser)
    parser.add_word(
        "bandwidth", "bandwidth limit in MiB/s", type=natural, metavar="NUMBER", default=0
    )
    parser.add_word(
        "base",
        "path of backing file in chain for a partial pull; its name stays relative",
        metavar="FILE",
    )
    parser.add_argument("--wait", action="store_true", help="wait for job to finish")
    parser.add_argument("--verbose", action="store_true", help="with --wait, display the progress")
    parser.add_argument(
        "--timeout",
        type=positive,
        metavar="SECONDS",
        help="with --wait, abort if pull exceeds timeout (in seconds)",
    )
    parser.add_argument(
        "--bytes", action="store_true", help="the bandwidth limit is in bytes/s rather than MiB/s"
    )


def _check_blockpull(parser: CommandParser, args: argparse.Namespace) -> None:
    for option in ("timeout", "verbose"):
        if getattr(args, option) and not args.wait:
            parser.error(f"option --wait is required by option --{option}")


def _blockpull(dom: libvirt.virDomain, args: argparse.Namespace) -> None:
    bandwidth = args.bandwidth if args.bytes else args.bandwidth * _MIB
    progress = _progress(dom, args.path) if args.verbose else contextlib.nullcontext()
    try:
        with progress:
            virmirror.block_pull(
                dom,
                args.path,
                args.base,
                bandwidth=bandwidth,
                wait=args.wait,
                timeout=args.timeout,
            )
    except virmirror.MirrorTimeoutError as error:
        if args.timeout is None:  # a call of libvirt took too long
            raise
        _cancel_job(dom, args.path)
        raise Failure(f"pull aborted: it took longer than {args.timeout} s") from error
    except KeyboardInterrupt:
        if args.wait:
            _cancel_job(dom, args.path)
        raise
    print("Pull complete" if args.wait else "Block Pull started")


@contextlib.contextmanager
def _progress(dom: libvirt.virDomain, disk: str) -> Iterator[None]:
    """Show on stderr how far the job of a disk is, until the context is left."""
    stop = threading.Event()

    def show(percent: int) -> None:
        print(f"\rBlock Pull: [{percent:3} %]", end="", file=sys.stderr, flush=True)

    def watch() -> None:
        while not stop.wait(_LOOK_INTERVAL):
            with contextlib.suppress(libvirt.libvirtError):
                job = dom.blockJobInfo(disk)
                if job and job["end"]:
                    show(min(99, 100 * job["cur"] // job["end"]))

    show(0)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    end = "\n"
    try:
        yield
        end = "\rBlock Pull: [100 %]\n"
    finally:
        stop.set()
        watcher.join()
        print(end=end, file=sys.stderr)


def _cancel_job(dom: libvirt.virDomain, disk: str) -> None:
    """Cancel the job of a disk, and wait a while for its end; there may be none."""
    with contextlib.suppress(libvirt.libvirtError):
        dom.blockJobAbort(disk, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC)
        end = time.monotonic() + _CANCEL_TIMEOUT
        while dom.blockJobInfo(disk) and time.monotonic() < end:
            time.sleep(0.05)


def _add_prepare_chain(parser: CommandParser) -> None:
    _add_disk(parser)
    parser.add_word(
        "folder", "where the mirror and the copies of the layers are to be", required=True
    )


def _prepare_chain(dom: libvirt.virDomain, args: argparse.Namespace) -> None:
    for path in virmirror.prepare_chain(dom, args.path, args.folder):
        print(path)


COMMANDS = (
    Command(
        "blockpull",
        (
            "DOMAIN PATH [--bandwidth NUMBER [--bytes]] [--base FILE]",
            "[--wait [--timeout SECONDS] [--verbose]]",
        ),
        "populate a disk from its backing image",
        _add_blockpull,
        _blockpull,
        _check_blockpull,
    ),
    Command(
        "prepare-chain",
        ("DOMAIN PATH FOLDER",),
        "make the skeleton of a disk's backing chain in another folder",
        _add_prepare_chain,
        _prepare_chain,
    ),
)
