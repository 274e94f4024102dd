# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ctrl-C and time limits, on a guest that writes: nothing is left half done."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

import pytest

import virmirror
from support.guest import Guest
from support.mirrors import slow_mirror

pytestmark = pytest.mark.qemu


class CtrlC:
    """Raises KeyboardInterrupt as Ctrl-C does, some seconds from now."""

    def __init__(self) -> None:
        self.due = 0.0
        self.wanted = False

    def come_after(self, seconds: float) -> None:
        self.wanted = True
        self.due = time.monotonic() + seconds
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def cancel(self) -> None:
        self.wanted = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            self.wanted = False
            raise KeyboardInterrupt


@pytest.fixture
def ctrl_c() -> Iterator[CtrlC]:
    ctrl_c = CtrlC()
    before = signal.signal(signal.SIGALRM, ctrl_c.handle)
    yield ctrl_c
    ctrl_c.cancel()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def create(guest: Guest, name: str) -> virmirror.MirrorSnapshot:
    spec = f"vda,mirror={guest.path2}/{name}.qcow2"
    return virmirror.MirrorSnapshot.create(guest.dom, name, spec)


def seconds_to_create(guest: Guest) -> float:
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    begin = time.monotonic()
    with create(guest, "measure"):
        return time.monotonic() - begin


# one that comes just after the return may lose the object
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_create_interrupted_at_any_time_is_undone_or_ended(guest: Guest, ctrl_c: CtrlC) -> None:
    whole = seconds_to_create(guest)
    undone = 0
    for n in range(16):
        virmirror.prepare_chain(guest.dom, "vda", guest.path2)
        before, name = guest.state(), f"round{n}"
        ctrl_c.come_after(whole * (n + 0.5) / 16)
        try:
            mirror = create(guest, name)
            ctrl_c.cancel()
        except KeyboardInterrupt as interrupt:
            # anything left to be told would be its context
            assert interrupt.__context__ is None
            if guest.has_journal():
                virmirror.adopt(guest.dom, name).abort()
        else:
            mirror.abort()
        if guest.chain() == before["chains"][0]:  # type: ignore[index]
            assert guest.state() == before
            undone += 1
        else:
            assert guest.chain()[0] == guest.path1 / f"old.{name}"
            assert guest.dom.snapshotListNames() == []
            assert not guest.has_journal()
            assert not (guest.path2 / f"{name}.qcow2").exists()
        guest.wait_for_writes(5)
    assert undone >= 5
    guest.check()


def test_wait_is_left_at_once_by_ctrl_c_and_its_mirror_aborted(guest: Guest, ctrl_c: CtrlC) -> None:
    delays = []
    with contextlib.suppress(KeyboardInterrupt), slow_mirror(guest) as mirror:
        for again in (True, True, False):
            ctrl_c.come_after(0.2)
            try:
                mirror.wait_ready(timeout=10)
            except KeyboardInterrupt as interrupt:
                delays.append(time.monotonic() - ctrl_c.due)
                assert interrupt.__context__ is None
                assert mirror.state == "mirroring"
                if not again:
                    raise
    # on a machine that is busy with other things one of them may be late
    assert min(delays) < 0.3
    assert mirror.state == "done"
    assert guest.chain()[0] == guest.path1 / "old.migrate"
    assert not guest.has_journal()
    guest.check()


def test_wait_that_takes_too_long_says_which_disk_it_waits_for(guest: Guest) -> None:
    with slow_mirror(guest) as mirror:
        late = []
        for seconds in (0.1, 0.5, 0.5):
            begin = time.monotonic()
            with pytest.raises(virmirror.MirrorTimeoutError, match="disk 'vda' is not ready yet"):
                mirror.wait_ready(timeout=seconds)
            elapsed = time.monotonic() - begin
            assert elapsed >= seconds
            late.append(elapsed - seconds)
        assert min(late) < 0.2
        # it was only the waiting that came to an end
        assert mirror.progress()[0].active
        assert guest.dom.snapshotListNames() == ["migrate"]
    guest.check()


def test_wait_without_any_time_returns_at_once(guest: Guest) -> None:
    with slow_mirror(guest) as mirror:
        begin = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            mirror.wait_ready(timeout=0)
        assert time.monotonic() - begin < 0.5
        assert isinstance(caught.value, virmirror.MirrorError)
