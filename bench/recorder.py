# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run as a program: migrate one disk by virmirror, and log the calls of libvirt.

The arguments are the daemon's URI, the guest's name, the diskspec, the base to
pull from, and the log. The library that logs is preloaded.
"""

from __future__ import annotations

import ctypes
import pathlib
import shutil
import sys

import libvirt

import virmirror


def main() -> None:
    uri, name, spec, base, log = sys.argv[1:]
    virmirror.start_event_loop()
    dom = libvirt.open(uri).lookupByName(name)
    ctypes.CDLL(None).killshim_arm(log.encode(), 0, 0, 0, ctypes.c_long(0))
    mirror = virmirror.MirrorSnapshot.create(dom, "migrate", spec, reuse_external=True)
    mirror.wait_ready(timeout=60)
    (disk,) = mirror.disks
    path1, path2 = pathlib.Path(disk.overlay).parent, pathlib.Path(disk.mirror).parent
    for layer in ("common", "old.qcow2"):
        shutil.copyfile(path1 / layer, path2 / layer)
    mirror.pivot()
    virmirror.block_pull(dom, "vda", base=base)


if __name__ == "__main__":
    main()
