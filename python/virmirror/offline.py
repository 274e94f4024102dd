# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is done to images by qemu-img, while no QEMU has them open."""

from __future__ import annotations

import os
import subprocess

from . import _core

__all__ = ["commit"]


def commit(overlay: str, below: str) -> None:
    """Commit a qcow2 overlay into the image below it, which its header names.

    The overlay keeps its data, so that this can be broken off and done again: a guest that
    is started on it finds what it wrote. qemu-img takes QEMU's locks, so it fails where a
    QEMU has one of them open. Raises BusyError, ImageError, NotSupportedError, StorageError.
    """
    command = ["qemu-img", "commit", "-q", "-d", "-f", "qcow2", overlay]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise _core._make_error("not-supported", "there is no qemu-img: install it") from error
    if result.returncode != 0:
        told = " ".join(result.stderr.split()) or f"it ended with {result.returncode}"
        reason = "busy" if "lock" in told else "image"
        raise _core._make_error(reason, f"cannot commit '{overlay}' into '{below}': {told}")
    fd = os.open(below, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
