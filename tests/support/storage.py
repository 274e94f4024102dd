# SPDX-License-Identifier: LGPL-2.1-or-later
"""Storage that misbehaves on demand: a file served by qemu-storage-daemon."""

from __future__ import annotations

import pathlib
import subprocess
import time
from types import TracebackType


class SlowFile:
    """While this context is open, ``path`` takes so many bytes a second only.

    The daemon puts a FUSE mount over the file, so that it keeps its name. It
    serves writes in its main loop: nothing else can be asked of it meanwhile.
    """

    def __init__(self, path: pathlib.Path, bytes_per_second: int) -> None:
        self.path = path
        self._daemon = subprocess.Popen(
            [
                "qemu-storage-daemon",
                *("--object", f"throttle-group,id=slow,x-bps-write={bytes_per_second}"),
                *("--blockdev", f"driver=file,node-name=file,filename={path}"),
                *("--blockdev", "driver=throttle,node-name=node,throttle-group=slow,file=file"),
                "--export",
                f"type=fuse,id=export,node-name=node,mountpoint={path},writable=on,growable=on,"
                "allow-other=off",
            ]
        )
        end = time.monotonic() + 10
        while f" {path} fuse" not in pathlib.Path("/proc/self/mounts").read_text():
            assert self._daemon.poll() is None and time.monotonic() < end
            time.sleep(0.01)

    def close(self) -> None:
        """Unmount the file; what is still to be written fails."""
        self._daemon.kill()
        self._daemon.wait()
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    def __enter__(self) -> SlowFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
