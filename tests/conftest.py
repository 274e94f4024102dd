# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests on a real QEMU share: one host, and guests that write."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Callable, Iterator

import pytest

from support.guest import Guest
from support.reaper import reaped_qemus
from virmirror import embed

# A shell that starts the tests in the background has Ctrl-C ignored for them, and
# for the commands that they start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def guards_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Domains of tests have the same UUIDs in all test runs on this machine."""
    os.environ["VIRMIRROR_LOCK_PREFIX"] = str(os.getpid())
    os.environ["VIRMIRROR_STATE_DIR"] = str(tmp_path_factory.mktemp("state", numbered=True))


@pytest.fixture(scope="session")
def qemus_reaped() -> Iterator[None]:
    with reaped_qemus():
        yield


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest, qemus_reaped: None) -> Iterator[embed.Host]:
    """The one QEMU host of this process; QEMU's capabilities are probed once."""
    cache = getattr(request.config, "cache", None)  # pytest can do without it
    folder = None if cache is None else cache.mkdir("qemu-capabilities")
    with embed.Host(capabilities_cache=folder) as host:
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
