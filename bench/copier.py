# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run as a program: copy one file by virmirror.

The arguments are the pace, the source, the destination and, if what the call
alone took is to be known, the file to write that to, as JSON, together with its
start and end (ns of the monotonic clock).
"""

from __future__ import annotations

import json
import pathlib
import resource
import sys
import time
from typing import Literal, cast

import virmirror


def used() -> tuple[float, float, float]:
    """Seconds, CPU seconds, peak memory in MiB."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            memory = int(line.split()[1]) / 1024
    return time.monotonic(), usage.ru_utime + usage.ru_stime, memory


def main() -> None:
    pace, source, target, *result = sys.argv[1:]
    before = used()
    # there is one file system, and what is measured is copying
    virmirror.copy(source, target, pace=cast(Literal["auto", "full"], pace), reflink=False)
    after = used()
    values = [b - a for a, b in zip(before, after, strict=True)]
    for path in result:
        report = dict(zip(("seconds", "cpu", "memory"), values, strict=True))
        report |= {"start": before[0] * 1e9, "end": after[0] * 1e9}
        pathlib.Path(path).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
