# SPDX-License-Identifier: LGPL-2.1-or-later
"""libvirtd killed at any moment: what recover says is where the data is.

VIRMIRROR_FULL=1 in the environment kills it far more often in the pivot.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import libvirt
import pytest

import virmirror
from support.daemon import Daemon
from support.guest import Guest
from support.storage import is_written_to
from virmirror import testguest

pytestmark = pytest.mark.qemu

FULL = os.environ.get("VIRMIRROR_FULL") == "1"

# When, in ms after the begin of a pivot that takes about 60, the daemon is killed.
DELAYS = range(0, 88, 4) if FULL else (12, 24, 36, 48)


@pytest.fixture(scope="module")
def daemon(qemus_reaped: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


@pytest.fixture
def guest(daemon: Daemon, tmp_path: pathlib.Path) -> Iterator[Guest]:
    daemon.restart()
    guest = Guest(daemon, tmp_path)
    yield guest
    name = guest.dom.name()
    guest.dom = daemon.restart().lookupByName(name)
    if name in daemon.qemu_pids():
        daemon.end_qemu(name)
    guest.end()


def create(guest: Guest) -> virmirror.MirrorSnapshot:
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    return virmirror.MirrorSnapshot.create(
        guest.dom, "migrate", f"vda,mirror={guest.path2}/new.qcow2"
    )


def copy_in_place(guest: Guest) -> None:
    for path in guest.path2.iterdir():
        if (guest.path1 / path.name).exists():
            shutil.copyfile(guest.path1 / path.name, path)


def start_mirror(guest: Guest) -> virmirror.MirrorSnapshot:
    """A mirror that is ready, on a chain that is copied."""
    mirror = create(guest)
    copy_in_place(guest)
    guest.wait_for_writes(20)
    mirror.wait_ready(timeout=30)
    return mirror


@contextlib.contextmanager
def killed_after(daemon: Daemon, seconds: float) -> Iterator[None]:
    """The daemon is killed so long after the begin of the block, if not later."""

    def kill() -> None:
        time.sleep(seconds)
        daemon.kill_daemon()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        thread.join()


class Crash:
    """A guest whose daemon has died, and what becomes of it."""

    def __init__(self, daemon: Daemon, guest: Guest) -> None:
        self.daemon = daemon
        self.guest = guest
        self.name = guest.dom.name()
        self.tops = [guest.path1 / "old.qcow2", guest.path1 / "old.migrate"]
        self.tops.append(guest.path2 / "new.qcow2")
        self.leaked: list[pathlib.Path] = []
        guest.dom = None
        guest.dom = daemon.restart().lookupByName(self.name)

    def writers(self) -> list[pathlib.Path]:
        return [path for path in self.tops if path.exists() and is_written_to(path)]

    def recover(self, policy: str) -> str:
        """Put it right, as an operator would; the verdict that was found."""
        before = self.writers()
        found = virmirror.inspect(self.guest.dom).verdict
        recovery = virmirror.recover(self.guest.dom, policy, timeout=30)  # type: ignore[arg-type]
        if policy == "pivot" and recovery.verdict == "ready":
            # QEMU holds layers of the mirror from before: no pivot gets past them
            assert "recover with 'abort'" in recovery.left[0]
            assert self.guest.dom.state()[0] == libvirt.VIR_DOMAIN_RUNNING
            recovery = virmirror.recover(self.guest.dom, "abort", timeout=30)
            found = "blocked"
        if recovery.verdict == "lost":
            self.end_lost_qemu(before)
            recovery = virmirror.recover(self.guest.dom, timeout=30)
        if recovery.verdict in ("stuck", "lying"):
            self.restart_guest(recovery)
        elif recovery.verdict == "off":
            # it cannot be told which side is newer: a person is told to look
            assert recovery.left
            self.check_either_side()
        else:
            assert recovery.verdict == "nothing", recovery
            self.leaked = [path for path in self.tops if str(path) in " ".join(recovery.left)]
            self.check_goes_on()
        return found

    def end_lost_qemu(self, before: list[pathlib.Path]) -> None:
        """What libvirt has lost still writes; only its owner may end it."""
        assert before and self.writers() == before
        assert not self.guest.dom.isActive()
        # so that its lock would hold a start back; to try would empty the serial's file
        assert self.guest.chain(inactive=True)[0] in before
        self.daemon.end_qemu(self.name)

    def restart_guest(self, recovery: virmirror.Recovery) -> None:
        """The persistent definition is right, the live one is not."""
        assert recovery.left
        assert self.guest.dom.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        written = self.guest.chain(inactive=True)[0]
        assert written in self.writers()  # the other side may be open still, unused
        self.guest.wait_for_writes(50)
        self.guest.check(written)
        recovery = virmirror.recover(self.guest.dom, timeout=30)
        assert recovery.verdict == "nothing", recovery
        self.guest.check(written)
        self.check_starts(written)

    def check_goes_on(self) -> None:
        """Nothing of ours is left, and the guest writes where libvirt says so."""
        if not self.guest.dom.isActive():
            (top,) = self.guest.chain(inactive=True)[:1]
            self.check_clean(top)
            self.guest.check(top)
            self.check_starts(top)
            return
        assert self.guest.dom.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        (top,) = self.guest.chain()[:1]
        assert self.guest.chain(inactive=True)[0] == top
        assert [path for path in self.writers() if path not in self.leaked] == [top]
        assert not self.guest.dom.blockJobInfo("vda")
        self.check_clean(top)
        self.guest.wait_for_writes(50)
        self.guest.check(top)

    def check_clean(self, top: pathlib.Path) -> None:
        assert not self.guest.has_journal()
        assert self.guest.dom.snapshotNum() == 0
        left = [path for path in self.tops[1:] if path.exists()]
        assert [path for path in left if path not in self.leaked] == (
            [top] if top != self.tops[0] else []
        )

    def check_starts(self, top: pathlib.Path) -> None:
        """The guest starts from there, and nothing of ours is left."""
        self.check_clean(top)
        self.guest.dom.create()
        self.guest.wait_for_writes(20)
        assert self.writers() == [top]

    def check_either_side(self) -> None:
        """Nothing was removed, and one of the two has all."""
        assert self.tops[1].exists() and self.tops[2].exists()
        try:
            testguest.check(self.tops[2], self.guest.serial)
        except testguest.WritesLost:
            testguest.check(self.tops[1], self.guest.serial)


def crash(daemon: Daemon, guest: Guest) -> Crash:
    daemon.kill_daemon()
    return Crash(daemon, guest)


def test_migration_through_a_daemon_loses_no_write(daemon: Daemon, guest: Guest) -> None:
    with start_mirror(guest) as mirror:
        assert mirror.pivot() < 2
    shutil.rmtree(guest.path1)
    guest.wait_for_writes(100)
    assert guest.sources() == [guest.path2 / "new.qcow2"]
    guest.check()


def test_wait_through_a_daemon_takes_no_poll(daemon: Daemon, guest: Guest) -> None:
    """READY comes as an event over the socket, at once."""
    mirror = create(guest)
    begin = time.monotonic()
    mirror.wait_ready(timeout=30)
    assert time.monotonic() - begin < 0.9  # a poll comes after a second
    mirror.abort()


def test_kill_before_create_leaves_an_error_and_nothing_else(daemon: Daemon, guest: Guest) -> None:
    daemon.kill_daemon()
    with pytest.raises(virmirror.MirrorError):
        create(guest)
    state = Crash(daemon, guest)
    assert state.recover("resume") == "nothing"


@pytest.mark.parametrize("policy", ["abort", "pivot"])
def test_kill_while_mirroring_is_recovered(daemon: Daemon, guest: Guest, policy: str) -> None:
    create(guest).detach()
    copy_in_place(guest)
    assert crash(daemon, guest).recover(policy) in ("mirroring", "ready")


@pytest.mark.parametrize("policy", ["abort", "pivot"])
def test_kill_when_ready_is_recovered(daemon: Daemon, guest: Guest, policy: str) -> None:
    start_mirror(guest).detach()
    assert crash(daemon, guest).recover(policy) == "ready"


def test_kill_while_others_wait_ends_the_wait(daemon: Daemon, guest: Guest) -> None:
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    mirror = create(guest)
    copy_in_place(guest)
    mirror.wait_ready(timeout=30)
    daemon.kill_daemon()
    begin = time.monotonic()
    with pytest.raises(virmirror.MirrorError):
        mirror.wait_ready(timeout=60)
    with pytest.raises(virmirror.MirrorError):
        mirror.abort(timeout=60)
    assert time.monotonic() - begin < 60
    mirror.detach()
    assert Crash(daemon, guest).recover("abort") == "ready"


def test_kill_after_the_pivot_is_no_matter(daemon: Daemon, guest: Guest) -> None:
    start_mirror(guest).pivot()
    state = crash(daemon, guest)
    assert state.recover("resume") == "nothing"
    assert not state.tops[1].exists()


@pytest.fixture(scope="module")
def verdicts(record_testsuite_property: Callable[..., None]) -> Iterator[Counter[str]]:
    found: Counter[str] = Counter()
    yield found
    record_testsuite_property("verdicts", dict(found))
    print(f"\nkills in a pivot, what was found: {dict(found)}")


@pytest.mark.parametrize("suspended", [True, False], ids=["suspended", "running"])
@pytest.mark.parametrize("delay", DELAYS)
def test_kill_in_a_pivot_loses_nothing(
    daemon: Daemon, guest: Guest, delay: int, suspended: bool, verdicts: Counter[str]
) -> None:
    mirror = start_mirror(guest)
    with killed_after(daemon, delay / 1000), contextlib.suppress(virmirror.MirrorError):
        mirror.pivot(pause_budget=2.0 if suspended else None, timeout=20)
    with contextlib.suppress(virmirror.MirrorError):
        mirror.detach()
    policy = "pivot" if delay % 8 else "abort"
    verdicts[Crash(daemon, guest).recover(policy)] += 1


@pytest.mark.parametrize("delay", range(0, 80, 8) if FULL else (16,))
def test_kill_in_a_create_loses_nothing(daemon: Daemon, guest: Guest, delay: int) -> None:
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    with killed_after(daemon, delay / 1000), contextlib.suppress(virmirror.MirrorError):
        virmirror.MirrorSnapshot.create(
            guest.dom, "migrate", f"vda,mirror={guest.path2}/new.qcow2", timeout=20
        ).detach()
    Crash(daemon, guest).recover("abort")
