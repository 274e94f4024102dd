# SPDX-License-Identifier: LGPL-2.1-or-later
"""The whole migration in one call, on a guest that writes all the time."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator

import libvirt
import pytest

import virmirror
from support import storage
from support.guest import Guest
from virmirror import _core, embed, jobs, layers, migration, testguest

pytestmark = pytest.mark.qemu


def targets_to(guest: Guest) -> dict[str, pathlib.Path]:
    return dict.fromkeys(guest.targets(), guest.path2)


def check_moved(guest: Guest, names: list[list[str]], top_format: str = "qcow2") -> None:
    """All disks are in path2 on files of these names, nothing is left, nothing lost."""
    for target, chain in zip(guest.targets(), names, strict=True):
        assert guest.chain(target) == [guest.path2 / name for name in chain]
        if guest.dom.isPersistent():
            assert guest.chain(target, inactive=True)[0] == guest.path2 / chain[0]
        assert not guest.dom.blockJobInfo(target)
    assert sorted(path.name for path in guest.path2.iterdir()) == sorted(
        {name for chain in names for name in chain}
    )
    assert not guest.has_journal()
    assert guest.dom.snapshotNum() == 0
    assert virmirror.unfinished(guest.dom) is None
    shutil.rmtree(guest.path1)
    guest.wait_for_writes()
    guest.check(image_format=top_format)


def check_untouched(guest: Guest, before: dict[str, object]) -> None:
    """Everything is as it was ``before``, and the guest goes on."""
    with guest.resting():
        after = guest.state()
    assert after.pop("files").keys() == before.pop("files").keys()  # type: ignore[attr-defined]
    assert after == before
    assert virmirror.unfinished(guest.dom) is None
    guest.wait_for_writes()
    guest.check()


def test_migrate_one_disk_keeps_the_names(guest: Guest) -> None:
    report = virmirror.migrate(guest.dom, {"vda": guest.path2})
    (disk,) = report.disks
    assert disk.before == (str(guest.path1 / "old.qcow2"), str(guest.path1 / "common"))
    assert disk.after == (str(guest.path2 / "old.qcow2"), str(guest.path2 / "common"))
    assert disk.collapse == "commit"
    assert report.pause is not None and 0 < report.pause < 2
    assert [phase.name for phase in report.phases] == [
        "prepare",
        "mirror",
        "copy",
        "cut-over",
        "collapse",
        "clean",
    ]
    check_moved(guest, [["old.qcow2", "common"]])


def test_migrate_three_disks_moves_all(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(disks=3)
    virmirror.migrate(guest.dom, targets_to(guest))
    names = [["old.qcow2", "common"], ["old2.qcow2", "common2"], ["old3.qcow2", "common3"]]
    check_moved(guest, names)


@pytest.mark.parametrize("layers", [1, 5])
@pytest.mark.parametrize("base_format", ["raw", "qcow2"])
def test_migrate_chain_of_any_depth_moves_it(
    make_guest: Callable[..., Guest], layers: int, base_format: str
) -> None:
    guest = make_guest(layers=layers, base_format=base_format)
    names = [path.name for path in guest.chain()]
    virmirror.migrate(guest.dom, {"vda": guest.path2})
    check_moved(guest, [names], base_format if layers == 1 else "qcow2")


def test_migrate_transient_guest_moves_it(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(persistent=False)
    virmirror.migrate(guest.dom, {"vda": guest.path2})
    check_moved(guest, [["old.qcow2", "common"]])


def test_migrate_paused_guest_leaves_it_paused(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(paused=True)
    report = virmirror.migrate(guest.dom, {"vda": guest.path2})
    assert report.pause == 0
    assert guest.dom.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    guest.dom.resume()
    check_moved(guest, [["old.qcow2", "common"]])


def test_migrate_absolute_backing_name_becomes_relative(guest: Guest) -> None:
    old, common = guest.path1 / "old.qcow2", guest.path1 / "common"
    guest.dom.destroy()
    rebase = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", common, old]
    subprocess.run(rebase, check=True)
    guest.serial.write_bytes(b"")
    guest.dom.create()
    guest.wait_for_writes(20)
    virmirror.migrate(guest.dom, {"vda": guest.path2})
    info = subprocess.check_output(["qemu-img", "info", "-U", guest.path2 / "old.qcow2"], text=True)
    assert "backing file: common" in info
    check_moved(guest, [["old.qcow2", "common"]])


def test_migrate_by_pull_goes_on_with_the_new_top(guest: Guest) -> None:
    report = virmirror.migrate(guest.dom, {"vda": guest.path2}, name="fresh", collapse="pull")
    assert report.removed == (str(guest.path2 / "old.qcow2"),)
    check_moved(guest, [["old.fresh", "common"]])


def test_migrate_without_collapse_leaves_the_chain_longer(guest: Guest) -> None:
    virmirror.migrate(guest.dom, {"vda": guest.path2}, name="fresh", collapse="none")
    check_moved(guest, [["old.fresh", "old.qcow2", "common"]])


def test_migrate_auto_pulls_where_that_writes_less(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "_NAMES_ARE_WORTH", 0)
    big = guest.path1 / "big"
    guest.dom.destroy()
    # a top that holds nothing yet, and a guest that fills its overlay meanwhile
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "old.qcow2"]
    subprocess.run([*command, big], check=True)
    text = guest.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace("old.qcow2", "big")
    guest.dom.connect().defineXML(text)
    guest.serial.write_bytes(b"")
    guest.dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    guest.layers = 3

    def resume(progress: virmirror.Progress) -> None:
        if progress.phase == "cut-over" and guest.dom.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
            guest.dom.resume()
            guest.wait_for_writes(300)

    report = virmirror.migrate(guest.dom, {"vda": guest.path2}, name="fresh", on_progress=resume)
    assert report.disks[0].collapse == "pull"
    assert guest.chain()[0] == guest.path2 / "big.fresh"


def test_migrate_remove_source_removes_the_top_only(guest: Guest) -> None:
    report = virmirror.migrate(guest.dom, {"vda": guest.path2}, remove_source=True)
    assert str(guest.path1 / "old.qcow2") in report.removed
    assert [path.name for path in guest.path1.iterdir()] == ["common"]
    check_moved(guest, [["old.qcow2", "common"]])


def test_plan_changes_nothing_and_survives_json_and_pickle(guest: Guest) -> None:
    with guest.resting():
        before = guest.state()
        plan = virmirror.plan(guest.dom, {"vda": guest.path2}, collapse="pull", bandwidth=50e6)
        assert guest.state() == before
        sizes = [path.stat().st_blocks * 512 for path in guest.path1.iterdir()]
    assert virmirror.Plan.from_json(plan.to_json()) == plan
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert plan.bytes_to_copy == sum(sizes)
    (disk,) = plan.disks
    assert [layer.source for layer in disk.layers] == [
        str(guest.path1 / "old.qcow2"),
        str(guest.path1 / "common"),
    ]


def test_run_opens_its_own_connection_and_returns_its_report_again(guest: Guest) -> None:
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    report = virmirror.run(plan)
    assert virmirror.run(plan) == report
    assert virmirror.Report.from_json(report.to_json()) == report
    check_moved(guest, [["old.qcow2", "common"]])


def test_copies_have_the_checksums_of_their_sources(guest: Guest) -> None:
    report = virmirror.migrate(guest.dom, {"vda": guest.path2}, verify=True)
    sums = {layer.source: layer.checksum for layer in report.layers}
    assert sums[str(guest.path1 / "common")] == virmirror.checksum(guest.path2 / "common")
    assert sums[str(guest.path1 / "old.qcow2")] == virmirror.checksum(guest.path1 / "old.qcow2")


@pytest.mark.parametrize("phase", ["prepare", "mirror", "copy", "cut-over"])
def test_exception_before_the_cut_over_leaves_everything_as_it_was(
    guest: Guest, phase: str
) -> None:
    with guest.resting():
        before = guest.state()

    def fail(progress: virmirror.Progress) -> None:
        if progress.phase == phase:
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more") as caught:
        virmirror.migrate(guest.dom, {"vda": guest.path2}, on_progress=fail)
    assert caught.value.__notes__ == ["the migration was undone: the guest is where it was before"]
    check_untouched(guest, before)


def leave_in(phase: str, plan: virmirror.Plan) -> None:
    """Run a plan until it comes to ``phase``, and no further."""

    def fail(progress: virmirror.Progress) -> None:
        if progress.phase == phase:
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        virmirror.run(plan, on_progress=fail)


@pytest.mark.parametrize("phase", ["collapse", "clean"])
def test_exception_after_the_cut_over_leaves_the_rest_to_the_next_run(
    guest: Guest, phase: str
) -> None:
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    leave_in(phase, plan)
    assert virmirror.unfinished(guest.dom) == plan
    with pytest.raises(virmirror.BusyError, match="unfinished"):
        virmirror.plan(guest.dom, {"vda": guest.path1})
    with pytest.raises(virmirror.StateError, match="on the new storage already"):
        virmirror.undo(plan)
    report = virmirror.run(plan)
    assert report.disks[0].collapse == "commit"
    check_moved(guest, [["old.qcow2", "common"]])


def test_migrate_there_and_back_again_needs_no_copy_of_the_base(guest: Guest) -> None:
    virmirror.migrate(guest.dom, {"vda": guest.path2})
    (guest.path1 / "old.qcow2").unlink()
    report = virmirror.migrate(guest.dom, {"vda": guest.path1})
    layers = {os.path.basename(layer.destination): layer for layer in report.layers}
    assert layers["common"].method == "none"  # by its content: nobody marked it
    assert layers["common"].copied == 0
    assert layers["old.qcow2"].copied > 0
    assert guest.chain() == [guest.path1 / "old.qcow2", guest.path1 / "common"]
    guest.wait_for_writes()
    guest.check()


def test_base_of_the_same_name_and_other_content_is_an_error(guest: Guest) -> None:
    shutil.copyfile(guest.path1 / "common", guest.path2 / "common")
    with (guest.path2 / "common").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    content = (guest.path2 / "common").read_bytes()
    with pytest.raises(virmirror.ExistsError, match="is not the same as"):
        virmirror.migrate(guest.dom, {"vda": guest.path2})
    assert (guest.path2 / "common").read_bytes() == content
    assert [path.name for path in guest.path2.iterdir()] == ["common"]
    guest.wait_for_writes()
    guest.check()


def test_all_findings_come_at_once(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(disks=2)
    (guest.path2 / "old.qcow2").touch()
    with pytest.raises(virmirror.SpecError) as caught:
        virmirror.plan(
            guest.dom, {"vda": guest.path2, "vdb": "/no/such/folder", "vdz": guest.path2}
        )
    text = str(caught.value)
    for words in ("old.qcow2' is there already", "/no/such/folder", "no disk 'vdz'"):
        assert words in text


@pytest.fixture
def twins(host: embed.Host, tmp_path: pathlib.Path) -> Iterator[list[libvirt.virDomain]]:
    """Two guests on one base in ``path1``, each with a top of its own."""
    path1 = tmp_path / "path1"
    path1.mkdir()
    (tmp_path / "path2").mkdir()
    _, first = testguest.make_chain(path1, ["common", "first.qcow2"], data=24 * testguest.MIB)
    second = path1 / "second.qcow2"
    shutil.copyfile(first, second)
    doms = [
        host.start(testguest.domain_xml(top.stem, [top], tmp_path / f"{top.stem}.serial"))
        for top in (first, second)
    ]
    yield doms
    for dom in doms:
        if dom.isActive():
            dom.destroy()
        dom.undefine()


@pytest.mark.parametrize("at_once", [False, True])
def test_two_guests_on_one_base_copy_it_once(
    twins: list[libvirt.virDomain], tmp_path: pathlib.Path, at_once: bool
) -> None:
    path2 = tmp_path / "path2"
    with concurrent.futures.ThreadPoolExecutor(2 if at_once else 1) as pool:
        reports = list(pool.map(lambda dom: virmirror.migrate(dom, {"vda": path2}), twins))
    copies = [
        layer
        for report in reports
        for layer in report.layers
        if layer.destination == str(path2 / "common")
    ]
    assert sorted(layer.method == "none" for layer in copies) == [False, True]
    assert sorted(path.name for path in path2.iterdir()) == [
        "common",
        "first.qcow2",
        "second.qcow2",
    ]
    shutil.rmtree(tmp_path / "path1")
    for dom in twins:
        serial = tmp_path / f"{dom.name()}.serial"
        testguest.wait_for_writes(serial, 20)
        dom.destroy()
        testguest.check(path2 / f"{dom.name()}.qcow2", serial)


def test_base_that_was_completed_and_taken_into_use_meanwhile_is_used(
    twins: list[libvirt.virDomain], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path2 = tmp_path / "path2"
    one, other = twins
    virmirror.migrate(other, {"vda": path2})
    # what was seen before the other migration had copied it, and its guest run on it
    judge = layers.Store._is_filled
    seen: list[str] = []

    def judge_late(store: layers.Store, layer: virmirror.LayerPlan, fd: int) -> bool:
        seen.append(layer.destination)
        return judge(store, layer, fd) if len(seen) > 1 else False

    monkeypatch.setattr(layers.Store, "_is_filled", judge_late)
    report = virmirror.migrate(one, {"vda": path2})
    assert seen[:2] == [str(path2 / "common")] * 2
    assert {layer.method for layer in report.layers if layer.destination == seen[0]} == {"none"}


def move_by_steps(dom: libvirt.virDomain, folder: pathlib.Path, *copied: str) -> None:
    """Move a disk as README does it; the other copies are there."""
    virmirror.prepare_chain(dom, "vda", folder)
    with virmirror.MirrorSnapshot.create(dom, "move", f"vda,mirror={folder}/new") as mirror:
        for name in copied:
            virmirror.copy(folder.parent / "path1" / name, folder / name, overwrite=True)
        mirror.wait_ready(timeout=60)
        mirror.pivot()
    virmirror.block_commit(dom, "vda")
    (folder / "new").unlink()


MOVES: dict[str, Callable[[libvirt.virDomain, pathlib.Path], object]] = {
    "migrate": lambda dom, folder: virmirror.migrate(dom, {"vda": folder}),
    "steps": lambda dom, folder: move_by_steps(dom, folder, "common", "second.qcow2"),
    "fewer steps": lambda dom, folder: move_by_steps(dom, folder, "second.qcow2"),
}


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("move", MOVES)
def test_undo_leaves_the_base_to_the_guest_that_uses_it(
    twins: list[libvirt.virDomain], tmp_path: pathlib.Path, runs: bool, move: str
) -> None:
    path2 = tmp_path / "path2"
    one, other = twins

    def fail_late(progress: virmirror.Progress) -> None:
        if progress.phase == "copy":
            # the other guest has moved onto the base that this migration has copied
            MOVES[move](other, path2)
            testguest.wait_for_writes(tmp_path / "second.serial", 20)
            if not runs:
                other.destroy()
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        virmirror.migrate(one, {"vda": path2}, on_progress=fail_late)
    assert sorted(path.name for path in path2.iterdir()) == ["common", "second.qcow2"]
    if runs:
        other.destroy()
    testguest.check(path2 / "second.qcow2", tmp_path / "second.serial")


@pytest.fixture
def small(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder on a file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    with storage.tmpfs(folder, 8 * testguest.MIB):
        yield folder


def test_new_storage_without_attributes_is_refused(guest: Guest, tmp_path: pathlib.Path) -> None:
    """After a crash nobody could tell there what is complete."""
    folder = tmp_path / "plain"
    folder.mkdir()
    with storage.ramfs(folder):
        with pytest.raises(virmirror.NotSupportedError, match="extended attributes"):
            virmirror.plan(guest.dom, {"vda": folder})


def test_chain_that_somebody_else_has_shortened_is_finished(guest: Guest) -> None:
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    leave_in("collapse", plan)
    virmirror.block_commit(guest.dom, "vda")
    report = virmirror.run(plan)
    assert report.disks[0].collapse == "none"
    check_moved(guest, [["old.qcow2", "common"]])


def test_disk_that_was_taken_away_meanwhile_keeps_its_files(
    make_guest: Callable[..., Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = make_guest(disks=2)
    plan = virmirror.plan(guest.dom, targets_to(guest), name="fresh", remove_source=True)
    leave_in("collapse", plan)
    # the guest's kernel would have to let go of it, and there is none
    chains = _core._disk_chains
    monkeypatch.setattr(
        _core, "_disk_chains", lambda dom: {"vda": chains(dom)["vda"]}, raising=True
    )
    report = virmirror.run(plan)
    second = plan.disks[1]
    new = {layer.destination for layer in second.layers} | {second.mirror}
    assert new <= set(report.left)
    assert all(os.path.exists(path) for path in (*new, second.layers[0].source))
    assert report.disks[1].after == ()
    assert virmirror.unfinished(guest.dom) is None
    assert guest.chain() == [guest.path2 / "old.qcow2", guest.path2 / "common"]
    guest.wait_for_writes()


def test_pull_that_runs_already_is_gone_on_with(guest: Guest) -> None:
    plan = virmirror.plan(guest.dom, {"vda": guest.path2}, name="fresh", collapse="pull")
    leave_in("collapse", plan)
    base = guest.path2 / "common"
    virmirror.block_pull(guest.dom, "vda", base, bandwidth=testguest.MIB // 4, wait=False)
    assert guest.dom.blockJobInfo("vda")
    guest.dom.blockJobSetSpeed("vda", 0)
    virmirror.run(plan)
    check_moved(guest, [["old.fresh", "common"]])


def test_tops_of_an_earlier_run_are_not_taken_for_those_of_this_one(guest: Guest) -> None:
    plan = virmirror.plan(guest.dom, {"vda": guest.path2})
    tops = (plan.disks[0].overlay, plan.disks[0].mirror)
    with contextlib.closing(jobs.Job.open(plan)) as job:
        job.save(created=tuple(jobs.Created(path, 1, 2, 3) for path in tops))
    virmirror.run(plan)
    check_moved(guest, [["old.qcow2", "common"]])


def test_file_that_only_the_definition_names_is_left_first(guest: Guest) -> None:
    old, gone = guest.path1 / "old.qcow2", guest.path1 / "gone"
    text = guest.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace(str(old), str(gone))
    guest.dom.connect().defineXML(text)
    assert guest.chain(inactive=True)[0] == gone
    _core._leave_file(guest.dom, gone)
    assert guest.chain(inactive=True)[0] == old
    with pytest.raises(virmirror.StateError, match="is wanted by disk 'vda'"):
        _core._leave_file(guest.dom, old)


def test_new_storage_without_room_is_found_before_anything_is_done(
    make_guest: Callable[..., Guest], small: pathlib.Path
) -> None:
    guest = make_guest(data=16 * testguest.MIB)
    with pytest.raises(virmirror.StorageError, match="bytes free"):
        virmirror.plan(guest.dom, {"vda": small})
    assert list(small.iterdir()) == []


def fill_up_in(phase: str, folder: pathlib.Path) -> Callable[[virmirror.Progress], None]:
    """Have the file system of a folder run full when a migration comes to that phase."""

    def on_progress(progress: virmirror.Progress) -> None:
        if progress.phase == phase and progress.path is None:
            storage.fill_up(folder)

    return on_progress


@pytest.mark.parametrize("phase", ["prepare", "mirror", "copy"])
def test_new_storage_that_runs_full_has_all_undone(
    guest: Guest, small: pathlib.Path, phase: str
) -> None:
    with guest.resting():
        before = guest.state()
    with pytest.raises(virmirror.MirrorError) as caught:
        virmirror.migrate(guest.dom, {"vda": small}, on_progress=fill_up_in(phase, small))
    assert "the migration was undone: the guest is where it was before" in caught.value.__notes__
    assert [path.name for path in small.iterdir()] == ["filler"]
    check_untouched(guest, before)


def test_new_storage_that_runs_full_after_the_cut_over_loses_nothing(
    guest: Guest, small: pathlib.Path
) -> None:
    plan = virmirror.plan(guest.dom, {"vda": small})
    # what the commit writes may lie in clusters that are there already
    with contextlib.suppress(virmirror.MirrorError):
        virmirror.run(plan, on_progress=fill_up_in("collapse", small))
    (small / "filler").unlink()
    if guest.dom.state()[0] == libvirt.VIR_DOMAIN_PAUSED:  # by QEMU, until there is room
        guest.dom.resume()
    virmirror.run(plan)
    assert guest.chain() == [small / "old.qcow2", small / "common"]
    assert virmirror.unfinished(guest.dom) is None
    guest.wait_for_writes()
    guest.check()


def test_copy_that_is_in_use_by_a_guest_is_never_removed(guest: Guest) -> None:
    """A file that a QEMU only reads from: the base that a guest runs on."""
    base = guest.path1 / "common"
    status = base.stat()
    with pytest.raises(virmirror.BusyError, match="a QEMU has it open"):
        _core._remove_file(base, status.st_dev, status.st_ino, 0)
    assert base.exists()
