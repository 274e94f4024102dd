#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watch a guest that writes all the time move from one folder to another.

    make demo

A private libvirt host and everything else are made in a temporary folder, which
is gone in the end. The status is 0 if the move was proven to have lost nothing.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import xml.etree.ElementTree as ET
from typing import NamedTuple

# libvirt reads this as it is loaded. Its warnings ("the guest is tainted: it
# runs as root") say nothing that matters to a guest that lives for seconds.
os.environ.setdefault("LIBVIRT_DEBUG", "4")

import libvirt

import virmirror
from virmirror import embed, testguest


class Step(NamedTuple):
    """One step: what it does, its commands, and the Python that is run for them."""

    title: str
    commands: str
    python: str
    text: str


STEPS = [
    Step(
        "Make the new top of the old chain",
        "qemu-img create -f qcow2 -o backing_file=old.qcow2 -o backing_fmt=qcow2 \\\n"
        "  $path1/old.migrate",
        """\
        subprocess.run([*create, path1 / "old.migrate"], check=True)
        """,
        "An empty layer on top of old.qcow2; nobody uses it yet.",
    ),
    Step(
        "Make the new top of the new chain",
        "virmirror prepare-chain demo vda $path2\n"
        "qemu-img create -f qcow2 -o backing_file=old.qcow2 -o backing_fmt=qcow2 \\\n"
        "  $path2/new.qcow2",
        """\
        virmirror.prepare_chain(dom, "vda", path2)
        subprocess.run([*create, path2 / "new.qcow2"], check=True)
        """,
        "Its backing file is named relative to its own folder, so it means the old.qcow2 in path2. "
        "That one is an empty skeleton so far, as is common below it: today's libvirt wants to see "
        "the whole chain when the mirror starts.",
    ),
    Step(
        "Take a mirrored snapshot",
        "virmirror snapshot-create-as demo migrate --reuse-external \\\n"
        "  --diskspec vda,file=$path1/old.migrate,mirror=$path2/new.qcow2",
        """\
        mirror = virmirror.MirrorSnapshot.create(
            dom,
            "migrate",
            f"vda,file={path1}/old.migrate,mirror={path2}/new.qcow2",
            reuse_external=True,
        )
        """,
        "From here on each write goes to both places, and old.qcow2 and common are frozen.",
    ),
    Step(
        "Copy the frozen layers",
        "cp $path1/common $path1/old.qcow2 $path2",
        """\
        for name in ("common", "old.qcow2"):
            virmirror.copy(path1 / name, path2 / name, overwrite=True)
        """,
        "This is where the time goes when a disk is large. The guest runs on. The copies go into "
        "the files of the skeleton: QEMU was given just those. (All six steps in one call: "
        "virmirror migrate demo vda=$path2.)",
    ),
    Step(
        "Pivot to the mirror",
        "virmirror snapshot-delete demo migrate --mirror-pivot",
        """\
        mirror.wait_ready(timeout=300)
        mirror.pivot()
        """,
        "The guest goes on with path2 alone. That is believed only when libvirt's live and "
        "persistent definitions and QEMU's own file locks all say so.",
    ),
    Step(
        "Shorten the chain again",
        "virmirror blockpull demo vda --base $path2/common --wait",
        """\
        virmirror.block_pull(dom, "vda", base=path2 / "common")
        """,
        "What old.qcow2 holds is pulled into new.qcow2; the chain is as long as it was before.",
    ),
]

CREATE = ["qemu-img", "create", "-q", "-f", "qcow2"]
CREATE += ["-o", "backing_file=old.qcow2", "-o", "backing_fmt=qcow2"]

COLOURS = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if COLOURS else text


def dim(text: str) -> str:
    return f"\033[2m{text}\033[0m" if COLOURS else text


def green(text: str) -> str:
    return f"\033[32m{text}\033[0m" if COLOURS else text


def say(text: str, indent: str = "   ") -> None:
    print(textwrap.fill(text, 88, initial_indent=indent, subsequent_indent=indent), flush=True)


def show_commands(commands: str) -> None:
    for line in commands.splitlines():
        # a line that goes on with the command before is indented
        print(dim(f"   {' ' if line.startswith(' ') else '$'} {line}"))


def show_python(python: str) -> None:
    for line in python.splitlines():
        goes_on = line.startswith((" ", ")"))
        print(f"   {'...' if goes_on else '>>>'} {line}")


def layers_of(dom: libvirt.virDomain) -> list[tuple[str, pathlib.Path]]:
    """Format and path of each layer of the guest's disk, top first, as libvirt tells."""
    layers = []
    layer = ET.fromstring(dom.XMLDesc()).find(".//disk")
    while layer is not None and (source := layer.find("source")) is not None:
        # The top's <driver> has the format; that of a layer below is a <format>.
        kind = layer.find("format") if layer.tag == "backingStore" else layer.find("driver")
        layers.append(
            ("" if kind is None else kind.get("type", ""), pathlib.Path(source.attrib["file"]))
        )
        layer = layer.find("backingStore")
    return layers


def show_chain(dom: libvirt.virDomain, folder: pathlib.Path) -> None:
    print("\n   vda")
    for depth, (kind, path) in enumerate(layers_of(dom)):
        size = path.stat().st_blocks * 512 / testguest.MIB
        name = f"{'   ' * depth}└─ {path.relative_to(folder)}"
        print(f"   {name:<30}{kind:>6}{size:8.1f} MiB")
    print(flush=True)


def chain_line(dom: libvirt.virDomain, folder: pathlib.Path) -> str:
    """The same in a line, the base first, with the mirror while there is one."""
    names = [str(path.relative_to(folder)) for _, path in reversed(layers_of(dom))]
    mirror = ET.fromstring(dom.XMLDesc()).find(".//disk/mirror/source")
    if mirror is not None:
        names[-1] += f" + {pathlib.Path(mirror.attrib['file']).relative_to(folder)}"
    return " <- ".join(names)


class Guest:
    """The guest, where its files are, and what its writes amount to."""

    def __init__(self, host: embed.Host, folder: pathlib.Path) -> None:
        self.folder = folder
        self.path1, self.path2 = folder / "path1", folder / "path2"
        self.path1.mkdir()
        self.path2.mkdir()
        self.serial = folder / "serial"
        size = 128 * testguest.MIB
        chain = testguest.make_chain(self.path1, size=size, data=size // 2)
        self.dom = host.start(testguest.domain_xml("demo", [chain[-1]], self.serial))
        testguest.wait_for_writes(self.serial, 500)

    def writes(self) -> int:
        """How many writes the guest has reported; a byte is one."""
        return self.serial.stat().st_size

    def run(self, number: int, step: Step, names: dict[str, object]) -> None:
        """Show a step and run the very lines that are shown."""
        print(f"{bold(f'{number}. {step.title}')}")
        show_commands(step.commands)
        python = textwrap.dedent(step.python)
        show_python(python)
        say(step.text)
        before = chain_line(self.dom, self.folder)
        writes, start = self.writes(), time.monotonic()
        exec(python, names)
        took, more = time.monotonic() - start, self.writes() - writes
        if (now := chain_line(self.dom, self.folder)) != before:
            say(f"vda: {now}")
        say(green(f"{took * 1000:.0f} ms; the guest made {more} writes meanwhile"))
        print()


def move(guest: Guest) -> None:
    names = {
        "create": CREATE,
        "dom": guest.dom,
        "path1": guest.path1,
        "path2": guest.path2,
        "subprocess": subprocess,
        "virmirror": virmirror,
    }
    for number, step in enumerate(STEPS, start=1):
        guest.run(number, step, names)


def prove(guest: Guest) -> None:
    """Take the old folder away, stop the guest and look at every write on its disk."""
    shutil.rmtree(guest.path1)
    before = guest.writes()
    testguest.wait_for_writes(guest.serial, 500)
    print(bold("path1 is removed"))
    say(f"The guest went on and has made {guest.writes() - before} writes since.")
    guest.dom.destroy()
    top = guest.path2 / "new.qcow2"
    writes = testguest.check(top, guest.serial)
    print(bold("The guest is stopped, and its disk read"))
    say(
        f"The guest reported {writes.reported} writes, and the last one on path2/new.qcow2 is "
        f"number {writes.highest}. Each block is whole and the newest of its place, and so are "
        "both layers of the chain."
    )


def demo() -> None:
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="virmirror-demo-") as work, embed.Host() as host:
        print(bold("A guest moves from path1 to path2 while it writes"))
        say(f"Both are in {work}. libvirt asks QEMU what it can do, once, which takes a while ...")
        version = host.conn.getVersion()
        number = f"{version // 1000000}.{version // 1000 % 1000}.{version % 1000}"
        guest = Guest(host, pathlib.Path(work))
        say(
            f"QEMU {number} runs the guest. It writes one 8 KiB block after the other, "
            f"{guest.writes()} by now, and will not stop. Its disk:"
        )
        show_chain(guest.dom, guest.folder)
        move(guest)
        print(bold("The disk now"))
        show_chain(guest.dom, guest.folder)
        prove(guest)
    print(green(f"\nOK: no write was lost; {time.monotonic() - start:.0f} s"))


def main() -> int:
    # A terminal that cannot draw the tree is no reason to fail.
    sys.stdout.reconfigure(errors="replace")
    # A demo that is told to end takes its guest with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    # libvirt-python prints each error besides raising it, unless told not to.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        demo()
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        text = str(error) or type(error).__name__
        print(f"\nFAILED: {type(error).__name__}: {text}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
