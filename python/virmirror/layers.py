# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copying the frozen layers of a chain: each one once, whoever needs it.

A copy has its place by the plan, and its content is what counts: a file that is
there is used if it is the same as the source, and is an error if not. While one
process copies a layer, the others that need it wait; who uses a copy holds a
shared lock on it until its migration is over, so that nobody who gives up
takes it away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import random
import stat
import struct
import time
from collections.abc import Callable
from typing import TypeAlias

from . import _core
from .deadline import Deadline
from .errors import BusyError, DivergedError, ImageError, StorageError
from .jobs import Created, Job, LayerReport, sync_folder
from .planning import LayerPlan, Plan

__all__ = ["Store"]

# What is locked of a copy; ext/core/share.h says why.
_LOCK_BYTE = 1 << 62

# Seconds without any change to a copy that another process is filling. It may have the
# checksums of a large one left to compare, which changes nothing.
_STALLED = 3600.0

#: Is told the path of the copy, and the bytes done and to be done.
OnCopy: TypeAlias = Callable[[str, int, int], None]


class Store:
    """The copies of one migration, at their places on the new storage."""

    def __init__(
        self, plan: Plan, job: Job, on_copy: OnCopy, deadline: Deadline | None = None
    ) -> None:
        self._plan = plan
        self._job = job
        self._on_copy = on_copy
        self._deadline = deadline or Deadline(None)
        self._held: dict[str, int] = {}  # path -> descriptor with the shared lock

    def close(self) -> None:
        """Let go of the copies."""
        for fd in self._held.values():
            _let_go(fd)
        self._held.clear()

    def make_skeleton(self, layer: LayerPlan) -> None:
        """Make the image of ``layer``, without its data: a top layer's.

        libvirt wants to find it when the mirror starts, and it is filled in place
        after that. Raises ExistsError, ImageError, StorageError.
        """
        self.sweep(layer.destination)
        if self._job.owns(layer.destination):
            return
        size = layer.size if layer.format == "raw" else layer.virtual_size

        def make(path: str) -> None:
            _core._create_image(
                path,
                layer.format,
                size,
                layer.backing_name,
                layer.backing_format,
                like=layer.source,
            )

        self._make(layer.destination, make)

    def fill(self, layer: LayerPlan) -> None:
        """Have the copy of ``layer`` complete, by whatever takes the least.

        Raises DivergedError (the source has changed), ExistsError (another file is
        there), and what `copy` does.
        """
        if layer.destination in self._held:
            return
        self.sweep(layer.destination)
        if _is_in_place(layer):
            self._use_in_place(layer)
            return

        def make(path: str) -> None:
            _core._create_image(path, "raw", 0, like=layer.source)

        while True:
            self.check_source(layer)
            if not os.path.lexists(layer.destination):
                self._make(layer.destination, make, may_be_there=True)
            try:
                fd = _open(layer.destination)
            except FileNotFoundError:
                continue  # somebody has removed it just now
            try:
                self._wait_for_others(fd, layer.destination)
                done = _is_at(fd, layer.destination) and self._is_filled(layer, fd)
            except BlockingIOError:
                _let_go(fd)
                self._deadline.left(f"others were at '{layer.destination}'")
                time.sleep(random.uniform(0.01, 0.1))
                continue
            except BaseException:
                _let_go(fd)
                raise
            if done:
                self._held[layer.destination] = fd
                return
            _let_go(fd)
            if os.path.lexists(layer.destination):
                try:
                    self._copy(layer)
                except BusyError:
                    # who has completed it just now may run a guest on it already
                    if _core._copy_state(layer.source, layer.destination) != "fits":
                        raise

    def _wait_for_others(self, fd: int, path: str) -> None:
        """Get the shared lock on a copy, when the process that is filling it is done.

        Raises MirrorTimeoutError, and BusyError where that process has not written anything
        for long.
        """
        last, since = None, time.monotonic()
        while True:
            with contextlib.suppress(BlockingIOError):
                _lock(fd, fcntl.F_RDLCK)
                return
            self._deadline.left(f"another process was filling '{path}'")
            status = os.fstat(fd)
            now = (status.st_mtime_ns, status.st_blocks)
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > _STALLED:
                raise _core._make_error(
                    "busy",
                    f"another process fills '{path}', and has not written to it for "
                    f"{_STALLED:g} s: end it, and run the plan again",
                )
            time.sleep(random.uniform(0.02, 0.1))

    def renew(self, layer: LayerPlan) -> None:
        """Have the copy complete for what is frozen now.

        A layer that was copied while the guest ran on top of it may have been written
        to since; it is copied again then. Raises BusyError or ExistsError where others
        rely on that copy, and what `fill` does.
        """
        fd = self._held.get(layer.destination)
        if fd is None:
            self.fill(layer)
        elif not _is_in_place(layer) and not self._is_filled(layer, fd):
            try:
                _lock(fd, fcntl.F_WRLCK)
            except BlockingIOError as error:
                raise _core._make_error(
                    "busy",
                    f"'{layer.source}' has changed, and others rely on its copy "
                    f"'{layer.destination}'",
                ) from error
            _let_go(self._held.pop(layer.destination))
            self.fill(layer)

    def _use_in_place(self, layer: LayerPlan) -> None:
        """Use a layer that lies on the new storage already: nothing is to be copied."""
        self.check_source(layer)
        fd = _open(layer.destination)
        try:
            self._wait_for_others(fd, layer.destination)
            self._mark_shared(fd, layer)
        except BaseException:
            _let_go(fd)
            raise
        self._held[layer.destination] = fd
        self._note(layer, 0, 0.0, None, "none")

    def sweep(self, path: str) -> None:
        """Remove the temporary name of a copy that a run which died has left."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary(path))

    def drop(self, created: Created) -> bool:
        """Remove a file that this migration has made; whether it is gone.

        It stays where another migration uses it, or has used it, a QEMU has it open,
        or it is another file by now. Raises StorageError.
        """
        fd = self._held.pop(created.path, None)
        try:
            if fd is None:
                fd = _open(created.path)
            _lock(fd, fcntl.F_WRLCK)
            if self._is_shared(fd, created.path):
                return False
            _core._remove_file(created.path, created.dev, created.ino, created.born)
        except FileNotFoundError:
            return True
        except (BlockingIOError, BusyError, DivergedError, ImageError):
            return False
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EBADF):
                raise
            return False  # a link by now, or one that we may only read
        finally:
            if fd is not None:
                _let_go(fd)
        return True

    def _make(self, path: str, make: Callable[[str], None], *, may_be_there: bool = False) -> None:
        """Have a new file at ``path`` that is known to be ours from its first moment.

        It is made under a name that nobody else uses, noted down, and only then
        given its name. Raises ExistsError, unless another one may be there.
        """
        temporary = self._temporary(path)
        others = tuple(one for one in self._job.state.created if one.path != path)
        make(temporary)
        _core._mark_copy(temporary)
        made = dataclasses.replace(Created.at(temporary), path=path)
        self._job.save(created=(*others, made))
        try:
            os.link(temporary, path, follow_symlinks=False)
            sync_folder(os.path.dirname(path))
        except FileExistsError as error:
            self._job.save(created=others)
            if not may_be_there:
                raise _core._make_error(
                    "exists",
                    f"'{path}' is there since the migration was planned: remove it, or plan anew",
                ) from error
        finally:
            os.unlink(temporary)

    def _temporary(self, path: str) -> str:
        return f"{path}.{self._plan.id}"

    def _is_filled(self, layer: LayerPlan, fd: int) -> bool:
        """Whether the file that is there is the copy, or (False) is to be made it.

        Raises ExistsError where it is neither, and BlockingIOError where it is to be
        changed while others look at it.
        """
        state = _core._copy_state(layer.source, layer.destination)
        if state == "fits" and self._wants_rebase(layer):
            _lock(fd, fcntl.F_WRLCK)
            state = _core._copy_state(layer.source, layer.destination)
            if state == "fits":
                self._rebase(layer)
            _lock(fd, fcntl.F_RDLCK)
        if state == "fits":
            self._mark_shared(fd, layer)
            self._note(layer, 0, 0.0, None, "none")
            return True
        status = os.stat(layer.destination)
        if state == "incomplete" or status.st_size == 0:
            return False
        if self._job.owns(layer.destination) and not self._is_shared(fd, layer.destination):
            return False  # an earlier run's, of what the source was then
        if status.st_size == layer.size and layer.rebase and self._is_rebased(layer, fd):
            self._mark_shared(fd, layer)
            self._note(layer, 0, 0.0, None, "none")
            return True
        # made by other means, or changed since: its content decides
        if status.st_size == layer.size and not layer.rebase:
            checksum = _core.checksum(layer.source)
            if _core.checksum(layer.destination) == checksum:
                with contextlib.suppress(StorageError):  # it only saves reading it again
                    _core._mark_copy(layer.destination, layer.source, checksum=checksum)
                self._mark_shared(fd, layer)
                self._note(layer, 0, 0.0, checksum, "none")
                return True
        raise _core._make_error(
            "exists",
            f"'{layer.destination}' is there already, and is not the same as "
            f"'{layer.source}': remove it, or give another folder",
        )

    def _mark_shared(self, fd: int, layer: LayerPlan) -> None:
        """Note on a copy that not only the migration that made it relies on it."""
        if not self._job.owns(layer.destination):
            _core._note_user(fd, layer.destination, self._plan.uuid, self._plan.name)

    def _is_shared(self, fd: int, path: str) -> bool:
        """Whether others rely on a file; one that is not ours by origin, a source, was
        that of earlier moves of the domain, too."""
        name = self._plan.name if self._job.owns(path) else None
        return _core._has_other_users(fd, path, self._plan.uuid, name)

    def _copy(self, layer: LayerPlan) -> None:
        plan = self._plan
        report = _core.copy(
            layer.source,
            layer.destination,
            pace=plan.pace,
            bandwidth=plan.bandwidth,
            reflink=plan.reflink,
            verify=plan.verify,
            overwrite=True,
            timeout=self._deadline.left(f"'{layer.destination}' was to be copied"),
            on_progress=lambda now: self._on_copy(layer.destination, now.current, now.end),
        )
        if report.method != "none":
            self._note(layer, report.copied, report.seconds, report.checksum, report.method)

    def _wants_rebase(self, layer: LayerPlan) -> bool:
        """Whether the copy's header names its backing file as it was named before."""
        wanted = (layer.backing_name, layer.backing_format)
        return layer.rebase and _core._image_backing(layer.destination, layer.format) != wanted

    def _is_rebased(self, layer: LayerPlan, fd: int) -> bool:
        """Whether an unmarked file is the copy but for its backing name, which is then
        put right: its maker may have died between the two steps."""
        if not _core._is_rebased_copy(layer.source, layer.destination):
            return False
        if self._wants_rebase(layer):
            _lock(fd, fcntl.F_WRLCK)
            self._rebase(layer)
            _lock(fd, fcntl.F_RDLCK)
        return True

    def _rebase(self, layer: LayerPlan) -> None:
        """Have the copy's header name its backing file as it is to be named here."""
        assert layer.backing_name is not None and layer.backing_format is not None
        _core._rebase_image(layer.destination, layer.backing_name, layer.backing_format)
        _core._mark_copy(layer.destination, layer.source)

    def _note(
        self, layer: LayerPlan, copied: int, seconds: float, checksum: str | None, method: str
    ) -> None:
        """What became of a layer: once, as its copy is looked at again after it."""
        noted = self._job.state.layers
        if all(one.destination != layer.destination for one in noted):
            one = LayerReport(layer.source, layer.destination, copied, seconds, checksum, method)
            self._job.note(layers=(*noted, one))

    def check_source(self, layer: LayerPlan, *, is_frozen: bool = False) -> None:
        """That the layer is the file that was planned, and (``is_frozen``) unchanged.

        Raises DivergedError, NotFoundError, ImageError, StorageError.
        """
        dev, ino, born, size, mtime_ns = _core._file_stamp(layer.source)
        if (dev, ino) != (layer.dev, layer.ino) or (born and layer.born and born != layer.born):
            what = "is another file than when"
        elif is_frozen and (size, mtime_ns) != (layer.size, layer.mtime_ns):
            what = "was written to since"
        else:
            return
        raise _core._make_error(
            "diverged",
            f"'{layer.source}' {what} the migration was planned: plan it anew",
        )


def _is_in_place(layer: LayerPlan) -> bool:
    """Whether the layer lies where its copy would go."""
    try:
        return os.path.samefile(layer.source, layer.destination)
    except FileNotFoundError:
        return False


def _open(path: str) -> int:
    """A descriptor for the lock; of a regular file only, and without a wait.

    An exclusive lock needs one that could write.
    """
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise _core._make_error("image", f"'{path}' is no regular file")
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, os.O_RDWR | flags)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        fd = os.open(path, os.O_RDONLY | flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _core._make_error("image", f"'{path}' is no regular file")
    return fd


def _lock(fd: int, how: int) -> None:
    """Lock a copy, where the file system has locks. Raises BlockingIOError."""
    asked = struct.pack("hhqqi", how, os.SEEK_SET, _LOCK_BYTE, 1, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, asked)
    except PermissionError as error:
        raise BlockingIOError(*error.args) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise


def _let_go(fd: int) -> None:
    """Close a copy, and give the lock back: a child that was forked meanwhile has the
    descriptor, too."""
    with contextlib.suppress(OSError):
        _lock(fd, fcntl.F_UNLCK)
    os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    """Whether the open file still has its name: somebody may have removed it."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
