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

NOBODY = 65534


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


@pytest.mark.parametrize("rebased", [True, False])
def test_copy_whose_maker_died_before_it_was_marked_is_used(store, layer, rebased):
    virmirror.copy(layer.source, layer.destination)
    if rebased:
        _core._rebase_image(layer.destination, "base", "raw")
    _core._mark_copy(layer.destination, unmark=True)
    before = os.stat(layer.destination).st_ino
    store.fill(layer)
    assert header(layer) == ("base", "raw")
    assert os.stat(layer.destination).st_ino == before


def test_file_that_is_no_copy_is_not_taken_for_a_rebased_one(store, layer):
    virmirror.copy(layer.source, layer.destination)
    _core._rebase_image(layer.destination, "base", "raw")
    with open(layer.destination, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    _core._mark_copy(layer.destination, unmark=True)
    with pytest.raises(virmirror.ExistsError):
        store.fill(layer)


def test_verified_copy_over_a_rebased_one_leaves_its_backing_name(store, layer):
    virmirror.copy(layer.source, layer.destination)
    store.fill(layer)
    store.close()
    report = virmirror.copy(layer.source, layer.destination, overwrite=True, verify=True)
    assert (report.method, report.verified) == ("none", True)
    assert header(layer) == ("base", "raw")


def test_copy_that_another_migration_has_made_is_marked_for_good(store, layer, job):
    virmirror.copy(layer.source, layer.destination)
    store.fill(layer)
    assert os.getxattr(layer.destination, "user.virmirror.shared")
    store.close()
    job.save(created=(jobs.Created.at(layer.destination),))
    (created,) = job.state.created
    assert store.drop(created)  # by the one who has marked it

    virmirror.copy(layer.source, layer.destination)
    note(layer.destination, "another-domain", PLAN.name)
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


def note(path, domain, snapshot):
    with open(path, "rb") as file:
        _core._note_user(file.fileno(), path, domain, snapshot)


def others(path, domain, snapshot=None):
    with open(path, "rb") as file:
        return _core._has_other_users(file.fileno(), path, domain, snapshot)


def test_users_of_a_file_are_told_apart(file):
    path = str(file)
    assert not others(path, "a", "move")
    note(path, "a", "move")
    note(path, "a", "move")
    assert len(os.getxattr(path, "user.virmirror.shared").split()) == 1
    assert not others(path, "a", "move")
    assert not others(path, "a")
    assert others(path, "a", "another move")
    assert others(path, "b", "move") and others(path, "b")
    note(path, "b", "move")
    assert others(path, "a", "move") and others(path, "a")


def test_users_too_many_to_be_noted_are_others(file):
    for number in range(60):
        note(str(file), f"{number:036}", "move")
    assert others(str(file), f"{59:036}", "move")


def test_note_that_cannot_be_made_on_a_copy_is_an_error(file):
    """Of a file that somebody else has made, who could remove it."""

    def note_as_nobody():
        with file.open("rb") as opened:
            os.setegid(NOBODY)
            os.seteuid(NOBODY)
            try:
                _core._note_user(opened.fileno(), str(file), "a", "move")
            finally:
                os.seteuid(0)
                os.setegid(0)

    file.chmod(0o644)
    note_as_nobody()  # nobody's to remove
    _core._mark_copy(str(file))
    with pytest.raises(virmirror.StorageError, match="use a copy of your own"):
        note_as_nobody()


def test_copy_that_is_there_already_is_noted_as_used(store, layer, job):
    for _ in range(2):
        virmirror.copy(layer.source, layer.destination, overwrite=True)
    job.save(created=(jobs.Created.at(layer.destination),))
    assert not store.drop(job.state.created[0])


def test_lock_of_a_copy_ends_with_the_store_though_a_child_has_it_open(store, layer):
    store.fill(layer)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # it has all descriptors, until it is told to end
        os.write(ready[1], b"x")
        os.close(go[1])
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        store.close()
        with open(layer.destination, "r+b") as file:
            storage.lock_copy(file, fcntl.F_WRLCK)
    finally:
        for end in (*ready, *go):
            os.close(end)
        os.waitpid(child, 0)
