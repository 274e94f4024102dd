# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: virsh's snapshot commands, with mirrors.

Names, options and meanings are virsh's, so that a command line which is written
for virsh works with ``virmirror`` in its place. Each command is a process of its
own; what has to outlive it is in the domain.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence

import libvirt

import virmirror

from . import copying, disks, migration, recovery, snapshots
from .syntax import CommandParser, Failure, not_empty

__all__ = ["main"]

_UUID_LENGTH = 36  # as libvirt writes it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv``, or else the program's arguments, tell.

    Returns the exit status: 0, 1 after an error, which is one line on stderr, or
    130 after Ctrl-C. Raises :exc:`SystemExit` with 2 where the usage is wrong.
    """
    args = _make_parser().parse_args(argv)
    if args.command.check:
        args.command.check(args.parser, args)
    try:
        _run(args)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        left = interrupt.__context__
        told = [_one_line(left)] if isinstance(left, virmirror.MirrorError) else []
        told += getattr(interrupt, "__notes__", [])
        print(": ".join(["error: interrupted", *told]), file=sys.stderr)
        return 130
    except BrokenPipeError:
        # nobody reads on; and the interpreter is not to try again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Failure, libvirt.libvirtError, OSError, RuntimeError, UnicodeError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> None:
    if args.command.run_local:
        args.command.run_local(args)
        return
    with _quiet_libvirt():
        # before the first connection, so that a wait ends with its event
        virmirror.start_event_loop()
        with _connect(args) as conn:
            try:
                dom = _lookup_domain(conn, args.domain)
            except Failure:
                if args.command.run_gone and args.command.run_gone(conn, args):
                    return
                raise
            args.command.run(dom, args)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="virmirror",
        description="Move the disks of a running libvirt guest by mirrored snapshots. "
        "Commands and options are virsh's.",
        epilog="'virmirror COMMAND --help' tells more about a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {virmirror.__version__}")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-c", "--connect", metavar="URI", type=not_empty, help="hypervisor connection URI"
    )
    where.add_argument(
        "--embed",
        metavar="DIR",
        type=not_empty,
        help="use a private QEMU host below this folder, without a daemon; "
        "its guests stay when the command has ended",
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=CommandParser
    )
    for command in (
        *migration.COMMANDS,
        *snapshots.COMMANDS,
        *disks.COMMANDS,
        *copying.COMMANDS,
        *recovery.COMMANDS,
    ):
        sub = commands.add_parser(
            command.name,
            usage="%(prog)s " + "\n    ".join(command.usage),
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
        )
        command.add(sub)
        sub.set_defaults(command=command, parser=sub)
    return parser


@contextlib.contextmanager
def _quiet_libvirt() -> Iterator[None]:
    """Keep libvirt from printing its errors: they are raised, too."""
    libvirt.registerErrorHandler(lambda context, error: None, None)
    try:
        yield
    finally:
        libvirt.registerErrorHandler(None, None)


@contextlib.contextmanager
def _connect(args: argparse.Namespace) -> Iterator[libvirt.virConnect]:
    if args.embed:
        from virmirror import embed

        with embed.Host(args.embed, keep_guests=True) as host:
            yield host.conn
        return
    # without either, libvirt looks at its own variable and configuration
    uri = args.connect or os.environ.get("VIRSH_DEFAULT_CONNECT_URI")
    with contextlib.closing(libvirt.open(uri)) as conn:
        yield conn


def _lookup_domain(conn: libvirt.virConnect, text: str) -> libvirt.virDomain:
    """Find a domain by id, UUID or name, in virsh's order."""
    # a number may be the name, and a name may look like a UUID
    with contextlib.suppress(libvirt.libvirtError):
        if re.fullmatch("[0-9]{1,9}", text):
            return conn.lookupByID(int(text))
    with contextlib.suppress(libvirt.libvirtError):
        if len(text) == _UUID_LENGTH:
            return conn.lookupByUUIDString(text)
    try:
        return conn.lookupByName(text)
    except libvirt.libvirtError as error:
        raise Failure(f"failed to get domain {text!r}: {error}") from error


def _one_line(error: BaseException) -> str:
    lines = [str(error) or type(error).__name__, *getattr(error, "__notes__", [])]
    return "; ".join(" ".join(line.split()) for line in lines)
