# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mirrored snapshots from end to end, on a guest that writes all the time."""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable

import libvirt
import pytest

import virmirror
from support.guest import Guest
from support.storage import SlowFile

pytestmark = pytest.mark.qemu

RELATIVE = libvirt.VIR_DOMAIN_BLOCK_REBASE_RELATIVE


def copy_in_place(guest: Guest) -> None:
    """The seed's cp: from all frozen layers to their skeletons."""
    for path in guest.path2.iterdir():
        source = guest.path1 / path.name
        if source.exists():
            subprocess.run(["cp", "--sparse=always", str(source), str(path)], check=True)


def create(guest: Guest, *, disks: int = 1) -> virmirror.MirrorSnapshot:
    specs = []
    for n, target in zip(range(disks), ("vda", "vdb", "vdc"), strict=False):
        virmirror.prepare_chain(guest.dom, target, guest.path2)
        specs.append(f"{target},mirror={guest.path2}/new{n}.qcow2")
    return virmirror.MirrorSnapshot.create(guest.dom, "migrate", specs)


def backing_name(path: pathlib.Path) -> str:
    info = subprocess.run(
        ["qemu-img", "info", "-U", str(path)], check=True, capture_output=True, text=True
    )
    (line,) = (line for line in info.stdout.splitlines() if line.startswith("backing file: "))
    return line.removeprefix("backing file: ").split(" (")[0]


@pytest.mark.parametrize("disks", [1, 2, 3])
def test_migration_of_a_writing_guest_loses_no_write(
    make_guest: Callable[..., Guest], disks: int
) -> None:
    guest = make_guest(disks=disks)
    with create(guest, disks=disks) as mirror:
        copy_in_place(guest)
        guest.wait_for_writes(100)
        mirror.wait_ready(timeout=30)
        mirror.pivot()
    shutil.rmtree(guest.path1)
    guest.wait_for_writes(300)
    for n, target in zip(range(disks), ("vda", "vdb", "vdc"), strict=False):
        assert guest.chain(target)[0] == guest.path2 / f"new{n}.qcow2"
        assert guest.chain(target, inactive=True)[0] == guest.path2 / f"new{n}.qcow2"
    assert not guest.has_journal()
    assert guest.dom.snapshotNum() == 0
    guest.check(*(guest.path2 / f"new{n}.qcow2" for n in range(disks)))


@pytest.mark.parametrize(
    ("layers", "base_format"), [(1, "raw"), (1, "qcow2"), (2, "raw"), (5, "raw")]
)
def test_migration_keeps_every_layer(
    make_guest: Callable[..., Guest], layers: int, base_format: str
) -> None:
    guest = make_guest(layers=layers, base_format=base_format)
    before = [path.name for path in guest.chain()]
    with create(guest) as mirror:
        copy_in_place(guest)
        mirror.wait_ready(timeout=30)
        mirror.pivot()
    shutil.rmtree(guest.path1)
    assert guest.chain() == [guest.path2 / name for name in ("new0.qcow2", *before)]
    guest.wait_for_writes(100)
    guest.check()


def test_pull_after_the_pivot_shortens_the_chain_and_keeps_names_relative(guest: Guest) -> None:
    with create(guest) as mirror:
        copy_in_place(guest)
        mirror.wait_ready(timeout=30)
        mirror.pivot()
    virmirror.block_pull(guest.dom, "vda", guest.path2 / "common", timeout=60)
    assert guest.chain() == [guest.path2 / "new0.qcow2", guest.path2 / "common"]
    assert backing_name(guest.path2 / "new0.qcow2") == "common"
    shutil.rmtree(guest.path1)
    guest.wait_for_writes(100)
    guest.check()


def test_pull_again_changes_nothing(guest: Guest) -> None:
    virmirror.block_pull(guest.dom, "vda", guest.path1 / "common", timeout=60)
    virmirror.block_pull(guest.dom, "vda", guest.path1 / "common", timeout=60)
    assert guest.chain() == [guest.path1 / "old.qcow2", guest.path1 / "common"]


def test_snapshot_of_one_that_has_ended_is_refused(guest: Guest) -> None:
    mirror = create(guest)
    mirror.abort()
    with pytest.raises(virmirror.StateError, match="'migrate' has ended"):
        _ = mirror.snapshot


def test_abort_keeps_the_overlay_and_removes_the_mirror(guest: Guest) -> None:
    mirror = create(guest)
    guest.wait_for_writes(50)
    mirror.wait_ready(timeout=30)
    mirror.abort()
    assert guest.chain()[:2] == [guest.path1 / "old.migrate", guest.path1 / "old.qcow2"]
    assert guest.chain(inactive=True)[0] == guest.path1 / "old.migrate"
    assert not (guest.path2 / "new0.qcow2").exists()
    assert not guest.has_journal()
    assert guest.dom.snapshotNum() == 0
    guest.wait_for_writes(50)
    guest.check()


def test_abort_can_be_followed_by_another_migration(guest: Guest) -> None:
    create(guest).abort()
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    spec = f"vda,mirror={guest.path2}/again.qcow2"
    with virmirror.MirrorSnapshot.create(guest.dom, "again", spec) as mirror:
        copy_in_place(guest)
        mirror.wait_ready(timeout=30)
        mirror.pivot()
    shutil.rmtree(guest.path1)
    guest.wait_for_writes(50)
    guest.check()


def test_context_left_by_an_exception_aborts_and_lets_it_go_on(guest: Guest) -> None:
    with pytest.raises(ZeroDivisionError), create(guest):
        1 / 0  # noqa: B018
    assert guest.chain()[0] == guest.path1 / "old.migrate"
    assert not guest.has_journal()


def test_context_left_without_a_pivot_aborts(guest: Guest) -> None:
    with create(guest) as mirror:
        mirror.wait_ready(timeout=30)
    assert mirror.state == "done"
    assert guest.chain()[0] == guest.path1 / "old.migrate"


def test_context_of_a_guest_that_was_destroyed_says_what_is_left(guest: Guest) -> None:
    with pytest.raises(ZeroDivisionError) as caught, create(guest) as mirror:
        guest.dom.destroy()
        1 / 0  # noqa: B018
    assert isinstance(caught.value.__context__, virmirror.StateError)
    assert "not running" in str(caught.value.__context__)
    mirror.detach()


def test_created_files_are_like_their_layer_and_name_their_backing_file_relatively(
    guest: Guest,
) -> None:
    guest.tops[0].chmod(0o640)
    os.chown(guest.tops[0], -1, 4711 if os.geteuid() == 0 else os.getgid())
    mirror = create(guest)
    for path in (guest.path1 / "old.migrate", guest.path2 / "new0.qcow2"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert path.stat().st_gid == guest.tops[0].stat().st_gid
        assert backing_name(path) == "old.qcow2"
    mirror.abort()


def test_disks_not_named_are_left_out(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(disks=2)
    with create(guest) as mirror:
        assert guest.chain("vdb")[0] == guest.path1 / "old2.qcow2"
        assert [disk.target for disk in mirror.disks] == ["vda"]


def test_disk_may_be_named_by_its_source(guest: Guest) -> None:
    virmirror.prepare_chain(guest.dom, str(guest.path1 / "old.qcow2"), guest.path2)
    spec = f"{guest.path1}/old.qcow2,mirror={guest.path2}/new.qcow2"
    with virmirror.MirrorSnapshot.create(guest.dom, "migrate", spec) as mirror:
        assert mirror.disks[0].target == "vda"


def test_transient_domain_is_migrated(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(persistent=False)
    with create(guest) as mirror:
        copy_in_place(guest)
        mirror.wait_ready(timeout=30)
        mirror.pivot()
    guest.wait_for_writes(50)
    assert guest.chain()[0] == guest.path2 / "new0.qcow2"
    guest.check()


def test_paused_guest_is_migrated_and_stays_paused(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(paused=True)
    with create(guest) as mirror:
        copy_in_place(guest)
        mirror.wait_ready(timeout=30)
        mirror.pivot()
    assert guest.dom.state()[0] == libvirt.VIR_DOMAIN_PAUSED


def test_names_with_odd_characters_survive(guest: Guest) -> None:
    folder = guest.path2 / 'a,b "c"'
    folder.mkdir()
    virmirror.prepare_chain(guest.dom, "vda", folder)
    mirror_path = folder / "nü:w,<&>'.qcow2"
    doubled = str(mirror_path).replace(",", ",,")
    overlay = str(guest.path1 / "over,lay:1").replace(",", ",,")
    spec = f"vda,file={overlay},mirror={doubled}"
    with virmirror.MirrorSnapshot.create(guest.dom, "migrate", spec) as mirror:
        for path in folder.iterdir():
            if (guest.path1 / path.name).exists():
                subprocess.run(["cp", str(guest.path1 / path.name), str(path)], check=True)
        mirror.wait_ready(timeout=30)
        mirror.pivot()
    assert guest.chain()[0] == mirror_path
    guest.wait_for_writes(50)
    guest.check()


def test_progress_tells_of_each_disk(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(disks=2)
    with create(guest, disks=2) as mirror:
        guest.wait_for_writes(20)
        mirror.wait_ready(timeout=30)
        progress = mirror.progress()
        assert [disk.target for disk in progress] == ["vda", "vdb"]
        assert all(disk.active and disk.ready for disk in progress)
        assert all(0 < disk.current <= disk.end for disk in progress)


def test_adopted_mirror_is_pivoted_from_its_journal(guest: Guest) -> None:
    create(guest).detach()
    mirror = virmirror.adopt(guest.dom, "migrate")
    assert mirror.disks[0].mirror == str(guest.path2 / "new0.qcow2")
    copy_in_place(guest)
    mirror.wait_ready(timeout=30)
    mirror.pivot()
    assert guest.chain()[0] == guest.path2 / "new0.qcow2"
    guest.check()


def test_ready_that_came_before_the_wait_is_seen_at_once(guest: Guest) -> None:
    with create(guest) as mirror:
        guest.wait_for_writes(20)
        mirror.wait_ready(timeout=30)
        mirror.wait_ready(timeout=30)


def test_second_thread_is_told_that_the_mirror_is_busy(guest: Guest) -> None:
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    for path in (guest.path1 / "old.migrate", guest.path2 / "new.qcow2"):
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "old.qcow2", "-F", "qcow2", path],
            check=True,
        )
    spec = f"vda,file={guest.path1}/old.migrate,mirror={guest.path2}/new.qcow2"
    outcome: list[BaseException] = []

    def wait() -> None:
        try:
            mirror.wait_ready(2)
        except virmirror.MirrorTimeoutError as error:
            outcome.append(error)

    with (
        SlowFile(guest.path2 / "new.qcow2", 192 * 1024),
        virmirror.MirrorSnapshot.create(guest.dom, "migrate", spec, reuse_external=True) as mirror,
    ):
        waiter = threading.Thread(target=wait)
        waiter.start()
        with pytest.raises(virmirror.BusyError):
            while waiter.is_alive():
                mirror.progress()
        waiter.join()
        mirror.abort()
    assert len(outcome) == 1
