# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests on a real QEMU share: one host, and guests that write."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

import pytest

from support.guest import Guest
from virmirror import embed


@pytest.fixture(scope="session")
def host() -> Iterator[embed.Host]:
    """The one QEMU host of this process; QEMU's capabilities are probed once."""
    with embed.Host() as host:
        yield host


@pytest.fixture
def make_guest(host: embed.Host, tmp_path: pathlib.Path) -> Iterator[Callable[..., Guest]]:
    """Start guests on chains in ``tmp_path/path1``; they end with the test."""
    guests: list[Guest] = []

    def make(**options: object) -> Guest:
        guests.append(Guest(host, tmp_path, **options))  # type: ignore[arg-type]
        return guests[-1]

    yield make
    for guest in guests:
        guest.end()


@pytest.fixture
def guest(make_guest: Callable[..., Guest]) -> Guest:
    """A guest that writes to vda, on the chain common <- old.qcow2."""
    return make_guest()
