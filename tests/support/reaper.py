# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reap ended QEMUs at once, so that a guest ends in 0.3 s instead of 1.3 s."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import threading
from collections.abc import Iterator

PR_SET_CHILD_SUBREAPER = 36


@contextlib.contextmanager
def reaped_qemus() -> Iterator[None]:
    """While this context is open, QEMUs below this process are reaped by it.

    libvirt waits until a process is gone, and some init processes take a second
    to reap. QEMU leaves its parent, so it becomes ours as their nearest reaper.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    done = threading.Event()
    thread = threading.Thread(target=_reap, args=(done,))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _reap(done: threading.Event) -> None:
    while not done.wait(0.02):
        for children in pathlib.Path("/proc/self/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for pid in children.read_text().split():
                    # Only what nobody here has started: others wait for theirs.
                    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
                    if "(qemu-system" in stat and stat.rpartition(") ")[2].startswith("Z"):
                        os.waitpid(int(pid), os.WNOHANG)
