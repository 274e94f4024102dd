# SPDX-License-Identifier: LGPL-2.1-or-later
"""Storage that misbehaves on demand."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import IO, Self

from support.patience import PATIENCE

# QEMU locks byte 100 + n for a permission that it uses, and 200 + n for one that
# it lets nobody else use (block/file-posix.c); these are the n.
READ, WRITE = 0, 1

_NBD_SIZE = 64 * 1024 * 1024


class FuseFile:
    """While this context is open, ``path`` behaves as the block driver ``driver`` says.

    qemu-storage-daemon puts a FUSE mount over the file, so that it keeps its
    name; ``driver`` is its node, which reads and writes the node ``file``. What
    is under way at the end fails: nobody should use the file any more.
    """

    def __init__(self, path: pathlib.Path, driver: dict[str, object], *options: str) -> None:
        self.path = path
        node = {"node-name": "node", **driver}
        self._daemon = subprocess.Popen(
            [
                *("qemu-storage-daemon", *options),
                *("--blockdev", f"driver=file,node-name=file,filename={path}"),
                *("--blockdev", json.dumps(node)),
                "--export",
                f"type=fuse,id=export,node-name=node,mountpoint={path},writable=on,growable=on,"
                "allow-other=off",
            ],
            stdin=subprocess.DEVNULL,
        )
        end = time.monotonic() + PATIENCE
        while not self._is_mounted():
            assert self._daemon.poll() is None and time.monotonic() < end
            time.sleep(0.01)

    def die(self) -> None:
        """From now on all fails."""
        self._daemon.kill()
        self._daemon.wait()

    def close(self) -> None:
        # It may be busy with a write for long; the mount goes with it or by hand.
        self.die()
        if self._is_mounted():
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _is_mounted(self) -> bool:
        mounts = pathlib.Path("/proc/self/mounts").read_text()
        return f" {self.path} fuse" in mounts


class SlowFile(FuseFile):
    """While this context is open, writing to ``path`` is as slow as said."""

    def __init__(self, path: pathlib.Path, bytes_per_second: int) -> None:
        super().__init__(
            path,
            {"driver": "throttle", "throttle-group": "slow", "file": "file"},
            *("--object", f"throttle-group,id=slow,x-bps-write={bytes_per_second}"),
        )


class BrokenFile(FuseFile):
    """While this context is open, each operation of a kind on ``path`` fails.

    ``kind`` is blkdebug's: write, flush, ...
    """

    def __init__(self, path: pathlib.Path, kind: str) -> None:
        rule = {"event": "none", "iotype": kind, "errno": errno.EIO}
        super().__init__(path, {"driver": "blkdebug", "image": "file", "inject-error": [rule]})


class NbdFile(FuseFile):
    """While this context is open, ``path`` is reached through an NBD server only."""

    def __init__(self, path: pathlib.Path) -> None:
        os.truncate(path, _NBD_SIZE)  # what is served does not grow
        address = str(path.with_name("nbd.socket"))
        self._server = subprocess.Popen(
            ["qemu-nbd", "-t", "-f", "raw", "-k", address, str(path)], stdin=subprocess.DEVNULL
        )
        end = time.monotonic() + PATIENCE
        while not os.path.exists(address):
            assert self._server.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        super().__init__(path, {"driver": "nbd", "server": {"type": "unix", "path": address}})

    def hang(self) -> None:
        """From now on nothing comes back, until :meth:`go_on`."""
        self._server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._server.send_signal(signal.SIGCONT)

    def die(self) -> None:
        self._server.kill()
        self._server.wait()

    def close(self) -> None:
        self.die()
        super().die()
        super().close()


def fill_up(folder: pathlib.Path) -> None:
    """Leave no byte free in the file system of a folder."""
    # without a buffer, which could not be written out when the file is closed
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(64 * 1024))
        except OSError as error:
            assert error.errno == errno.ENOSPC


@contextlib.contextmanager
def tmpfs(folder: pathlib.Path, size: int) -> Iterator[None]:
    """The folder is a file system of its own, of ``size`` bytes."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def ramfs(folder: pathlib.Path) -> Iterator[None]:
    """The folder is a file system that keeps no extended attributes."""
    subprocess.run(["mount", "-t", "ramfs", "ramfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def read_only(folder: pathlib.Path) -> Iterator[None]:
    """The folder can be read only, by root, too; what is open for writing stays so."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def loop_device(path: pathlib.Path, *, partitions: bool = False) -> Iterator[pathlib.Path]:
    """A block device whose content is that of the file."""
    command = ["losetup", "--find", "--show", *(["--partscan"] if partitions else []), path]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    device = pathlib.Path(found.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextlib.contextmanager
def mounted(image: pathlib.Path, folder: pathlib.Path) -> Iterator[None]:
    """The folder is the file system that is in the image."""
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def xfs(image: pathlib.Path, folder: pathlib.Path) -> Iterator[None]:
    """The folder is an XFS, in which files can share their data, in a new image."""
    with image.open("wb") as file:
        file.truncate(320 * 1024 * 1024)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    with mounted(image, folder):
        yield


def lock_copy(file: IO[bytes], how: int) -> None:
    """Lock the file like a copy that is relied on (``how``: F_RDLCK, F_UNLCK)."""
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", how, os.SEEK_SET, 1 << 62, 1, 0))


def is_written_to(path: pathlib.Path) -> bool:
    """Whether a QEMU, or one of its tools, has the image open for writing."""
    with path.open("rb") as file:
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 100 + WRITE, 1, 0)
        answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked)
    return struct.unpack("hhqqi", answer)[0] != fcntl.F_UNLCK


@contextlib.contextmanager
def denied(path: pathlib.Path, permission: int) -> Iterator[None]:
    """Let no QEMU open the image in order to READ, or WRITE, it."""
    with path.open("rb") as file:
        lock = struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, 200 + permission, 1, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        yield


@contextlib.contextmanager
def _once(
    condition: Callable[[], bool],
    fault: Callable[[], AbstractContextManager[None]],
    over: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Inject the fault, once, as soon as the condition holds.

    It lasts to the end of the context, or until it is ``over``.
    """
    ended = threading.Event()

    def watch() -> None:
        while not condition():
            if ended.wait(0.0005):
                return
        with fault():
            while not (over() or ended.wait(0.0005)):
                pass

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def denied_once_written(
    path: pathlib.Path, permission: int, awaited: pathlib.Path
) -> AbstractContextManager[None]:
    """The same while a QEMU writes to the image ``awaited``."""

    def is_awaited() -> bool:
        try:
            return is_written_to(awaited)
        except FileNotFoundError:
            return False

    # whoever creates them takes locks, too, but the awaited one comes first
    return _once(
        lambda: path.exists() and is_awaited(),
        lambda: denied(path, permission),
        lambda: not is_awaited(),
    )


@contextlib.contextmanager
def missing(path: pathlib.Path) -> Iterator[None]:
    """The file is away for a while."""
    away = path.with_name(path.name + ".away")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


def missing_once_released(
    path: pathlib.Path, awaited: pathlib.Path
) -> AbstractContextManager[None]:
    """The same from the moment on that QEMU has let go of the image ``awaited``."""
    return _once(lambda: not is_written_to(awaited), lambda: missing(path))
