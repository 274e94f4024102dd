# SPDX-License-Identifier: LGPL-2.1-or-later
"""The time that somebody has given, over many calls."""

from __future__ import annotations

import time

from . import _core

__all__ = ["Deadline"]


class Deadline:
    """So many seconds from now on, or any time (None)."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self, doing: str) -> float | None:
        """The seconds that are left for something, or None: any time.

        Raises MirrorTimeoutError, which tells what was being done, when there are none.
        """
        if self._end is None:
            return None
        seconds = self._end - time.monotonic()
        if seconds > 0:
            return seconds
        raise _core._make_error(
            "timeout", f"the {self._timeout:g} s that were given have run out while {doing}"
        )

    def lift(self) -> None:
        """From now on any time will do."""
        self._end = None
