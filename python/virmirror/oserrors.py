# SPDX-License-Identifier: LGPL-2.1-or-later
"""Errors of the operating system as errors of this package, in one place."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator

from . import _core
from .errors import MirrorError

__all__ = ["os_errors"]


@contextlib.contextmanager
def os_errors(
    what: str | None = None, *, is_others: Callable[[OSError], bool] = lambda error: False
) -> Iterator[None]:
    """Raise NotFoundError or StorageError, with the path, for an OSError.

    ``what`` says what could not be done; an error that ``is_others`` knows goes on as it is,
    such as one of the caller's own function. Notes go along.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, MirrorError) or is_others(error):
            raise  # MirrorTimeoutError is one, too
        raise _translate(error, what) from error


def _translate(error: OSError, what: str | None) -> MirrorError:
    paths = [f"'{path}'" for path in (error.filename, error.filename2) if path is not None]
    told = [*([what] if what else []), *paths, error.strerror or str(error)]
    reason = "not-found" if error.errno == errno.ENOENT else "io"
    translated: MirrorError = _core._make_error(reason, ": ".join(told))
    for note in getattr(error, "__notes__", ()):
        translated.add_note(note)
    return translated
