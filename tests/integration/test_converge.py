# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mirrors that cannot follow their guest: how they are brought level with it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import libvirt
import pytest

import virmirror
from support.guest import Guest
from support.mirrors import copy_in_place, seed_spec
from support.storage import READ, SlowFile, denied  # noqa: F401

pytestmark = pytest.mark.qemu

RUNNING = libvirt.VIR_DOMAIN_RUNNING
FIGURES = (
    r"do not converge: [\d.]+ MiB are left, the guest writes [\d.]+ MiB/s( \(limited to [\d.]+ "
    r"MiB/s\))?, [\d.]+ MiB/s are mirrored, the pause budget is [\d.]+ s"
)
# The guest's own limits, which have it write twice as fast as is mirrored.
OWN_LIMITS = {"write_bytes_sec": 192 * 1024, "read_iops_sec": 5000}
RATE = 96 * 1024  # bytes/s
# It writes to 2 MiB again and again, which can be mirrored in 21 s. What is left has to fit
# into half of the budget.
SHORT, LONG = 2.0, 60.0
BEHIND = 512 * 1024  # bytes, far more than fits into the short one


def overlay(guest: Guest) -> pathlib.Path:
    return guest.path1 / "old.migrate"


def top(guest: Guest) -> pathlib.Path:
    return guest.path2 / "new.qcow2"


def iotune(guest: Guest) -> list[str]:
    """The limits of its disks, as libvirt tells."""
    return re.findall("<iotune>.*?</iotune>", guest.dom.XMLDesc(), re.DOTALL)


def set_own_limits(guest: Guest) -> list[str]:
    guest.dom.setBlockIoTune("vda", OWN_LIMITS, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    return iotune(guest)


def start(guest: Guest, spec: str) -> virmirror.MirrorSnapshot:
    """A mirror on layers that are copied."""
    mirror = virmirror.MirrorSnapshot.create(guest.dom, "migrate", spec, reuse_external=True)
    copy_in_place(guest)
    return mirror


@contextlib.contextmanager
def outrun(guest: Guest, *, ready: bool = False) -> Iterator[virmirror.MirrorSnapshot]:
    """A mirror that does half of what the guest writes; it was ``ready`` once, or never."""
    spec = seed_spec(guest)
    set_own_limits(guest)
    with SlowFile(top(guest), RATE):
        with guest.resting() if ready else contextlib.nullcontext():
            mirror = start(guest, spec)
            if ready:
                mirror.wait_ready(timeout=30)
        end = time.monotonic() + 120
        while (disk := mirror.progress()[0]).end - disk.current < BEHIND:
            assert time.monotonic() < end, disk
            time.sleep(0.2)
        yield mirror


def check_on_overlay(guest: Guest) -> None:
    assert guest.dom.state()[0] == RUNNING
    assert guest.sources() == [overlay(guest)]
    assert not guest.has_journal()
    guest.wait_for_writes(50)
    guest.check(overlay(guest))


# ---- before it is ready


def test_pivot_does_not_wait_for_ready_where_the_rest_fits(guest: Guest) -> None:
    with outrun(guest) as mirror:
        with pytest.raises(virmirror.MirrorTimeoutError, match=r"is not ready yet: .* are left"):
            mirror.wait_ready(timeout=2)
        assert 0 < mirror.pivot(pause_budget=LONG, timeout=120) < LONG + 5
        assert guest.dom.state()[0] == RUNNING
        assert guest.sources() == [top(guest)]
        guest.wait_for_writes(50)
        guest.check(top(guest))


def test_pivot_that_does_not_fit_is_refused_in_time_with_figures(guest: Guest) -> None:
    seen: list[virmirror.MirrorFigures] = []
    with outrun(guest) as mirror:
        begin = time.monotonic()
        with pytest.raises(virmirror.MirrorTimeoutError, match=FIGURES):
            mirror.pivot(pause_budget=SHORT, timeout=4, on_progress=seen.append)
        assert 3 < time.monotonic() - begin < 10
        assert guest.dom.state()[0] == RUNNING
        mirror.abort(timeout=60, pause_budget=LONG)
        assert len(seen) >= 2
        assert seen[-1].left > 0
        assert seen[-1].limit is None
        check_on_overlay(guest)


def test_what_on_progress_raises_ends_the_wait(guest: Guest) -> None:
    def refuse(figures: virmirror.MirrorFigures) -> None:
        raise LookupError("enough")

    with outrun(guest) as mirror:
        with pytest.raises(LookupError):
            mirror.wait_ready(on_progress=refuse)
        with pytest.raises(LookupError):
            mirror.pivot(pause_budget=SHORT, on_progress=refuse)
        mirror.abort(timeout=60, pause_budget=LONG)
        check_on_overlay(guest)


# ---- a guest that writes twice as fast as is mirrored


def test_throttle_moves_a_guest_that_is_refused_without(guest: Guest) -> None:
    seen: list[virmirror.MirrorFigures] = []
    with outrun(guest) as mirror:
        own = iotune(guest)
        with pytest.raises(virmirror.MirrorTimeoutError, match=FIGURES):
            mirror.pivot(pause_budget=SHORT, timeout=6)
        assert iotune(guest) == own
        mirror.pivot(pause_budget=SHORT, converge="throttle", timeout=120, on_progress=seen.append)
        assert any(figures.limit for figures in seen)
        assert iotune(guest) == own
        assert guest.dom.state()[0] == RUNNING
        guest.wait_for_writes(50)
        guest.check(top(guest))


def test_throttled_pivot_that_times_out_puts_the_limits_back(guest: Guest) -> None:
    with outrun(guest) as mirror:
        own = iotune(guest)
        # a busy machine may not let the guest write enough to be limited by then
        with pytest.raises(virmirror.MirrorTimeoutError, match=r"do not converge: .* MiB are left"):
            mirror.pivot(pause_budget=0, converge="throttle", timeout=8)
        assert iotune(guest) == own
        mirror.abort(timeout=60, pause_budget=LONG)
        check_on_overlay(guest)


# A process of its own, with a host of its own, which is killed; and one that comes after.
THROTTLE_AND_DIE = """
    import os, pathlib, signal, sys
    from support.guest import Guest
    from virmirror import embed
    import test_converge as scenes

    def die(figures):
        if figures.limit:
            os.kill(os.getpid(), signal.SIGKILL)

    with embed.Host(sys.argv[1], keep_guests=True) as host:
        guest = Guest(host, pathlib.Path(sys.argv[2]))
        with scenes.outrun(guest) as mirror:
            pid = os.getpid()
            print(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(), flush=True)
            mirror.pivot(pause_budget=2.0, converge="throttle", on_progress=die)
"""
RECOVER = """
    import json, pathlib, sys
    import virmirror
    from support.guest import Guest
    from virmirror import embed
    import test_converge as scenes

    with embed.Host(sys.argv[1]) as host:
        guest = Guest.found(host, pathlib.Path(sys.argv[2]))
        before = scenes.iotune(guest)
        done = virmirror.recover(guest.dom, timeout=30).done
        after = scenes.iotune(guest)
        own = scenes.set_own_limits(guest)
        virmirror.recover(guest.dom, "abort", timeout=120)
        scenes.check_on_overlay(guest)
        print(json.dumps([before, list(done), after, own]))
"""


def run(script: str, folder: pathlib.Path) -> tuple[int, str, str]:
    """What a program has ended with and printed; what it leaves may hold its output."""
    here = pathlib.Path(__file__)
    path = f"{here.parent}:{here.parent.parent}"
    out, err = folder / "out", folder / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), folder / "root", folder / "files"],
            env={**os.environ, "PYTHONPATH": path},
            stdout=stdout,
            stderr=stderr,
            timeout=240,
            check=False,
        )
    return done.returncode, out.read_text(), err.read_text()


def test_limits_of_a_pivot_that_was_killed_are_put_back(
    qemus_reaped: None, tmp_path: pathlib.Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    status, children, error = run(THROTTLE_AND_DIE, tmp_path)
    assert status == -signal.SIGKILL, error
    try:
        status, out, error = run(RECOVER, tmp_path)
    finally:  # its slow storage has outlived it
        for pid in map(int, children.split()):
            os.kill(pid, signal.SIGKILL)
        mirror = next(files.iterdir()) / "path2" / "new.qcow2"
        subprocess.run(["umount", "--lazy", mirror], check=True)
    assert status == 0, error
    before, done, after, own = json.loads(out)
    assert before != own
    assert any("limits" in line for line in done)
    assert after == own


# ---- an abort of what was ready once


def test_abort_suspends_where_the_rest_fits(guest: Guest) -> None:
    with outrun(guest, ready=True) as mirror:
        with pytest.raises(
            virmirror.MirrorTimeoutError, match=r"MiB are left.* what is still missing"
        ):
            mirror.abort(timeout=3, pause_budget=SHORT)
        assert guest.dom.state()[0] == RUNNING
        mirror.abort(timeout=60, pause_budget=LONG)
        check_on_overlay(guest)


def test_abort_throttles_if_it_may(guest: Guest) -> None:
    with outrun(guest, ready=True) as mirror:
        own = iotune(guest)
        mirror.abort(timeout=60, pause_budget=SHORT, converge="throttle")
        assert iotune(guest) == own
        check_on_overlay(guest)


# ---- what the pause needs


USE_UP_DESCRIPTORS = """
    import contextlib, json, os, pathlib, resource, sys
    import libvirt, virmirror
    from support.guest import Guest
    from virmirror import embed
    import test_converge as scenes

    used = []

    def use_up(conn, dom, event, detail, opaque):
        if event == libvirt.VIR_DOMAIN_EVENT_SUSPENDED:
            with contextlib.suppress(OSError):
                while True:
                    used.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))

    with embed.Host(sys.argv[1]) as host:
        guest = Guest(host, pathlib.Path(sys.argv[2]))
        mirror = scenes.start(guest, scenes.seed_spec(guest))
        mirror.wait_ready(timeout=60)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))
        conn = guest.dom.connect()
        conn.domainEventRegisterAny(guest.dom, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, use_up, None)
        # the layers cannot be opened, so that it takes its time
        with scenes.denied(guest.path2 / "old.qcow2", scenes.READ):
            try:
                mirror.pivot(pause_budget=10)
            except virmirror.MirrorError as error:
                failed = str(error)
        state = guest.dom.state()[0]
        for fd in used:
            os.close(fd)
        mirror.abort(timeout=60)
        scenes.check_on_overlay(guest)
        print(json.dumps([failed, len(used), state]))
"""


def test_descriptors_used_up_in_the_pause_do_not_keep_the_guest(
    qemus_reaped: None, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "files").mkdir()
    status, out, error = run(USE_UP_DESCRIPTORS, tmp_path)
    assert status == 0, error
    _, used, state = json.loads(out)
    assert used > 0
    assert state == RUNNING  # although nobody had given anything back
