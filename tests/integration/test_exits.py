# SPDX-License-Identifier: LGPL-2.1-or-later
"""From wherever a migration was left there is a way: forward, back, or to forget it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import libvirt
import pytest

import virmirror
from support import storage
from support.guest import Guest
from virmirror import embed, jobs, migration, testguest

pytestmark = pytest.mark.qemu

DISKS_ONLY = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
)


class Died(BaseException):
    """As if the process had been killed: nothing is undone."""


def die_in(
    phase: str, plan: virmirror.Plan, monkeypatch: pytest.MonkeyPatch, *, copying: bool = False
) -> None:
    """Run a plan until it comes to ``phase`` (or copies in it), and leave all as it is then."""

    def die(progress: virmirror.Progress) -> None:
        if progress.phase == phase and (progress.path is not None or not copying):
            raise Died

    def leave(run: migration._Migration, error: BaseException) -> None:
        if run._mirror is not None:
            run._mirror.detach()

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(migration._Migration, "_give_up", leave)
        virmirror.run(plan, on_progress=die)
    assert virmirror.unfinished(plan_domain(plan)) == plan


def plan_domain(plan: virmirror.Plan) -> libvirt.virDomain:
    return embed.connection(plan.uri).lookupByUUIDString(plan.uuid)


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def check_on_old_side(guest: Guest) -> None:
    """The guest is where it was, has lost nothing, and nothing is left of the migration."""
    assert guest.chain() == [guest.path1 / "old.qcow2", guest.path1 / "common"]
    assert guest.chain(inactive=True)[0] == guest.path1 / "old.qcow2"
    assert names(guest.path1) == ["common", "old.qcow2"]
    assert names(guest.path2) == []
    assert not guest.has_journal()
    assert virmirror.unfinished(guest.dom) is None
    guest.wait_for_writes()
    guest.check()


def check_on_new_side(guest: Guest) -> None:
    assert guest.chain() == [guest.path2 / "old.qcow2", guest.path2 / "common"]
    assert virmirror.unfinished(guest.dom) is None
    shutil.rmtree(guest.path1)
    guest.wait_for_writes()
    guest.check()


def test_plan_that_is_run_after_two_other_moves_is_refused_and_leaves_nothing(
    guest: Guest, tmp_path: pathlib.Path
) -> None:
    third = tmp_path / "path3"
    third.mkdir()
    stale = virmirror.plan(guest.dom, {"vda": guest.path2})
    virmirror.migrate(guest.dom, {"vda": third})
    (guest.path1 / "old.qcow2").unlink()
    virmirror.migrate(guest.dom, {"vda": guest.path1})
    (third / "old.qcow2").unlink()
    virmirror.migrate(guest.dom, {"vda": third}, name="again")
    with pytest.raises(virmirror.DivergedError):
        virmirror.run(stale)
    assert names(guest.path2) == []
    assert virmirror.unfinished(guest.dom) is None
    virmirror.migrate(guest.dom, {"vda": guest.path2})
    check_on_new_side(guest)


@pytest.mark.parametrize("way", ["undo", "forget"])
def test_disk_that_somebody_else_has_moved_meanwhile_is_undone_or_forgotten(
    guest: Guest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    third = tmp_path / "path3"
    third.mkdir()
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    die_in("mirror", plan, monkeypatch)
    # by somebody who keeps his records elsewhere
    with monkeypatch.context() as patch:
        patch.setenv("VIRMIRROR_STATE_DIR", str(tmp_path / "other"))
        virmirror.migrate(guest.dom, {"vda": third}, name="theirs")
    with pytest.raises(virmirror.DivergedError, match="you can undo it or forget it"):
        virmirror.run(plan)
    if way == "undo":
        virmirror.undo(plan)
        assert names(guest.path2) == []
    else:
        forgotten = virmirror.forget(plan)
        (disk,) = forgotten.disks
        assert (disk.target, disk.side) == ("vda", "elsewhere")
        assert disk.chain == (str(third / "old.qcow2"), str(third / "common"))
        assert forgotten.used == ()
        assert sorted(forgotten.left) == [
            str(guest.path2 / name) for name in ("common", "old.qcow2")
        ]
        for path in forgotten.left:
            os.unlink(path)
    assert virmirror.unfinished(guest.dom) is None
    virmirror.migrate(guest.dom, {"vda": guest.path2}, name="new")
    check_on_new_side(guest)


@pytest.mark.parametrize("again", [False, True])
def test_foreign_snapshot_during_prepare_is_undone(guest: Guest, again: bool) -> None:
    foreign = guest.path1 / "foreign"
    xml = (
        "<domainsnapshot><name>foreign</name><disks><disk name='vda' snapshot='external'>"
        f"<source file='{foreign}'/></disk></disks></domainsnapshot>"
    )

    def snapshot(progress: virmirror.Progress) -> None:
        if progress.phase == "prepare" and progress.path and not foreign.exists():
            guest.dom.snapshotCreateXML(xml, DISKS_ONLY)

    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    with pytest.raises(virmirror.MirrorError) as caught:
        virmirror.run(plan, on_progress=snapshot)
    assert caught.value.__notes__ == ["the migration was undone: the guest is where it was before"]
    assert guest.chain()[0] == foreign
    assert names(guest.path2) == []
    assert virmirror.unfinished(guest.dom) is None
    if again:
        virmirror.migrate(guest.dom, {"vda": guest.path2})
        assert guest.chain()[0] == guest.path2 / "foreign"
    guest.wait_for_writes()
    guest.check()


COLONS = ["ubuntu:22.04.img", "vm:1.qcow2"]


@pytest.fixture
def colon_guest(host: embed.Host, tmp_path: pathlib.Path) -> Iterator[Guest]:
    """A guest on a base whose name has a colon, as clouds ship them, and so has its top."""
    guest = Guest.__new__(Guest)
    guest.path1, guest.path2 = tmp_path / "path1", tmp_path / "path2"
    guest.path1.mkdir()
    guest.path2.mkdir()
    guest.serial, guest.layers = tmp_path / "serial", 2
    base, top = (guest.path1 / name for name in COLONS)
    testguest.make_chain(guest.path1, ["plain", "top"])
    (guest.path1 / "plain").rename(base)
    (guest.path1 / "top").rename(top)
    rebase = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", f"./{base.name}"]
    subprocess.run([*rebase, top], check=True)
    guest.tops = [top]
    guest.dom = host.start(testguest.domain_xml("colon", [top], guest.serial))
    guest.wait_for_writes(20)
    yield guest
    guest.end()


def check_colons(guest: Guest, folder: pathlib.Path) -> None:
    """The guest is in ``folder``, has lost nothing, and nothing is left."""
    assert [os.path.normpath(path) for path in guest.chain()] == [
        str(folder / name) for name in reversed(COLONS)
    ]
    assert os.path.normpath(guest.chain(inactive=True)[0]) == str(folder / COLONS[1])
    assert names(folder) == COLONS
    assert virmirror.unfinished(guest.dom) is None
    assert not guest.has_journal()
    guest.wait_for_writes()
    guest.check(folder / COLONS[1])


def test_names_with_a_colon_are_moved(colon_guest: Guest) -> None:
    report = virmirror.migrate(colon_guest.dom, {"vda": colon_guest.path2})
    assert report.disks[0].after == tuple(
        str(colon_guest.path2 / name) for name in reversed(COLONS)
    )
    assert report.left == ()
    shutil.rmtree(colon_guest.path1)
    check_colons(colon_guest, colon_guest.path2)


@pytest.mark.parametrize("way", ["run", "undo"])
@pytest.mark.parametrize("phase", ["mirror", "copy", "cut-over", "collapse", "clean"])
def test_names_with_a_colon_are_gone_on_with(
    colon_guest: Guest, monkeypatch: pytest.MonkeyPatch, phase: str, way: str
) -> None:
    guest = colon_guest
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    die_in(phase, plan, monkeypatch)
    if way == "undo" and phase not in ("collapse", "clean"):
        virmirror.undo(plan)
        check_colons(guest, guest.path1)
    else:
        virmirror.run(plan)
        check_colons(guest, guest.path2)


def test_names_with_a_colon_are_undone_while_the_guest_is_off(
    colon_guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = colon_guest
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    die_in("copy", plan, monkeypatch)
    guest.dom.destroy()
    assert virmirror.undo(plan) == ()
    start_again(guest)
    check_colons(guest, guest.path1)


@pytest.mark.parametrize("phase", ["prepare", "mirror", "copy"])
def test_target_that_gets_read_only_is_told_and_undone(guest: Guest, phase: str) -> None:
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    with contextlib.ExitStack() as stack:

        def on_progress(progress: virmirror.Progress) -> None:
            if progress.phase == phase and progress.path is None:
                stack.enter_context(storage.read_only(guest.path2))

        with pytest.raises(virmirror.MirrorError, match="Read-only file system"):
            virmirror.run(plan, on_progress=on_progress)
    # what could not be removed then can be now
    if virmirror.unfinished(guest.dom) is not None:
        virmirror.undo(plan)
    for path in guest.path2.iterdir():
        path.unlink()
    check_on_old_side(guest)


def test_target_folder_that_vanishes_is_told_with_its_path(
    guest: Guest, tmp_path: pathlib.Path
) -> None:
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    guest.path2.rename(tmp_path / "away")
    with pytest.raises(virmirror.MirrorError, match=str(guest.path2)) as caught:
        virmirror.run(plan)
    assert "No such file" in str(caught.value)
    assert virmirror.unfinished(guest.dom) is None
    guest.path2.mkdir()
    check_on_old_side(guest)


def test_own_exception_of_the_caller_stays_what_it_is(guest: Guest) -> None:
    def fail(progress: virmirror.Progress) -> None:
        raise BrokenPipeError(32, "nobody listens")

    with pytest.raises(BrokenPipeError, match="nobody listens"):
        virmirror.migrate(guest.dom, {"vda": guest.path2}, on_progress=fail)
    check_on_old_side(guest)


def start_again(guest: Guest) -> None:
    """Start the guest again, whose writer begins anew, until it has gone once around its
    ring: nothing is left there of the run before."""
    guest.serial.write_bytes(b"")
    guest.dom.create()
    guest.wait_for_writes(300)


@pytest.mark.parametrize("way", ["run", "undo", "undo off"])
@pytest.mark.parametrize("phase", ["mirror", "copy", "cut-over"])
def test_guest_that_was_destroyed_before_the_cut_over_is_moved_or_undone(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, phase: str, way: str
) -> None:
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    die_in(phase, plan, monkeypatch)
    guest.dom.destroy()
    if way == "undo off":
        assert virmirror.undo(plan) == ()
        assert guest.chain(inactive=True)[0] == guest.path1 / "old.qcow2"
        assert names(guest.path1) == ["common", "old.qcow2"]
        guest.check(guest.path1 / "old.qcow2")  # with what it wrote to the overlay
        start_again(guest)
        check_on_old_side(guest)
        return
    with pytest.raises(virmirror.StateError, match="does not run"):
        virmirror.run(plan)
    start_again(guest)
    if way == "run":
        virmirror.run(plan)
        check_on_new_side(guest)
    else:
        virmirror.undo(plan)
        check_on_old_side(guest)


def test_guest_that_is_destroyed_while_its_layer_is_copied_is_undone_at_once(
    guest: Guest,
) -> None:
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})

    def destroy(progress: virmirror.Progress) -> None:
        if progress.phase == "copy" and progress.path and guest.dom.isActive():
            guest.dom.destroy()

    with pytest.raises(virmirror.MirrorError) as caught:
        virmirror.run(plan, on_progress=destroy)
    assert caught.value.__notes__ == ["the migration was undone: the guest is where it was before"]
    guest.check(guest.path1 / "old.qcow2")
    start_again(guest)
    check_on_old_side(guest)


@pytest.mark.parametrize("way", ["undo", "forget"])
def test_transient_guest_that_has_ended_is_cleaned_up_or_forgotten(
    make_guest: Callable[..., Guest], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    guest = make_guest(persistent=False)
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    die_in("copy", plan, monkeypatch)
    overlay = pathlib.Path(plan.disks[0].overlay)
    guest.dom.destroy()
    with pytest.raises(virmirror.NotFoundError, match="you can undo it or forget it"):
        virmirror.run(plan)
    if way == "undo":
        assert virmirror.undo(plan) == (str(overlay),)
        assert names(guest.path2) == []
    else:
        forgotten = virmirror.forget(plan)
        assert forgotten.disks[0].side == "gone"
        assert str(overlay) in forgotten.left
    with pytest.raises(virmirror.NotFoundError):
        virmirror.forget(plan)
    # what the guest has written is in the overlay, which stays
    writes = testguest.check(overlay, guest.serial)
    assert writes.reported > 20


def test_forget_is_refused_while_the_mirrors_run(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    die_in("copy", plan, monkeypatch)
    with pytest.raises(virmirror.StateError, match="you can run it again or undo it"):
        virmirror.forget(plan)
    virmirror.undo(plan)
    check_on_old_side(guest)


def test_disk_that_was_not_pivoted_with_the_others_is_moved_by_the_next_run(
    make_guest: Callable[..., Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = make_guest(disks=2)
    plan = virmirror.plan(guest.dom, dict.fromkeys(guest.targets(), guest.path2))
    die_in("cut-over", plan, monkeypatch)
    mirror = virmirror.adopt(guest.dom, plan.name)
    mirror.wait_ready(timeout=60)
    mirror.detach()
    guest.dom.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    virmirror.recover(guest.dom, "abort")
    assert guest.chain("vda")[0].parent == guest.path2
    assert guest.chain("vdb")[0].parent == guest.path1
    with pytest.raises(virmirror.StateError, match="you can run it again or forget it"):
        virmirror.undo(plan)
    virmirror.run(plan)
    assert guest.chain("vda") == [guest.path2 / "old.qcow2", guest.path2 / "common"]
    assert guest.chain("vdb") == [guest.path2 / "old2.qcow2", guest.path2 / "common2"]
    assert virmirror.unfinished(guest.dom) is None
    shutil.rmtree(guest.path1)
    guest.wait_for_writes()
    guest.check()


def test_snapshot_whose_disks_somebody_else_has_changed_can_be_forgotten(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    die_in("copy", plan, monkeypatch)
    guest.dom.blockJobAbort("vda")
    subprocess.run(["sync"], check=True)
    end = time.monotonic() + 20
    while guest.dom.blockJobInfo("vda") and time.monotonic() < end:
        time.sleep(0.05)
    guest.dom.snapshotCreateXML("<domainsnapshot><name>theirs</name></domainsnapshot>", DISKS_ONLY)
    with pytest.raises(virmirror.DivergedError):
        virmirror.run(plan)
    forgotten = virmirror.forget(plan)
    assert forgotten.disks[0].side == "old"
    assert plan.disks[0].overlay in forgotten.used
    assert not guest.has_journal()
    assert virmirror.unfinished(guest.dom) is None
    guest.wait_for_writes()
    guest.check()


def test_run_of_another_process_is_told_and_left_alone(guest: Guest) -> None:
    """While it runs, inspect says so, and recover keeps its hands off."""
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    seen: list[str] = []
    code = (
        "import sys, virmirror\nfrom virmirror import jobs\n"
        "try:\n    jobs.Job.open(virmirror.Plan.from_json(sys.stdin.read()))\n"
        "except virmirror.BusyError as error:\n    print(error)\n"
    )

    def look(progress: virmirror.Progress) -> None:
        if progress.phase == "cut-over":
            found = virmirror.inspect(guest.dom)
            assert found.running_pid == os.getpid()
            with pytest.raises(virmirror.BusyError, match=f"process {os.getpid()} is at work"):
                virmirror.recover(guest.dom, "abort")
            other = {**os.environ, "VIRMIRROR_STATE_DIR": str(guest.path1.parent / "state")}
            command = [sys.executable, "-c", code]
            told = subprocess.run(
                command, input=plan.to_json(), env=other, capture_output=True, text=True, check=True
            )
            seen.append(told.stdout)

    virmirror.run(plan, on_progress=look)
    assert f"process {os.getpid()} is at work" in seen[0]
    assert virmirror.inspect(guest.dom).running_pid is None
    check_on_new_side(guest)


def test_child_that_is_forked_meanwhile_undoes_nothing(guest: Guest) -> None:
    """Its copy of the run ends with it: the migration is the parent's."""
    ends: list[int] = []

    def fork(progress: virmirror.Progress) -> None:
        if progress.phase != "copy" or ends:
            return
        pid = os.fork()
        if pid == 0:
            raise Died  # goes up through the run, as an exception of a child would
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    parent = os.getpid()
    try:
        virmirror.migrate(guest.dom, {"vda": guest.path2}, on_progress=fork)
    except Died:
        if os.getpid() != parent:
            os._exit(17)
        raise
    assert ends == [17]
    check_on_new_side(guest)


def test_record_of_a_domain_that_is_gone_is_found_by_its_plan(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    die_in("mirror", plan, monkeypatch)
    guest.dom.destroy()
    guest.dom.undefine()
    with contextlib.closing(jobs.Job.open(plan)) as job:
        assert not job.is_new()
    assert virmirror.undo(plan) == ()
    assert names(guest.path2) == []


@pytest.mark.parametrize("phase", ["prepare", "copy"])
def test_run_that_takes_longer_than_it_may_is_undone(
    make_guest: Callable[..., Guest], phase: str
) -> None:
    options = (
        {"data": 16 * testguest.MIB} if phase == "prepare" else {"top_data": 16 * testguest.MIB}
    )
    guest = make_guest(**options)
    plan = virmirror.plan(guest.dom, {"vda": guest.path2}, bandwidth=testguest.MIB / 2)
    phases: list[str] = []
    start = time.monotonic()
    with pytest.raises(virmirror.MirrorTimeoutError) as caught:
        virmirror.run(plan, timeout=4, on_progress=lambda now: phases.append(now.phase))
    assert phases[-1] == phase
    assert time.monotonic() - start < 25
    assert caught.value.__notes__ == ["the migration was undone: the guest is where it was before"]
    check_on_old_side(guest)
