# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies that are broken off, refused by the kernel, or fail in their storage."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import virmirror
from support import storage
from support.patience import PATIENCE

KIB = 1024
MIB = 1024 * KIB
ATTRIBUTE = "user.virmirror.copy"
SLOW = MIB // 2  # bytes per second

PROGRAM = "import sys, virmirror; print(virmirror.copy(*sys.argv[1:3], {}).method)"
IN_KERNEL = """\
import sys; from virmirror import _core
_core._copy_by(*sys.argv[1:3], 'copy_file_range')
"""
# without io_uring, whose reads and writes are no system calls
NO_URING = "io_uring_setup:error=EPERM"


@pytest.fixture
def source(tmp_path):
    """Return a qcow2 image of 4 MiB and some bytes."""
    path = tmp_path / "source"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(os.urandom(3 * MIB + 17))
    return path


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "destination"


def start(source, destination, options, *tracer):
    """Start a program that copies; it prints the method."""
    command = [*tracer, sys.executable, "-c", PROGRAM.format(options), source, destination]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_with_fault(source, destination, *faults, options=""):
    """Copy while strace has system calls fail; return the method, or the last line of stderr.

    strace counts the calls of each thread apart.
    """
    traced = ",".join(fault.partition(":")[0] for fault in faults)
    tracer = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={traced}"]
    if traced == "fcntl":
        tracer += ["-P", destination]  # Python and libvirt call it, too
    for fault in faults:
        tracer += ["-e", f"inject={fault}"]
    options = f"overwrite=True, {options}"
    with start(source, destination, options, *tracer) as process:
        out, err = process.communicate(timeout=60)
    return out.strip() if process.returncode == 0 else err.strip().splitlines()[-1]


def wait_until_begun(process, destination):
    """Wait until the copy writes to the destination."""
    end = time.monotonic() + PATIENCE
    while not (destination.exists() and destination.stat().st_blocks > 64):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


def assert_is_no_image(path):
    assert path.read_bytes()[: 64 * KIB] == bytes(64 * KIB)
    command = ["qemu-img", "info", "-f", "qcow2", path]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_process_killed_leaves_no_image_and_the_mark(source, destination):
    with start(source, destination, f"bandwidth={SLOW}") as process:
        wait_until_begun(process, destination)
        process.kill()
    assert os.getxattr(destination, ATTRIBUTE) == b"2 incomplete"
    assert_is_no_image(destination)
    report = virmirror.copy(source, destination, overwrite=True)
    assert report.copied > 0
    assert destination.read_bytes() == source.read_bytes()


def test_ctrl_c_ends_the_copy_and_leaves_nothing(source, destination):
    with start(source, destination, f"bandwidth={SLOW}") as process:
        wait_until_begun(process, destination)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert time.monotonic() - begin < 5
    assert "KeyboardInterrupt" in err
    assert not destination.exists()


def test_second_copy_waits_and_takes_over_the_first(source, destination):
    first = virmirror.Copy.start(source, destination, bandwidth=SLOW)
    with start(source, destination, "overwrite=True") as process:
        time.sleep(0.5)
        assert process.poll() is None
        first.bandwidth = 0
        report = first.wait(timeout=60)
        out, err = process.communicate(timeout=30)
    assert (out, err) == ("none\n", "")
    assert report.copied > 0
    assert destination.read_bytes() == source.read_bytes()


def test_second_copy_goes_on_when_the_first_has_failed(source, destination):
    destination.touch()
    first = virmirror.Copy.start(source, destination, bandwidth=SLOW, overwrite=True)
    second = virmirror.Copy.start(source, destination, overwrite=True)
    first.cancel()
    with pytest.raises(virmirror.CancelledError):
        first.wait()
    assert second.wait(timeout=60).copied > 0
    assert destination.read_bytes() == source.read_bytes()


def test_copy_that_others_use_already_is_taken_over_beside_them(source, destination):
    virmirror.copy(source, destination)
    with destination.open("rb") as file:
        storage.lock_copy(file, fcntl.F_RDLCK)
        with virmirror.Copy.start(source, destination, overwrite=True) as copy:
            assert copy.wait(timeout=20).method == "none"
        os.utime(source)  # it is the copy of something else now
        with virmirror.Copy.start(source, destination, overwrite=True) as copy:
            with pytest.raises(virmirror.MirrorTimeoutError):
                copy.wait(timeout=0.3)
            storage.lock_copy(file, fcntl.F_UNLCK)
            assert copy.wait(timeout=20).copied > 0


def test_waiting_for_the_lock_can_be_cancelled_and_harms_nothing(source, destination):
    first = virmirror.Copy.start(source, destination, bandwidth=SLOW)
    while first.progress().end == 0:  # it has the lock by then
        time.sleep(0.01)
    second = virmirror.Copy.start(source, destination, overwrite=True)
    with pytest.raises(virmirror.MirrorTimeoutError):
        second.wait(timeout=0.3)
    second.cancel()
    with pytest.raises(virmirror.CancelledError) as caught:
        second.wait()
    assert not caught.value.partial
    first.bandwidth = 0
    first.wait(timeout=60)
    assert destination.read_bytes() == source.read_bytes()


def test_source_changed_meanwhile_is_told(source, destination):
    copy = virmirror.Copy.start(source, destination, bandwidth=4 * MIB)
    while copy.progress().current == 0:
        time.sleep(0.01)
    os.utime(source)
    with pytest.raises(virmirror.DivergedError, match="has changed"):
        copy.wait(timeout=60)
    assert not destination.exists()


def test_owner_of_the_source_changed_meanwhile_does_no_harm(source, destination):
    copy = virmirror.Copy.start(source, destination, bandwidth=4 * MIB)
    source.chmod(0o640)
    copy.wait(timeout=60)
    assert destination.read_bytes() == source.read_bytes()


def test_source_cut_off_meanwhile_is_told(source, destination):
    copy = virmirror.Copy.start(source, destination, bandwidth=SLOW)
    while copy.progress().current == 0:
        time.sleep(0.01)
    os.truncate(source, MIB)
    with pytest.raises(virmirror.DivergedError):
        copy.wait(timeout=60)
    assert not destination.exists()


@pytest.mark.parametrize(
    ("faults", "method"),
    [
        ([NO_URING], "threads"),
        (["io_uring_setup:error=ENOSYS"], "threads"),
        (["io_uring_enter:error=EPERM"], "threads"),
        (["io_uring_enter:error=EINTR:when=2+3"], "io_uring"),
        # advice and locks that the file system does not know
        (["fcntl:error=EOPNOTSUPP"], "io_uring"),
        (["fsetxattr:error=EOPNOTSUPP", "fgetxattr:error=EOPNOTSUPP"], "io_uring"),
    ],
    ids=str,
)
def test_refusal_of_the_kernel_is_lived_with(source, destination, faults, method):
    assert run_with_fault(source, destination, *faults) == method
    assert destination.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("number", range(1, 10))
def test_refusal_at_any_moment_is_lived_with(source, destination, number):
    fault = f"io_uring_enter:error=EPERM:when={number}+"
    method = run_with_fault(source, destination, fault, options=f"bandwidth={8 * MIB}")
    # how often it is called is a matter of speed, but for the first times
    assert method == "threads" or (method == "io_uring" and number > 4)
    assert destination.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        (["fsync:error=EIO"], "cannot write back"),
        (["fsync:error=EIO:when=2"], "cannot write back"),
        (["fdatasync:error=EIO"], "cannot write back"),
        (["ftruncate:error=EFBIG"], "cannot set the size"),
        (["fsetxattr:error=EIO:when=2"], "copy mark"),
        (["fcntl:error=EIO"], "cannot probe the locks of"),
        ([NO_URING, "pwrite64:error=ENOSPC"], "No space left"),
    ],
    ids=str,
)
def test_fault_of_the_storage_is_told_and_leaves_no_image(source, destination, faults, told):
    destination.write_bytes(b"header" * MIB)
    last = run_with_fault(source, destination, *faults)
    assert "Error: " in last and told in last
    if "lock" not in told:
        assert os.getxattr(destination, ATTRIBUTE) == b"2 incomplete"
    assert subprocess.run(
        ["qemu-img", "info", "-f", "qcow2", destination], capture_output=True, check=False
    ).returncode


def test_error_of_writing_back_meanwhile_is_not_lost(source, destination):
    """The fsync does not tell of it a second time."""
    tracer = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=sync_file_range"]
    tracer += ["-e", "inject=sync_file_range:error=EIO"]
    command = [*tracer, sys.executable, "-c", IN_KERNEL, source, destination]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "StorageError: cannot write back" in result.stderr
    assert not destination.exists()


def test_copy_after_a_fork_does_not_wait_for_the_child(source, destination):
    """The child has the descriptors, and with them a share of the lock."""
    destination.touch()
    first = virmirror.Copy.start(source, destination, overwrite=True, bandwidth=SLOW)
    child = os.fork()
    if child == 0:
        try:
            first.wait()
        except virmirror.StateError as error:
            os.write(1, str(error).encode())
            signal.pause()
        finally:
            os._exit(1)
    try:
        first.cancel()
        with pytest.raises(virmirror.CancelledError):
            first.wait()
        assert virmirror.copy(source, destination, overwrite=True, timeout=30).copied > 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_too_little_room_is_told_before_anything_is_written(source, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    with storage.tmpfs(folder, 2 * MIB):
        with pytest.raises(virmirror.StorageError, match="room for"):
            virmirror.copy(source, folder / "destination")
        assert list(folder.iterdir()) == []


def test_copy_to_tmpfs_works(source, tmp_path):
    folder = tmp_path / "memory"
    folder.mkdir()
    with storage.tmpfs(folder, 32 * MIB):
        report = virmirror.copy(source, folder / "destination", verify=True)
        assert report.verified
        assert (folder / "destination").read_bytes() == source.read_bytes()


def test_write_error_of_the_storage_names_file_and_place(source, destination):
    destination.write_bytes(bytes(8 * MIB))
    with storage.BrokenFile(destination, "write"):
        with pytest.raises(virmirror.StorageError, match=r"destination' at byte \d+"):
            virmirror.copy(source, destination, overwrite=True)


def test_read_error_of_the_storage_names_file_and_place(source, destination):
    with storage.BrokenFile(source, "read"):
        with pytest.raises(virmirror.StorageError, match=r"source' at byte \d+"):
            virmirror.copy(source, destination)
    assert not destination.exists()


def test_write_that_only_claims_to_be_done_is_found_by_verify(source, destination):
    """Each write returns what it returns when it has succeeded, and does nothing."""
    lie = f"pwrite64:retval={MIB}"
    last = run_with_fault(source, destination, NO_URING, lie, options="verify=True")
    assert "does not read as it was written" in last
    assert not destination.exists()


def test_threads_are_gone_after_a_copy(source, destination):
    before = len(list(Path("/proc/self/task").iterdir()))
    virmirror.copy(source, destination)
    assert len(list(Path("/proc/self/task").iterdir())) == before
