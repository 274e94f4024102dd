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
                    if _is_ended_daemon(pathlib.Path(f"/proc/{pid}/stat").read_text()):
                        os.waitpid(int(pid), os.WNOHANG)


def _is_ended_daemon(stat: str) -> bool:
    """Whether it is a QEMU that has ended, and that nobody here waits for.

    One that has become a daemon has a session of its own. The others are waited for by
    who has started them: libvirt, for one, starts QEMUs to probe what they can do.
    """
    state, _parent, _group, session = stat.rpartition(") ")[2].split()[:4]
    return "(qemu-system" in stat and state == "Z" and int(session) != os.getsid(0)
