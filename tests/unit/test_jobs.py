# SPDX-License-Identifier: LGPL-2.1-or-later
"""The record of a migration: kept whole, of one process, and read as hostile."""

import contextlib
import dataclasses
import json
import os
import stat
import subprocess
import sys
import time
import uuid

import pytest

import virmirror
from support.plans import PLAN
from virmirror import _core, jobs


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Return the folder of the records, which does not exist yet."""
    monkeypatch.setenv("VIRMIRROR_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def path(state):
    """Return the path of the record of PLAN, which was saved."""
    job = jobs.Job.open(PLAN)
    job.save()
    job.close()
    return state / PLAN.uuid / f"{PLAN.id}.json"


def test_saved_job_is_the_same_when_opened_again(path):
    job = jobs.Job.open(PLAN)
    created = jobs.Created("/path2/old.qcow2", 1, 2, 3)
    job.save(phase="copy", created=(created,), pause=0.5)
    job.close()
    again = jobs.Job.open(PLAN)
    assert again.state == job.state
    assert not again.is_new()
    again.forget()
    again.close()
    assert not path.exists()


def test_record_is_of_its_user_alone(path, state):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_job_that_is_open_is_busy_for_another_process(path):
    job = jobs.Job.open(PLAN)
    code = (
        "import sys, virmirror\nfrom virmirror import jobs\n"
        "try:\n    jobs.Job.open(virmirror.Plan.from_json(sys.stdin.read()))\n"
        "except virmirror.BusyError as error:\n    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], input=PLAN.to_json(), capture_output=True, text=True
    )
    assert f"process {os.getpid()} is at work" in result.stdout, result.stderr
    job.close()
    jobs.Job.open(PLAN).close()


def test_other_plan_of_the_same_domain_is_busy_too(path):
    job = jobs.Job.open(PLAN)
    with pytest.raises(virmirror.BusyError):
        jobs.Job.open(dataclasses.replace(PLAN, id="1" * 32))
    job.close()


def change(path, **members):
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_bytes(b"\xff" * 10),
        lambda path: path.write_text(" " * (5 * 1024 * 1024)),
        lambda path: change(path, version=2),
        lambda path: change(path, phase="sleeping"),
        lambda path: change(path, plan=dataclasses.replace(PLAN, name="other").to_json()),
    ],
    ids=["cut", "binary", "huge", "newer", "phase", "plan"],
)
def test_record_that_is_not_ours_is_refused_and_kept(path, spoil):
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(virmirror.JournalError):
        jobs.Job.open(PLAN)
    assert path.read_bytes() == before
    path.unlink()
    jobs.Job.open(PLAN).close()  # and nobody is kept out


def test_record_that_is_a_link_is_refused(path, tmp_path):
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(virmirror.StorageError):
        jobs.Job.open(PLAN)


@pytest.mark.parametrize("name", ["", PLAN.uuid])
def test_folder_that_others_can_write_to_is_refused(state, name):
    folder = state / name
    folder.mkdir(mode=0o700, parents=True)
    folder.chmod(0o777)
    with pytest.raises(virmirror.StorageError, match="others can write"):
        jobs.Job.open(PLAN)


@pytest.mark.parametrize("member", ["id", "uuid"])
def test_plan_whose_name_leads_out_of_the_folder_is_refused(state, member):
    with pytest.raises(virmirror.JournalError, match="no identifier"):
        jobs.Job.open(dataclasses.replace(PLAN, **{member: "../../etc/x"}))


def test_unfinished_job_is_found_by_its_domain(dom, state):
    assert virmirror.unfinished(dom) is None
    plan = dataclasses.replace(PLAN, uuid=dom.UUIDString())
    job = jobs.Job.open(plan)
    job.save()
    assert virmirror.unfinished(dom) == plan
    job.save(report="{}")
    assert virmirror.unfinished(dom) is None
    job.close()


def test_old_report_is_dropped_and_an_old_unfinished_job_is_not(path):
    other = dataclasses.replace(PLAN, id="1" * 32)
    job = jobs.Job.open(other)
    job.save(report="{}")
    job.close()
    for name in (PLAN.id, other.id):
        os.utime(path.with_name(f"{name}.json"), (0, 0))
    jobs.Job.open(dataclasses.replace(PLAN, id="2" * 32)).close()
    assert sorted(path.parent.glob("*.json")) == [path]


def test_bad_record_of_another_domain_is_no_obstacle(path, state, dom):
    path.write_text("{")
    path.parent.rename(state / "00000000-0000-0000-0000-000000000000")
    assert virmirror.unfinished(dom) is None


def test_file_of_another_birth_is_not_removed(tmp_path):
    """The inode's number may be in use again."""
    file = tmp_path / "file"
    file.touch()
    dev, ino, born = _core._file_identity(file)
    assert born > 0
    with pytest.raises(virmirror.DivergedError, match="another file by now"):
        _core._remove_file(file, dev, ino, born - 1)
    assert file.exists()
    _core._remove_file(file, dev, ino, born)
    assert not file.exists()


def test_file_is_owned_only_by_its_inode(path, tmp_path):
    file = tmp_path / "file"
    file.touch()
    job = jobs.Job.open(PLAN)
    job.save(created=(jobs.Created.at(str(file)),))
    assert job.owns(str(file))
    other = tmp_path / "other"
    other.touch()
    os.replace(other, file)
    assert not job.owns(str(file))
    file.unlink()
    assert not job.owns(str(file))
    job.close()


def test_job_in_another_state_folder_is_busy_too(path, tmp_path, monkeypatch):
    with contextlib.closing(jobs.Job.open(PLAN)):
        monkeypatch.setenv("VIRMIRROR_STATE_DIR", str(tmp_path / "other"))
        with pytest.raises(virmirror.BusyError, match=f"process {os.getpid()} is at work"):
            jobs.Job.open(PLAN)


def test_child_of_the_holder_has_no_job(path):
    with contextlib.closing(jobs.Job.open(PLAN)) as job:
        before = path.read_bytes()
        pid = os.fork()
        if pid == 0:
            try:
                job.save(phase="clean")
            except virmirror.BusyError:
                os._exit(17)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17
        assert path.read_bytes() == before
        job.save(phase="copy")


def test_lock_goes_with_the_close_though_a_child_lives(path):
    job = jobs.Job.open(PLAN)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent has ended, or closes it
        os._exit(0)
    job.close()
    jobs.Job.open(PLAN).close()
    os.close(writing)
    os.waitpid(pid, 0)
    os.close(reading)


def test_domain_that_is_held_is_told_with_the_pid(dom, state):
    plan = dataclasses.replace(PLAN, uuid=dom.UUIDString())
    assert virmirror.inspect(dom).running_pid is None
    with contextlib.closing(jobs.Job.open(plan)):
        found = virmirror.inspect(dom)
        assert found.running_pid == os.getpid()
        assert f"process {os.getpid()} is at work" in found.advice
        with pytest.raises(virmirror.BusyError, match=f"process {os.getpid()} is at work"):
            virmirror.recover(dom)
        with pytest.raises(virmirror.BusyError, match=f"process {os.getpid()} is at work"):
            virmirror.plan(dom, {"vda": "/"})
    assert virmirror.inspect(dom).running_pid is None
    virmirror.recover(dom)


def end_job(plan, days):
    """Leave the record of a migration that ended so long ago."""
    with contextlib.closing(jobs.Job.open(plan)) as job:
        job.save(report="{}")
    path = jobs.folder() / plan.uuid / f"{plan.id}.json"
    then = time.time() - days * 24 * 3600
    for one in (path, path.parent):
        os.utime(one, (then, then))
    return path


def other_plan():
    return dataclasses.replace(PLAN, uuid=str(uuid.uuid4()))


def test_old_records_of_domains_that_are_gone_are_dropped(path):
    old, recent, left = end_job(other_plan(), 31), end_job(other_plan(), 29), path
    os.utime(left, (0, 0))
    bad = old.parent.parent / "bad" / "1.json"
    bad.parent.mkdir()
    bad.write_text("{")
    os.utime(bad, (0, 0))
    jobs.Job.open(other_plan()).close()
    assert not old.exists()
    assert recent.exists() and left.exists() and bad.exists()
    os.utime(old.parent, (0, 0))
    jobs.Job.open(other_plan()).close()
    assert not old.parent.exists()


def test_oldest_records_are_dropped_where_there_are_many(path, monkeypatch):
    monkeypatch.setattr(jobs, "_KEEP_COUNT", 3)
    records = [end_job(other_plan(), days) for days in (5, 4, 3, 2)]
    jobs.Job.open(other_plan()).close()
    assert [record.exists() for record in records] == [False, False, True, True]
    assert path.exists()
