# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copy: a copy that goes on by itself."""

import gc
import os
import pickle
import threading
import time
from pathlib import Path

import pytest

import virmirror
from support.patience import PATIENCE

MIB = 1024 * 1024
SLOW = MIB // 2  # bytes per second: the source takes 8 s at this rate


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(os.urandom(4 * MIB + 17))
    return path


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "destination"


def count_threads():
    return len(list(Path("/proc/self/task").iterdir()))


def test_start_and_wait_copies(source, destination):
    copy = virmirror.Copy.start(source, destination)
    report = copy.wait(timeout=60)
    assert destination.read_bytes() == source.read_bytes()
    assert copy.done
    assert copy.wait() == report
    assert copy.progress().current == copy.progress().end == report.copied
    assert (copy.source, copy.destination) == (str(source), str(destination))


def test_cancel_ends_it_at_once_and_leaves_nothing(source, destination):
    threads = count_threads()
    copy = virmirror.Copy.start(source, destination, bandwidth=SLOW)
    begin = time.monotonic()
    copy.cancel()
    with pytest.raises(virmirror.CancelledError):
        copy.wait(timeout=60)
    assert time.monotonic() - begin < 2
    assert not destination.exists()
    assert count_threads() == threads
    with pytest.raises(virmirror.CancelledError):
        copy.wait()


def test_bandwidth_can_be_changed_while_it_runs(source, destination):
    copy = virmirror.Copy.start(source, destination, bandwidth=SLOW)
    assert copy.bandwidth == SLOW
    with pytest.raises(virmirror.MirrorTimeoutError):
        copy.wait(timeout=0.5)
    assert 0 < copy.progress().current < copy.progress().end
    copy.bandwidth = 0
    copy.wait(timeout=60)
    assert destination.read_bytes() == source.read_bytes()


def test_bandwidth_bounds_the_rate(source, destination):
    with virmirror.Copy.start(source, destination, bandwidth=4 * MIB) as copy:
        report = copy.wait(timeout=60)
    assert report.seconds > 0.7


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), ("1", TypeError)])
def test_bandwidth_that_is_none_is_refused(source, destination, value, error):
    with virmirror.Copy.start(source, destination) as copy:
        with pytest.raises(error):
            copy.bandwidth = value
        with pytest.raises(AttributeError):
            del copy.bandwidth
        copy.wait()


def test_with_left_while_it_runs_cancels(source, destination):
    with virmirror.Copy.start(source, destination, bandwidth=SLOW) as copy:
        pass
    assert copy.done
    assert not destination.exists()


def test_with_left_by_exception_cancels_and_lets_it_go_on(source, destination):
    with pytest.raises(KeyError) as caught:
        with virmirror.Copy.start(source, destination, bandwidth=SLOW):
            raise KeyError("mine")
    assert caught.value.__context__ is None
    assert not destination.exists()


def test_second_waiter_is_refused(source, destination):
    with virmirror.Copy.start(source, destination, bandwidth=SLOW) as copy:
        outcome = []

        def wait():
            try:
                copy.wait()
            except virmirror.CancelledError as error:
                outcome.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        with pytest.raises(virmirror.BusyError):
            copy.wait()
        assert not copy.done
        copy.cancel()
        thread.join(10)
    assert len(outcome) == 1


def test_dropped_while_it_runs_warns_and_cancels(source, destination):
    copy = virmirror.Copy.start(source, destination, bandwidth=SLOW)
    with pytest.warns(ResourceWarning, match="still runs"):
        del copy
        gc.collect()
    end = time.monotonic() + PATIENCE
    while destination.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not destination.exists()


def test_cannot_be_made_pickled_or_copied(source, destination):
    with pytest.raises(TypeError):
        virmirror.Copy()
    copy = virmirror.Copy.start(source, destination)
    with pytest.raises(TypeError):
        pickle.dumps(copy)
    assert "running" in repr(copy) or "ended" in repr(copy)
    copy.wait()
    assert f"ended: {4 * MIB + 17} of" in repr(copy)
