# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ctrl-C and other signals while the engine is waiting."""

import signal
import time

import pytest

import virmirror


class Alarmed(Exception):
    """What the tests' signal handler raises."""


@pytest.fixture
def alarm():
    """Return a function that has a signal come after some seconds, again and again if told so."""

    def start(seconds, handler, interval=0.0):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds, interval)

    before = signal.getsignal(signal.SIGALRM)
    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def raise_alarmed(_number, _frame):
    raise Alarmed


@pytest.fixture
def stopwatch():
    begin = time.monotonic()
    return lambda: time.monotonic() - begin


def test_wait_with_a_handler_that_raises_ends_at_once(mirror, alarm, stopwatch):
    alarm(0.2, raise_alarmed)
    with pytest.raises(Alarmed) as caught:
        mirror.wait_ready()
    assert 0.15 < stopwatch() < 1
    assert caught.value.__context__ is None
    assert mirror.state == "mirroring"


def test_wait_with_the_default_handler_of_ctrl_c_raises_keyboard_interrupt(mirror, alarm):
    alarm(0.2, lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        mirror.wait_ready()
    with pytest.raises(virmirror.JobFailedError):
        mirror.pivot()


def test_wait_with_a_handler_that_only_looks_goes_on(mirror, alarm):
    calls = []
    alarm(0.1, lambda *_: calls.append(1), interval=0.1)
    with pytest.raises(virmirror.JobFailedError):
        mirror.wait_ready()
    assert len(calls) > 5


def test_wait_with_a_handler_that_uses_the_object_is_refused(mirror, alarm):
    alarm(0.2, lambda *_: mirror.abort())
    with pytest.raises(virmirror.BusyError):
        mirror.wait_ready()
    assert mirror.disks[0].state == "mirroring"


def test_prepare_chain_interrupted_leaves_nothing(dom, tmp_path, slow_qemu_img, alarm, stopwatch):
    folder = tmp_path / "new"
    folder.mkdir()
    alarm(0.3, raise_alarmed)
    with pytest.raises(Alarmed):
        virmirror.prepare_chain(dom, "vda", folder, timeout=None)
    assert stopwatch() < 5
    assert list(folder.iterdir()) == []


def test_prepare_chain_that_takes_too_long_times_out(dom, tmp_path, slow_qemu_img, stopwatch):
    folder = tmp_path / "new"
    folder.mkdir()
    with pytest.raises(virmirror.MirrorTimeoutError):
        virmirror.prepare_chain(dom, "vda", folder, timeout=0.3)
    assert stopwatch() < 5
    assert list(folder.iterdir()) == []


def test_with_interrupted_goes_on_with_the_interrupt(journalled, alarm):
    alarm(0.2, raise_alarmed)
    with pytest.raises(Alarmed) as caught:
        with virmirror.adopt(journalled) as mirror:
            mirror.wait_ready()
    mirror.detach()
    assert isinstance(caught.value.__context__, virmirror.MirrorError)
    assert caught.value.__context__.phase == "abort"
