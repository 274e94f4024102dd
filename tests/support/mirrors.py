# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mirrored snapshots as the seed makes them: from two files that are there."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import virmirror
from support.guest import Guest
from support.storage import SlowFile

BYTES_PER_SECOND = 192 * 1024  # a guest writes more, however slow it is


def create_empty(
    path: pathlib.Path,
    backing: str | None = "old.qcow2",
    *,
    backing_format: str = "qcow2",
    size: str = "64M",
    options: str = "compat=1.1",
) -> None:
    """Make a qcow2 image anew, whatever its backing file is."""
    path.unlink(missing_ok=True)
    below = ["-u", "-b", backing, "-F", backing_format] if backing else []
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, *below, str(path), size]
    subprocess.run(command, check=True)


def seed_spec(guest: Guest) -> str:
    """The diskspec of the seed for vda, with its files made."""
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    overlay, mirror = guest.path1 / "old.migrate", guest.path2 / "new.qcow2"
    create_empty(overlay, size=str(guest.size))
    create_empty(mirror, size=str(guest.size))
    return f"vda,file={overlay},mirror={mirror}"


def copy_in_place(guest: Guest) -> None:
    """Fill the chain that `virmirror.prepare_chain` has made."""
    for path in guest.path2.iterdir():
        if (guest.path1 / path.name).exists():
            shutil.copyfile(guest.path1 / path.name, path)


@contextlib.contextmanager
def slow_mirror(guest: Guest) -> Iterator[virmirror.MirrorSnapshot]:
    """A mirror that is never ready as long as its guest writes; aborted at the end."""
    spec = seed_spec(guest)
    with (
        SlowFile(guest.path2 / "new.qcow2", BYTES_PER_SECOND),
        virmirror.MirrorSnapshot.create(guest.dom, "migrate", spec, reuse_external=True) as mirror,
    ):
        yield mirror
