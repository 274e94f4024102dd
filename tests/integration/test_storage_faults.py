# SPDX-License-Identifier: LGPL-2.1-or-later
"""Storage that fails, hangs or is taken away: the guest keeps what it wrote.

At the end of each test the guest's writes are all on the side that it is said
to be on, and nothing of the mirrored snapshot is left.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import libvirt
import pytest

import virmirror
from support import qemu
from support.guest import Guest
from support.patience import PATIENCE
from support.storage import BrokenFile, FuseFile, NbdFile, fill_up, is_written_to, tmpfs
from virmirror import embed

pytestmark = pytest.mark.qemu

MIB = 1024 * 1024


def copy_in_place(guest: Guest) -> None:
    for path in guest.path2.iterdir():
        if (guest.path1 / path.name).exists():
            shutil.copyfile(guest.path1 / path.name, path)


def create(guest: Guest) -> virmirror.MirrorSnapshot:
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    return virmirror.MirrorSnapshot.create(
        guest.dom, "migrate", f"vda,mirror={guest.path2}/new.qcow2"
    )


def make_files(guest: Guest) -> pathlib.Path:
    """Make overlay and mirror by hand, so that the latter can be a special one."""
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    for path in (guest.path1 / "old.migrate", guest.path2 / "new.qcow2"):
        subprocess.run(
            [
                *("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=1.1"),
                *("-b", "old.qcow2", "-F", "qcow2", str(path)),
            ],
            check=True,
        )
    return guest.path2 / "new.qcow2"


def create_on(guest: Guest) -> virmirror.MirrorSnapshot:
    spec = f"vda,file={guest.path1}/old.migrate,mirror={guest.path2}/new.qcow2"
    mirror = virmirror.MirrorSnapshot.create(guest.dom, "migrate", spec, reuse_external=True)
    copy_in_place(guest)
    return mirror


def check_on(guest: Guest, top: pathlib.Path) -> None:
    """The guest runs there alone, with all its writes, and no record is left."""
    assert virmirror.inspect(guest.dom).verdict == "nothing"
    assert not guest.has_journal()
    assert guest.dom.snapshotNum() == 0
    assert not guest.dom.blockJobInfo("vda")
    assert guest.dom.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    assert guest.chain()[0] == guest.chain(inactive=True)[0] == top
    guest.wait_for_writes(30)
    guest.check(top)


def wait_until_failed(guest: Guest) -> None:
    end = time.monotonic() + PATIENCE
    while guest.dom.blockJobInfo("vda"):
        assert time.monotonic() < end
        time.sleep(0.05)


# ---- a target that fails


def test_target_full_before_ready_says_so(guest: Guest) -> None:
    with tmpfs(guest.path2, 2 * MIB):
        virmirror.prepare_chain(guest.dom, "vda", guest.path2)
        mirror = virmirror.MirrorSnapshot.create(
            guest.dom, "migrate", f"vda,mirror={guest.path2}/new.qcow2"
        )
        guest.wait_for_writes(300)  # all of its 2 MiB
        wait_until_failed(guest)
        with pytest.raises(virmirror.JobFailedError, match="no space is left"):
            mirror.wait_ready(timeout=20)
        mirror.abort()
        assert not (guest.path2 / "new.qcow2").exists()
        check_on(guest, guest.path1 / "old.migrate")


def test_target_full_after_ready_says_so(guest: Guest) -> None:
    with tmpfs(guest.path2, 8 * MIB):
        mirror = create(guest)
        copy_in_place(guest)
        mirror.wait_ready(timeout=20)
        fill_up(guest.path2)
        qemu.write(guest.dom, "48M", "2M")
        wait_until_failed(guest)
        with pytest.raises(virmirror.JobFailedError, match="no space is left"):
            mirror.wait_ready(timeout=20)
        with pytest.raises(virmirror.JobFailedError, match="abort"):
            mirror.pivot(timeout=20)
        mirror.abort()
        check_on(guest, guest.path1 / "old.migrate")


def take_snapshot(guest: Guest, top: pathlib.Path) -> None:
    xml = f"""<domainsnapshot><disks><disk name='vda' snapshot='external'>
        <source file='{top}'/></disk></disks></domainsnapshot>"""
    flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    guest.dom.snapshotCreateXML(xml, flags | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA)


def test_layer_full_while_it_is_committed_into_says_so(guest: Guest) -> None:
    with tmpfs(guest.path2, 8 * MIB):
        take_snapshot(guest, guest.path2 / "below")
        guest.wait_for_writes(50)
        take_snapshot(guest, guest.path1 / "top")
        qemu.write(guest.dom, "48M", "2M")
        fill_up(guest.path2)
        with pytest.raises(virmirror.JobFailedError, match="no space is left there; the guest"):
            virmirror.block_commit(guest.dom, "vda", timeout=20)
        assert guest.chain()[0] == guest.path1 / "top"
        guest.wait_for_writes(50)
        (guest.path2 / "filler").unlink()
        virmirror.block_commit(guest.dom, "vda", timeout=20)
        check_on(guest, guest.path2 / "below")


def test_target_that_fails_before_ready_ends_the_mirror(guest: Guest) -> None:
    with BrokenFile(make_files(guest), "write"):
        mirror = create_on(guest)
        wait_until_failed(guest)
        with pytest.raises(virmirror.JobFailedError, match="log of its QEMU"):
            mirror.wait_ready(timeout=20)
        mirror.abort()
        check_on(guest, guest.path1 / "old.migrate")


def test_target_that_cannot_flush_is_not_pivoted_to(guest: Guest) -> None:
    with BrokenFile(make_files(guest), "flush"):
        mirror = create_on(guest)
        with pytest.raises(virmirror.MirrorError):
            mirror.wait_ready(timeout=20)
            mirror.pivot(timeout=20)
        mirror.detach()
        recovery = virmirror.recover(guest.dom, "abort", timeout=30)
        assert recovery.verdict == "nothing"
        check_on(guest, guest.path1 / "old.migrate")


def plain_fuse(path: pathlib.Path) -> FuseFile:
    return FuseFile(path, {"driver": "raw", "file": "file"})


@pytest.mark.parametrize("storage", [plain_fuse, NbdFile])
def test_target_that_dies_after_ready_is_aborted(
    guest: Guest, storage: Callable[[pathlib.Path], FuseFile]
) -> None:
    with storage(make_files(guest)) as target:
        mirror = create_on(guest)
        mirror.wait_ready(timeout=20)
        target.die()
        wait_until_failed(guest)
        with pytest.raises(virmirror.MirrorError):
            mirror.pivot(timeout=20)
        mirror.abort()
        check_on(guest, guest.path1 / "old.migrate")


def test_target_that_hangs_holds_nobody_longer_than_the_deadline(guest: Guest) -> None:
    with NbdFile(make_files(guest)) as target:
        mirror = create_on(guest)
        mirror.wait_ready(timeout=20)
        target.hang()
        try:
            time.sleep(1.5)  # what the kernel remembers of the file is forgotten
            calls: list[Callable[[], object]] = [
                lambda: mirror.pivot(timeout=2),
                lambda: mirror.abort(timeout=2),
                lambda: virmirror.inspect(guest.dom, timeout=2),
                lambda: virmirror.recover(guest.dom, "abort", timeout=2),
            ]
            for call in calls:
                begin = time.monotonic()
                with pytest.raises(virmirror.MirrorTimeoutError):
                    call()
                assert time.monotonic() - begin < 6
            assert guest.has_journal()  # so it can be adopted
            mirror.detach()
        finally:
            target.go_on()
        recovery = virmirror.recover(guest.dom, "abort", timeout=60)
        assert recovery.verdict == "nothing", recovery
        check_on(guest, guest.path1 / "old.migrate")


# ---- a source that is full


def test_pivot_rescues_a_guest_whose_source_is_full(guest: Guest) -> None:
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    small = guest.path1.parent / "small"
    small.mkdir()
    with tmpfs(small, MIB):
        spec = f"vda,file={small}/old.migrate,mirror={guest.path2}/new.qcow2"
        mirror = virmirror.MirrorSnapshot.create(guest.dom, "migrate", spec)
        copy_in_place(guest)
        end = time.monotonic() + PATIENCE
        while guest.dom.state() != [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR]:
            assert time.monotonic() < end
            time.sleep(0.05)
        mirror.wait_ready(timeout=30)
        mirror.pivot(timeout=30)
        # it was not virmirror that had paused it
        assert guest.dom.state()[0] == libvirt.VIR_DOMAIN_PAUSED
        guest.dom.resume()
        check_on(guest, guest.path2 / "new.qcow2")


# ---- files that change


def test_target_unlinked_when_ready_is_not_pivoted_to(guest: Guest) -> None:
    mirror = create(guest)
    copy_in_place(guest)
    mirror.wait_ready(timeout=20)
    (guest.path2 / "new.qcow2").unlink()
    with pytest.raises(virmirror.MirrorError, match=r"new\.qcow2"):
        mirror.pivot(timeout=20)
    mirror.abort()
    check_on(guest, guest.path1 / "old.migrate")


def test_target_replaced_when_ready_is_not_pivoted_to(guest: Guest) -> None:
    mirror = create(guest)
    copy_in_place(guest)
    mirror.wait_ready(timeout=20)
    target = guest.path2 / "new.qcow2"
    other = guest.path2 / "other"
    shutil.copyfile(target, other)
    other.rename(target)
    with pytest.raises(virmirror.MirrorError, match=r"new\.qcow2"):
        mirror.pivot(timeout=20)
    mirror.abort()
    assert mirror.leftovers == (str(target),)
    assert target.exists()  # it is not the file that was made here
    check_on(guest, guest.path1 / "old.migrate")


def test_layer_never_copied_is_refused_and_copied_later(guest: Guest) -> None:
    mirror = create(guest)
    mirror.wait_ready(timeout=20)
    with pytest.raises(virmirror.ImageError, match="was not copied"):
        mirror.pivot(timeout=20)
    copy_in_place(guest)
    mirror.pivot(timeout=20)
    guest.wait_for_writes(300)
    check_on(guest, guest.path2 / "new.qcow2")


# ---- QEMU ends


@pytest.mark.parametrize("phase", ["mirroring", "ready", "pivoted"])
def test_qemu_killed_is_recovered_on_the_domain_that_is_off(
    host: embed.Host, guest: Guest, phase: str
) -> None:
    mirror = create(guest)
    copy_in_place(guest)
    if phase != "mirroring":
        mirror.wait_ready(timeout=20)
    if phase == "pivoted":
        mirror.pivot(timeout=20)
    pid_file = pathlib.Path(host.root) / "run" / "qemu" / f"{guest.dom.name()}.pid"
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while guest.dom.isActive():
        assert time.monotonic() < end
        time.sleep(0.02)
    if phase != "pivoted":
        with pytest.raises(virmirror.MirrorError):
            mirror.wait_ready(timeout=5)
        mirror.detach()
        assert virmirror.inspect(guest.dom).verdict == "off"
    recovery = virmirror.recover(guest.dom, timeout=30)
    assert recovery.verdict == "nothing", recovery
    top = guest.chain(inactive=True)[0]
    wanted = "path2/new.qcow2" if phase == "pivoted" else "path1/old.migrate"
    assert top == guest.path1.parent / wanted
    guest.check(top)
    assert (guest.path2 / "new.qcow2").exists() == (phase == "pivoted")
    guest.dom.create()
    guest.wait_for_writes(20)
    assert is_written_to(top) and not guest.has_journal()


# ---- a clock that jumps


JUMPING_CLOCK = """
    #define _GNU_SOURCE 1
    #include <sys/syscall.h>
    #include <sys/time.h>
    #include <time.h>
    #include <unistd.h>

    /* A day forward, a day back, whenever somebody looks. */
    static int calls;

    int clock_gettime(clockid_t clock, struct timespec *now)
    {
        int result = (int)syscall(SYS_clock_gettime, clock, now);

        if (clock == CLOCK_REALTIME)
            now->tv_sec += __sync_add_and_fetch(&calls, 1) % 2 ? 86400 : -86400;
        return result;
    }

    int gettimeofday(struct timeval *restrict now, void *restrict zone)
    {
        struct timespec time;

        clock_gettime(CLOCK_REALTIME, &time);
        now->tv_sec = time.tv_sec;
        now->tv_usec = time.tv_nsec / 1000;
        return (void)zone, 0;
    }

    time_t time(time_t *now)
    {
        struct timespec time;

        clock_gettime(CLOCK_REALTIME, &time);
        if (now)
            *now = time.tv_sec;
        return time.tv_sec;
    }
"""

MIGRATE = """
    import shutil, sys, time
    import libvirt, virmirror
    assert abs(time.time() - time.time()) > 80000  # the clock does jump
    virmirror.start_event_loop()
    conn = libvirt.open(sys.argv[1])
    dom = conn.lookupByName(sys.argv[2])
    begin = time.monotonic()
    with virmirror.MirrorSnapshot.create(dom, "migrate", sys.argv[3], timeout=60) as mirror:
        for name in ("common", "old.qcow2"):
            shutil.copyfile(f"{sys.argv[4]}/{name}", f"{sys.argv[5]}/{name}")
        mirror.wait_ready(timeout=60)
        pause = mirror.pivot(timeout=60)
    assert 0 < pause < time.monotonic() - begin < 60
"""


def test_clock_that_jumps_is_no_matter(
    daemon_guest: tuple[Guest, str], tmp_path: pathlib.Path
) -> None:
    guest, uri = daemon_guest
    source, shim = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(textwrap.dedent(JUMPING_CLOCK))
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, source], check=True)
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    subprocess.run(
        [
            *(sys.executable, "-c", textwrap.dedent(MIGRATE), uri, guest.dom.name()),
            *(f"vda,mirror={guest.path2}/new.qcow2", str(guest.path1), str(guest.path2)),
        ],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        timeout=120,
        check=True,
    )
    check_on(guest, guest.path2 / "new.qcow2")


# ---- two at once


CREATE = """
    import sys, time
    import libvirt, virmirror
    virmirror.start_event_loop()
    conn = libvirt.open(sys.argv[1])
    dom = conn.lookupByName(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        virmirror.MirrorSnapshot.create(dom, sys.argv[3], sys.argv[4]).detach()
        print("created")
    except virmirror.MirrorError as error:
        print(type(error).__name__)
"""


@pytest.fixture
def daemon_guest(qemus_reaped: None, tmp_path: pathlib.Path) -> Iterator[tuple[Guest, str]]:
    """A guest that several processes can reach."""
    from support.daemon import Daemon

    folder = tmp_path / "daemon"
    folder.mkdir()
    with Daemon(folder) as daemon:
        guest = Guest(daemon, tmp_path)
        yield guest, daemon.uri
        guest.end()


def test_two_processes_at_once_make_one_mirror(daemon_guest: tuple[Guest, str]) -> None:
    guest, uri = daemon_guest
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    for attempt in range(4):
        outcomes = []
        processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-c", textwrap.dedent(CREATE), uri, guest.dom.name()),
                    *(f"try{attempt}{n}", f"vda,mirror={guest.path2}/new{attempt}{n}.qcow2"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in range(2)
        ]
        for process in processes:
            assert process.stdout and process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            outcomes.append(process.communicate(timeout=60)[0].strip())
        assert sorted(outcomes) in (["BusyError", "created"], ["BusyError", "BusyError"])
        if "created" in outcomes:
            virmirror.adopt(guest.dom).abort()
            break
    check_on(guest, guest.chain()[0])
