# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command for the whole migration."""

from __future__ import annotations

import argparse
import os
import sys

import libvirt

import virmirror
from virmirror import jobs

from .syntax import Command, CommandParser, Failure, natural, positive

_MIB = 1024 * 1024


def _add_migrate(parser: CommandParser) -> None:
    parser.add_word("domain", "domain name, id or uuid", required=True)
    parser.add_word(
        "disk",
        "a disk, by its target or the path of its file, and the folder that it is to go to",
        metavar="DISK=FOLDER",
        many=True,
        type=_disk_and_folder,
        default=[],
    )
    parser.add_argument("--name", metavar="NAME", help="name of snapshot")
    parser.add_argument(
        "--collapse",
        choices=("auto", "commit", "pull", "none"),
        default="auto",
        help="how the chain gets short again: the new top is committed, the layer below is "
        "pulled, neither, or (the default) committed unless a pull writes much less",
    )
    parser.add_argument(
        "--remove-source", action="store_true", help="remove the old top layers in the end"
    )
    parser.add_argument(
        "--overlay-folder",
        metavar="FOLDER",
        help="where the new top layers on the old side are to be, instead of beside the sources",
    )
    parser.add_argument(
        "--snapshots",
        choices=("refuse", "keep", "follow"),
        default="refuse",
        help="a domain that has snapshots is refused (the default); or they are kept, and a "
        "revert to one leads back to the old storage; or internal ones follow, for which the "
        "new top is to be committed",
    )
    parser.add_argument(
        "--pace",
        choices=("auto", "full"),
        default="auto",
        help="copy as fast as others on the storage can bear (the default), or at full speed",
    )
    parser.add_argument(
        "--bandwidth",
        type=natural,
        metavar="NUMBER",
        default=0,
        help="bandwidth limit of the copy in MiB/s",
    )
    parser.add_argument(
        "--bytes", action="store_true", help="the bandwidth limit is in bytes/s rather than MiB/s"
    )
    parser.add_argument("--verify", action="store_true", help="read the copies back and compare")
    parser.add_argument(
        "--converge",
        choices=("wait", "throttle"),
        default="wait",
        help="what to do about a guest that writes faster than is mirrored: wait until it "
        "writes less (the default), or lower the limits of its disks for the time being",
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        metavar="SECONDS",
        help="undo it if the guest is not on the new storage by then",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be done rather than do it"
    )
    parser.add_argument("--resume", action="store_true", help="go on where an earlier one died")
    parser.add_argument("--undo", action="store_true", help="undo what an earlier one has left")
    parser.add_argument(
        "--forget",
        action="store_true",
        help="tell what an earlier one has left where, and drop its record only",
    )
    parser.add_argument("--verbose", action="store_true", help="display the progress")
    parser.add_argument("--json", action="store_true", help="print a JSON object, for programs")


def _disk_and_folder(text: str) -> tuple[str, str]:
    disk, equals, folder = text.partition("=")
    if not (disk and equals and folder):
        raise argparse.ArgumentTypeError(f"not DISK=FOLDER: {text!r}")
    return disk, folder


# What may be given besides the domain where an earlier migration is meant.
_WITH = {"resume": {"timeout", "verbose", "json"}, "undo": set[str](), "forget": {"json"}}


def _earlier(args: argparse.Namespace) -> list[str]:
    """Which of the options are given that mean an earlier migration."""
    return [name for name in _WITH if getattr(args, name)]


def _check_migrate(parser: CommandParser, args: argparse.Namespace) -> None:
    earlier = _earlier(args)
    if earlier:
        fine = {"command", "parser", "connect", "embed", "domain", earlier[0], *_WITH[earlier[0]]}
        other = [
            name
            for name, value in vars(args).items()
            if name not in fine and value != parser.get_default(name)
        ]
        if other:
            option = "DISK=FOLDER" if other[0] == "disk" else f"--{other[0].replace('_', '-')}"
            parser.error(
                f"--{earlier[0]} goes without {option}: what is to be done is in the record"
            )
    elif not args.disk:
        parser.error("the following arguments are required: DISK=FOLDER")
    if len({disk for disk, _ in args.disk}) != len(args.disk):
        parser.error("a disk is given twice")


def _end_earlier(conn: libvirt.virConnect, plan: virmirror.Plan, args: argparse.Namespace) -> None:
    """Undo or forget an earlier migration."""
    if args.undo:
        for path in virmirror.undo(plan, conn=conn):
            print(f"left: {path}")
        print("Migration undone")
        return
    forgotten = virmirror.forget(plan, conn=conn)
    if args.json:
        print(forgotten.to_json())
        return
    for disk in forgotten.disks:
        print(f"{disk.target}: {' <- '.join(disk.chain) or 'gone'} ({disk.side})")
    for path in forgotten.used:
        print(f"in use: {path}")
    for path in forgotten.left:
        print(f"left, and not in use by the domain: {path}")
    print("Migration forgotten")


def _migrate_gone(conn: libvirt.virConnect, args: argparse.Namespace) -> bool:
    """Undo or forget the migration of a domain that is gone, if there is one."""
    if not (args.undo or args.forget):
        return False
    plans = jobs.unfinished_of(args.domain)
    if len({plan.uuid for plan in plans}) > 1:
        told = ", ".join(sorted({plan.uuid for plan in plans}))
        raise Failure(f"several domains were called {args.domain!r}: give the UUID ({told})")
    if plans:
        _end_earlier(conn, plans[-1], args)
    return bool(plans)


def _migrate(dom: libvirt.virDomain, args: argparse.Namespace) -> None:
    if _earlier(args):
        plan = virmirror.unfinished(dom)
        if plan is None:
            raise Failure(f"domain {dom.name()!r} has no unfinished migration")
        if not args.resume:
            _end_earlier(dom.connect(), plan, args)
            return
    else:
        plan = virmirror.plan(
            dom,
            {disk: os.path.abspath(folder) for disk, folder in args.disk},
            name=args.name,
            collapse=args.collapse,
            remove_source=args.remove_source,
            pace=args.pace,
            bandwidth=args.bandwidth if args.bytes else args.bandwidth * _MIB,
            verify=args.verify,
            converge=args.converge,
            snapshots=args.snapshots,
            overlay_folder=args.overlay_folder and os.path.abspath(args.overlay_folder),
        )
    if args.dry_run:
        print(plan.to_json() if args.json else "\n".join(_describe(plan)))
        return
    report = virmirror.run(
        plan,
        conn=dom.connect(),
        on_progress=_show if args.verbose else None,
        timeout=args.timeout,
    )
    print(report.to_json() if args.json else "\n".join(_summarize(report)))


def _show(progress: virmirror.Progress) -> None:
    if progress.figures is not None:
        print(f"  {_figures(progress.figures)}", file=sys.stderr, flush=True)
    elif progress.path is None:
        print(f"{progress.phase} ...", file=sys.stderr, flush=True)
    elif progress.end:
        percent = 100 * progress.current // progress.end
        end = "\n" if progress.current == progress.end else ""
        text = f"\r  {progress.path}: [{percent:3} %]"
        print(text, end=end, file=sys.stderr, flush=True)


def _figures(figures: virmirror.MirrorFigures) -> str:
    limit = f" (limited to {figures.limit / _MIB:.1f} MiB/s)" if figures.limit else ""
    return (
        f"{figures.left / _MIB:.1f} MiB left, {figures.written / _MIB:.1f} MiB/s written{limit}, "
        f"{figures.mirrored / _MIB:.1f} MiB/s mirrored"
    )


def _describe(plan: virmirror.Plan) -> list[str]:
    """What will be done, in lines."""
    lines = []
    for disk in plan.disks:
        lines.append(f"{disk.target}:")
        for layer in disk.layers:
            there = "there already" if layer.there else f"{layer.allocated / _MIB:.1f} MiB"
            lines.append(f"  {layer.source} -> {layer.destination} ({there})")
        lines.append(f"  meanwhile: {disk.overlay}, {disk.mirror}")
    lines += [f"note: {note}" for note in plan.notes]
    lines.append(f"to copy: {plan.bytes_to_copy / _MIB:.1f} MiB")
    return lines


def _summarize(report: virmirror.Report) -> list[str]:
    """What was done, in lines."""
    lines = [f"{disk.target}: {' <- '.join(disk.after)}" for disk in report.disks]
    lines += [f"left, as it is in use or not ours any more: {path}" for path in report.left]
    pause = "unknown" if report.pause is None else f"{report.pause * 1000:.0f} ms"
    lines.append(
        f"Migration complete: {report.copied / _MIB:.1f} MiB in {report.seconds:.1f} s, "
        f"pause {pause}"
    )
    return lines


COMMANDS = (
    Command(
        "migrate",
        (
            "DOMAIN DISK=FOLDER... [--name NAME]",
            "[--collapse {auto,commit,pull,none}] [--remove-source]",
            "[--overlay-folder FOLDER] [--snapshots {refuse,keep,follow}]",
            "[--pace {auto,full}] [--bandwidth NUMBER [--bytes]] [--verify]",
            "[--converge {wait,throttle}] [--timeout SECONDS]",
            "[--dry-run] [--verbose] [--json]",
            "DOMAIN --resume [--timeout SECONDS] [--verbose] [--json]",
            "DOMAIN {--undo | --forget [--json]}",
        ),
        "move disks of a running domain into other folders",
        _add_migrate,
        _migrate,
        _check_migrate,
        run_gone=_migrate_gone,
    ),
)
