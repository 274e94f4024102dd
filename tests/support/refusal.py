# SPDX-License-Identifier: LGPL-2.1-or-later
"""A call that must be refused, precisely, and before anything is changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import libvirt
import pytest

import virmirror
from support.guest import Guest


@contextlib.contextmanager
def refused(
    guest: Guest,
    kind: type[libvirt.libvirtError],
    code: int,
    *words: object,
    disk: str | None = None,
) -> Iterator[pytest.ExceptionInfo[libvirt.libvirtError]]:
    """The block raises just this error, with each of the words in its text."""
    before = guest.state()
    with pytest.raises(libvirt.libvirtError) as caught:
        yield caught
    error = caught.value
    text = str(error)
    assert type(error) is kind, repr(error)
    assert error.get_error_code() == code, f"{error.get_error_code()}: {text}"
    for word in words:
        assert str(word) in text
    assert "\n" not in text
    if isinstance(error, virmirror.MirrorError):
        assert not error.partial and not error.unknown
        assert disk is None or error.disk == disk
    after = guest.state()
    changed = {what: (before[what], after[what]) for what in before if after[what] != before[what]}
    assert not changed, f"{text}\n{changed}"
