# SPDX-License-Identifier: LGPL-2.1-or-later
"""The copies of a migration, when others look at them, too."""

import dataclasses
import fcntl
import os
import subprocess
import threading

import pytest

import virmirror
from support import storage
from support.plans import LAYER, PLAN
from virmirror import _core, jobs, layers
from virmirror.deadline import Deadline
from virmirror.layers import Store


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRMIRROR_STATE_DIR", str(tmp_path / "state"))
    job = jobs.Job.open(PLAN)
    job.save()
    yield job
    job.close()


@pytest.fixture
def store(job):
    store = Store(PLAN, job, lambda path, current, end: None)
    yield store
    store.close()


@pytest.fixture
def file(tmp_path, job):
    """Return a file that the job has made."""
    path = tmp_path / "file"
    path.write_bytes(b"data")
    job.save(created=(jobs.Created.at(str(path)),))
    return path


def test_file_is_removed(store, job, file):
    assert store.drop(job.state.created[0])
    assert not file.exists()
    assert store.drop(job.state.created[0])


def test_file_that_another_process_relies_on_stays(store, job, file):
    with file.open("rb") as other:
        storage.lock_copy(other, fcntl.F_RDLCK)
        assert not store.drop(job.state.created[0])
    assert file.exists()


def test_file_that_a_link_has_replaced_stays(store, job, file, tmp_path):
    other = tmp_path / "other"
    file.rename(other)
    file.symlink_to(other)
    assert not store.drop(job.state.created[0])
    assert file.is_symlink() and other.exists()


@pytest.fixture
def layer(tmp_path):
    """Return a layer whose copy's header is to name another file."""
    source, base = tmp_path / "source", tmp_path / "base"
    base.write_bytes(bytes(1 << 20))
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, source]
    subprocess.run(make, check=True)
    status = source.stat()
    return dataclasses.replace(
        LAYER,
        source=str(source),
        destination=str(tmp_path / "copy"),
        dev=status.st_dev,
        ino=status.st_ino,
        born=0,
        size=status.st_size,
        backing_name="base",
        backing_format="raw",
        rebase=True,
    )


def header(layer):
    return _core._image_backing(layer.destination, "qcow2")


def test_header_is_changed_and_the_copy_still_known(store, layer):
    store.fill(layer)
    assert header(layer) == ("base", "raw")
    assert _core._copy_state(layer.source, layer.destination) == "fits"


def test_header_is_changed_by_one_process_at_a_time(store, layer):
    virmirror.copy(layer.source, layer.destination)
    before = header(layer)
    with open(layer.destination, "rb") as other:
        storage.lock_copy(other, fcntl.F_RDLCK)
        thread = threading.Thread(target=store.fill, args=(layer,))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert header(layer) == before
    thread.join(20)
    assert header(layer) == ("base", "raw")


def test_copy_that_another_migration_has_made_is_marked_for_good(store, layer, job):
    virmirror.copy(layer.source, layer.destination)
    store.fill(layer)
    assert os.getxattr(layer.destination, "user.virmirror.shared")
    store.close()
    assert not store.drop(jobs.Created.at(layer.destination))


@pytest.fixture
def filling(layer):
    """Return the layer while another process fills its copy, and never ends."""
    virmirror.copy(layer.source, layer.destination)
    with open(layer.destination, "r+b") as other:
        storage.lock_copy(other, fcntl.F_WRLCK)
        yield layer


def test_wait_for_a_copy_that_another_process_fills_has_a_deadline(job, filling):
    store = Store(PLAN, job, lambda path, current, end: None, Deadline(0.3))
    with pytest.raises(
        virmirror.MirrorTimeoutError, match=r"0\.3 s .* another process was filling"
    ):
        store.fill(filling)
    store.close()


def test_wait_for_a_process_that_hangs_ends_by_itself(store, filling, monkeypatch):
    monkeypatch.setattr(layers, "_STALLED", 0.3)
    with pytest.raises(virmirror.BusyError, match=r"has not written to it for 0\.3 s"):
        store.fill(filling)
