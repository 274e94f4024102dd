# SPDX-License-Identifier: LGPL-2.1-or-later
"""The exceptions of virmirror.

All are `libvirt.libvirtError`, with libvirt's codes, domains and texts as
libvirt gave them, so that ``except libvirt.libvirtError`` and
``get_error_code()`` go on to work. The class says what can be done about it.
"""

import libvirt

__all__ = [
    "BusyError",
    "CancelledError",
    "DivergedError",
    "ExistsError",
    "ImageError",
    "JobFailedError",
    "JournalError",
    "MirrorError",
    "MirrorTimeoutError",
    "NotFoundError",
    "NotReadyError",
    "NotSupportedError",
    "SpecError",
    "StateError",
    "StorageError",
]

# What libvirt-python keeps of a virError: code, domain, message, level, str1,
# str2, str3, int1, int2.
_VirError = tuple[
    int,
    int,
    str | None,
    int,
    str | None,
    str | None,
    str | None,
    int,
    int,
]


class MirrorError(libvirt.libvirtError):
    """Something failed; as itself: libvirt said no, and its code says why.

    *disk* is the target name of the disk concerned ('vda') and *phase* the
    step that failed ('create', 'pivot', ...), or None. *partial* is true if
    something was changed and stays changed, *unknown* if a call has not come
    back and may still take effect. *reason* is the engine's name for the kind
    of failure ('not-ready').
    """

    def __init__(
        self,
        message: str,
        *,
        err: _VirError | None = None,
        disk: str | None = None,
        phase: str | None = None,
        partial: bool = False,
        unknown: bool = False,
        reason: str | None = None,
    ) -> None:
        # libvirtError.__init__() would take the last error of this thread,
        # which is that of some other call
        Exception.__init__(self, message)
        self.err = err
        self.disk = disk
        self.phase = phase
        self.partial = partial
        self.unknown = unknown
        self.reason = reason


class SpecError(MirrorError, ValueError):
    """What was asked for makes no sense: correct it."""


class StateError(MirrorError):
    """Not possible now; the text says what is."""


class NotFoundError(MirrorError, LookupError):
    """No such disk, snapshot, file or record."""


class ExistsError(MirrorError):
    """A file or record is there already."""


class BusyError(MirrorError):
    """Somebody is at it: try again later."""


class NotReadyError(MirrorError):
    """A mirror is not ready yet: wait for it."""


class NotSupportedError(MirrorError):
    """libvirt, QEMU or virmirror cannot do this."""


class MirrorTimeoutError(MirrorError, TimeoutError):
    """The time given ran out."""


class CancelledError(MirrorError):
    """Interrupted, as by Ctrl-C; the context of the KeyboardInterrupt."""


class JobFailedError(MirrorError):
    """The block job failed."""


class ImageError(MirrorError):
    """An image or its header is not what it must be."""


class StorageError(MirrorError):
    """A system call on a file failed."""


class JournalError(MirrorError):
    """The record of a mirrored snapshot is unusable."""


class DivergedError(MirrorError):
    """What runs is not what was meant; the text says what was found."""
