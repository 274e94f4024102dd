# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run as a program: wait for mirrors until a deadline, and say what it cost.

The arguments are the daemon's URI, the way to wait, the seconds, the log of the
calls of libvirt, and the names of the guests. The library that logs is
preloaded. Printed is a JSON object with the CPU seconds, the seconds, and the
calls a second once all have begun to wait.
"""

from __future__ import annotations

import ctypes
import json
import pathlib
import sys
import threading
import time
from collections.abc import Callable

import libvirt

import virmirror

OURS = "virmirror"

# The part of the time in which waiting begins, or ends.
SETTLED = 0.2

Doms = list[libvirt.virDomain]


def wait_by_events(doms: Doms, seconds: float, begin: Callable[[], None]) -> None:
    """A thread for each mirror, in virmirror's own waiting."""
    mirrors = [virmirror.adopt(dom) for dom in doms]
    failed: list[BaseException] = []

    def wait(mirror: virmirror.MirrorSnapshot) -> None:
        try:
            mirror.wait_ready(timeout=seconds)
            failed.append(AssertionError(f"the mirror of {mirror.domain.name()} was ready"))
        except virmirror.MirrorTimeoutError:
            pass  # as it should be: none gets ready
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=wait, args=(mirror,)) for mirror in mirrors]
    begin()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def wait_by_polls(interval: float) -> Callable[[Doms, float, Callable[[], None]], None]:
    """One thread that asks for each mirror in turn, and sleeps."""

    def wait(doms: Doms, seconds: float, begin: Callable[[], None]) -> None:
        begin()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for dom in doms:
                job = dom.blockJobInfo("vda")
                if not job or job["cur"] >= job["end"]:
                    raise AssertionError(f"the mirror of {dom.name()} did not last: {job}")
            time.sleep(interval)

    return wait


WAYS = {
    OURS: wait_by_events,
    "libvirt-python, 100 ms polls": wait_by_polls(0.1),
    "libvirt-python, 1 s polls": wait_by_polls(1.0),
}


def watch(log: str, seconds: float, rates: list[float]) -> None:
    """Count the calls between the beginning of the waiting and its end."""
    counts = []
    for part in (SETTLED, 1 - 2 * SETTLED):
        time.sleep(part * seconds)
        counts.append(pathlib.Path(log).read_text().count("\n"))
    rates.append((counts[1] - counts[0]) / ((1 - 2 * SETTLED) * seconds))


def main() -> None:
    uri, way, seconds, log, *names = sys.argv[1:]
    virmirror.start_event_loop()
    conn = libvirt.open(uri)
    doms = [conn.lookupByName(name) for name in names]
    start: list[float] = []
    rates: list[float] = []

    def begin() -> None:
        ctypes.CDLL(None).killshim_arm(log.encode(), 0, 0, 0, ctypes.c_long(0))
        threading.Thread(target=watch, args=(log, float(seconds), rates), daemon=True).start()
        start.extend((time.process_time(), time.monotonic()))

    WAYS[way](doms, float(seconds), begin)
    cpu, took = time.process_time() - start[0], time.monotonic() - start[1]
    print(json.dumps({"cpu": cpu, "seconds": took, "rate": rates[0]}))


if __name__ == "__main__":
    main()
