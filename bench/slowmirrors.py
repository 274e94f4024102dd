# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run as a program: start mirrors that do not get ready, and keep them so.

The arguments are the daemon's URI and, for each guest, its name and a diskspec.
The mirrors' files become slow ones, in the daemon's mount namespace, where this
has to run; the block jobs are throttled once they have begun. Says "ready" then;
with its input the storage ends, and the mirrors with it.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys

import libvirt

import virmirror

sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests"))

from support import qemu
from support.storage import SlowFile

# So slow that a guest, even one that gets little of the processor, writes more.
BYTES_PER_SECOND = 192 * 1024


def main() -> None:
    uri, *rest = sys.argv[1:]
    virmirror.start_event_loop()
    conn = libvirt.open(uri)
    with contextlib.ExitStack() as storage:
        for name, spec in zip(rest[::2], rest[1::2], strict=True):
            mirror = pathlib.Path(spec.rpartition("mirror=")[2])
            storage.enter_context(SlowFile(mirror, BYTES_PER_SECOND))
            start(conn.lookupByName(name), spec)
        print("ready", flush=True)
        sys.stdin.read()


def start(dom: libvirt.virDomain, spec: str) -> None:
    """Start a mirror that falls behind its guest, and leave it with much to do."""
    dom.resume()
    virmirror.MirrorSnapshot.create(dom, "migrate", spec, reuse_external=True).detach()
    qemu.write(dom, "16M", "24M")
    qemu.throttle(dom, "vda", 1)
    dom.suspend()


if __name__ == "__main__":
    main()
