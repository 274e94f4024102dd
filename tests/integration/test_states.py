# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of verdicts in ``docs/internals/states.rst``, row by row.

Each row has a scenario below that brings it about, on a real libvirtd and QEMU. What
only the death of libvirt at a bad moment leaves is made while it is not there: by
QEMU's monitor, and in the file in which libvirt keeps what it knows of a guest.
"""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import libvirt
import pytest

import virmirror
from support import qemu
from support.daemon import Daemon
from support.guest import JOURNAL, Guest
from support.patience import PATIENCE
from support.storage import is_written_to

pytestmark = pytest.mark.qemu

STATES = pathlib.Path(__file__).parents[2] / "docs" / "internals" / "states.rst"
POLICIES = ("resume", "abort", "pivot")
COPY_FLAGS = (
    libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW
    | libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT
    | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
)


def words(cell: str) -> list[str]:
    return re.findall(r"``([a-z-]+)``", cell)


def read_table(title: str) -> dict[str, list[str]]:
    """The rows of a list-table by their first word, without its heading."""
    text = STATES.read_text()
    table = text.split(f".. list-table:: {title}\n")[1]
    table = re.split(r"\n(?=\S)", table)[0]
    rows = [re.split(r"\n     - ", row) for row in re.split(r"\n   \* - ", table)[2:]]
    return {words(cells[0])[0]: cells for cells in rows}


class Scene:
    """A guest on a libvirtd of our own, and what can be done to both."""

    def __init__(self, daemon: Daemon, folder: pathlib.Path) -> None:
        self.daemon = daemon
        self.folder = folder
        self.guest = Guest(daemon, folder)  # type: ignore[arg-type]
        self.name = self.guest.dom.name()
        self.overlay = self.guest.path1 / "old.migrate"
        self.mirror = self.guest.path2 / "new.qcow2"

    def leave_ready(self, disks: int = 1) -> None:
        """A mirrored snapshot that is ready, and whose maker has died."""
        if disks > 1:
            self.end()
            self.guest = Guest(self.daemon, self.folder, disks=disks)  # type: ignore[arg-type]
            self.name = self.guest.dom.name()
            self.overlay = self.guest.path1 / "old.migrate"
            self.mirror = self.guest.path2 / "new.qcow2"
        guest = self.guest
        specs = [f"vda,mirror={self.mirror}", f"vdb,mirror={guest.path2}/new2.qcow2"]
        for target in guest.targets():
            virmirror.prepare_chain(guest.dom, target, guest.path2)
        made = virmirror.MirrorSnapshot.create(guest.dom, "migrate", specs[:disks])
        for path in guest.path2.iterdir():
            if (guest.path1 / path.name).exists():
                shutil.copyfile(guest.path1 / path.name, path)
        made.wait_ready(timeout=30)
        made.detach()

    def fill(self) -> None:
        """Have all of its ring on the mirror, which gets no backing file where it is
        not libvirt that pivots."""
        self.guest.wait_for_writes(300)

    def end_job(self, flags: int = 0) -> None:
        self.guest.dom.blockJobAbort("vda", flags)

    def edit_journal(self, *edits: tuple[str, str]) -> None:
        element = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        everywhere = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
        text = self.guest.dom.metadata(element, JOURNAL, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        self.guest.dom.setMetadata(element, text, "virmirror", JOURNAL, everywhere)

    def crash(self, edit: Callable[[str], str] = str, commands: tuple[str, ...] = ()) -> None:
        """libvirtd dies, having written this of the guest, and having asked QEMU for that."""
        self.guest.dom = None
        self.daemon.kill_daemon()
        if commands:
            self._complete_job()
        state = self.daemon.outside(f"/run/libvirt/qemu/{self.name}.xml")
        before = state.read_text()
        after = edit(before)
        assert (after != before) == (edit is not str)
        state.write_text(after)
        self.guest.dom = self.daemon.restart().lookupByName(self.name)

    def _complete_job(self) -> None:
        """Have QEMU pivot while libvirt is not there."""
        (path,) = self.daemon.outside("/var/lib/libvirt/qemu").glob(
            f"domain-*-{self.name}/monitor.sock"
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            stream = client.makefile("rw")

            def ask(command: str, **arguments: str) -> Any:
                stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                stream.flush()
                for line in stream:
                    reply = json.loads(line)
                    assert "error" not in reply, reply
                    if "return" in reply:
                        return reply["return"]
                raise AssertionError("QEMU has closed its monitor")

            ask("qmp_capabilities")
            (job,) = ask("query-jobs")
            ask("job-complete", id=job["id"])
            end = time.monotonic() + PATIENCE
            while ask("query-jobs")[0]["status"] != "concluded":
                assert time.monotonic() < end
            ask("job-dismiss", id=job["id"])

    def end(self) -> None:
        name = self.guest.dom.name()
        if name in self.daemon.qemu_pids():
            self.daemon.end_qemu(name)
        self.guest.end()


def start_commit(dom: libvirt.virDomain) -> None:
    """Start to commit the top layer, and wait until that is in step."""
    flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW | libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
    dom.blockCommit("vda", None, None, 0, flags)
    end = time.monotonic() + 10
    while "ready='yes'" not in dom.XMLDesc():
        assert time.monotonic() < end
        time.sleep(0.02)


# ---- how each row comes about


def make_nothing(scene: Scene) -> None:
    scene.guest.wait_for_writes(20)


def make_ready(scene: Scene) -> None:
    scene.leave_ready()


def make_mirroring(scene: Scene) -> None:
    """The copy is started anew, with more to do than goes unthrottled."""
    scene.leave_ready()
    scene.end_job()
    qemu.write(scene.guest.dom, "24M", "24M")
    source = f"<source file='{scene.mirror}'/><driver name='qemu' type='qcow2'/>"
    xml = f"<disk type='file'>{source}</disk>"
    scene.guest.dom.blockCopy("vda", xml, {"bandwidth": 1}, COPY_FLAGS)


def make_pivoted(scene: Scene) -> None:
    scene.leave_ready()
    scene.end_job(libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def make_aborted(scene: Scene) -> None:
    scene.leave_ready()
    scene.end_job()


def make_creating(scene: Scene) -> None:
    scene.leave_ready()
    scene.end_job()
    scene.edit_journal(
        ('state="mirroring"', 'state="creating"'),
        ('target="vda" state="creating"', 'target="vda" state="overlay"'),
    )


def make_cut_over(scene: Scene) -> None:
    scene.leave_ready(disks=2)
    scene.edit_journal(('state="mirroring"', 'state="pivoting"'))
    scene.end_job(libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def make_off(scene: Scene) -> None:
    scene.leave_ready()
    scene.guest.dom.destroy()


def make_leaked(scene: Scene) -> None:
    scene.leave_ready()
    scene.end_job()
    file = {"driver": "file", "filename": str(scene.mirror)}
    qemu.monitor(
        scene.guest.dom, "blockdev-add", node_name="left", driver="qcow2", file=file, backing=None
    )


def forget_mirror(text: str) -> str:
    """What libvirt has written of a guest when it dies as it starts a job."""
    text = re.sub(r"\s*<mirror type=.*?</mirror>", "", text, flags=re.DOTALL)
    return re.sub(r"(<blockjob [^>]*)state='\w+'", r"\1state='new'", text)


def make_hidden(scene: Scene) -> None:
    """A commit that libvirt has started, and whose ``<mirror>`` it has not yet written."""
    start_commit(scene.guest.dom)
    scene.crash(forget_mirror)


def make_orphaned(scene: Scene) -> None:
    """libvirt has started the copy, and has not yet written that the disk has it."""
    scene.leave_ready()
    scene.crash(forget_mirror)


def make_stuck(scene: Scene) -> None:
    scene.leave_ready()
    scene.fill()
    scene.edit_journal(('state="mirroring"', 'state="pivoting"'))
    scene.crash(lambda text: text.replace("ready='yes'", "ready='pivot'"), ("complete",))


def make_lying(scene: Scene) -> None:
    scene.leave_ready()
    scene.fill()
    (job,) = qemu.monitor(scene.guest.dom, "query-block-jobs")
    qemu.monitor(scene.guest.dom, "block-job-complete", device=job["device"])
    end = time.monotonic() + PATIENCE
    while scene.guest.dom.blockJobInfo("vda"):
        assert time.monotonic() < end


def make_lost(scene: Scene) -> None:
    """libvirt writes down the end of a job in such a way that it cannot read it."""
    scene.leave_ready()
    scene.crash(lambda text: re.sub(r"(<mirror [^>]*)job='copy'", r"\1job=''", text))


def make_foreign(scene: Scene) -> None:
    scene.leave_ready()
    other = scene.guest.path2 / "other"
    shutil.copyfile(scene.mirror, other)
    other.rename(scene.mirror)


MAKE = {
    name.removeprefix("make_").replace("_", "-"): make
    for name, make in list(globals().items())
    if name.startswith("make_")
}

# ---- the table

VERDICTS = read_table("verdicts")
TRUTHS = {
    *("source", "overlay", "mirroring", "ready", "ending", "pivoted", "returning", "undoing"),
    "other",
}


def ends_of(row: list[str]) -> dict[str, str]:
    """What recovery ends as, by policy."""
    ends = words(row[4])
    return dict(zip(POLICIES, ends * 3 if len(ends) == 1 else ends, strict=len(ends) != 1))


def runs() -> list[tuple[str, str]]:
    """Each row with each policy, where they differ, else with the one that does most."""
    return [
        (verdict, policy)
        for verdict, row in VERDICTS.items()
        for policy in (POLICIES if len(set(ends_of(row).values())) > 1 else POLICIES[2:])
    ]


@pytest.fixture(scope="module")
def daemon(qemus_reaped: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


@pytest.fixture
def scene(daemon: Daemon, tmp_path: pathlib.Path) -> Iterator[Scene]:
    scene = Scene(daemon, tmp_path)
    yield scene
    scene.end()


def test_rows_are_scenarios() -> None:
    assert set(VERDICTS) == set(MAKE)
    assert all(len(row) == 5 for row in VERDICTS.values())


def check_told(inspection: virmirror.Inspection, row: list[str]) -> None:
    """What is meant, and what is, are named in the row."""
    if inspection.meant is not None:
        assert inspection.meant in words(row[1]) or re.search(r"\bany\b", row[1])
    truths = {disk.truth for disk in inspection.disks}
    named = TRUTHS & set(words(row[2]))
    assert truths <= named or not (named and inspection.running), (truths, row[2])


def check_guest(scene: Scene, verdict: str) -> None:
    """Whatever was recovered, the guest's writes are where its next start finds them."""
    guest = scene.guest
    top = guest.chain(inactive=True)[0]
    if verdict == "nothing" and guest.dom.isActive():
        assert guest.dom.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        assert guest.chain()[0] == top
        assert not guest.has_journal() and guest.dom.snapshotNum() == 0
        assert not guest.dom.blockJobInfo("vda")
        guest.wait_for_writes(30)
    elif verdict != "nothing":
        guest.wait_for_writes(30)
        assert is_written_to(top)
        if verdict == "lost":
            scene.daemon.end_qemu(scene.name)
    guest.check(*(guest.chain(target, inactive=True)[0] for target in guest.targets()))


@pytest.mark.parametrize(("verdict", "policy"), runs())
def test_row_is_found_and_recovered_as_it_says(scene: Scene, verdict: str, policy: str) -> None:
    row = VERDICTS[verdict]
    MAKE[verdict](scene)
    inspection = virmirror.inspect(scene.guest.dom)
    assert inspection.verdict == verdict
    check_told(inspection, row)
    if (verdict, policy) == ("mirroring", "pivot"):  # it waits for the mirror
        threading.Timer(1.0, qemu.throttle, (scene.guest.dom, "vda", 0)).start()
    recovery = virmirror.recover(scene.guest.dom, policy, timeout=60)  # type: ignore[arg-type]
    assert (recovery.found, recovery.verdict) == (verdict, ends_of(row)[policy])
    again = virmirror.recover(scene.guest.dom, policy, timeout=60)  # type: ignore[arg-type]
    assert (again.verdict, again.done) == (recovery.verdict, ())
    assert (recovery.verdict in ("stuck", "lying", "lost", "foreign")) == bool(again.left)
    if recovery.verdict in ("ready", "mirroring"):
        assert virmirror.recover(scene.guest.dom, "abort", timeout=60).verdict == "nothing"
    check_guest(scene, virmirror.inspect(scene.guest.dom).verdict)


def test_undo_that_died_in_its_commit_is_finished(scene: Scene) -> None:
    """The commit of the overlay by which a creation is undone is forgotten by libvirt."""
    make_creating(scene)
    start_commit(scene.guest.dom)
    scene.crash(forget_mirror)
    inspection = virmirror.inspect(scene.guest.dom)
    assert (inspection.verdict, inspection.commits) == ("hidden", ("vda",))
    assert inspection.disks[0].truth == "overlay"
    recovery = virmirror.recover(scene.guest.dom, timeout=60)
    assert (recovery.found, recovery.verdict, recovery.left) == ("hidden", "nothing", ())
    assert scene.guest.chain()[0] == scene.guest.tops[0]
    assert not scene.overlay.exists() and not scene.mirror.exists()
    check_guest(scene, "nothing")


def stop_at_collapse(scene: Scene, plan: virmirror.Plan) -> None:
    """Run the plan until the cut-over is over."""

    class Stop(Exception):
        pass

    def stop(progress: virmirror.Progress) -> None:
        if progress.phase == "collapse":
            raise Stop

    with pytest.raises(Stop):
        virmirror.run(plan, conn=scene.daemon.conn, on_progress=stop)


def test_run_finishes_a_commit_that_libvirt_forgot(scene: Scene) -> None:
    """libvirt dies as the migration that is over collapses its chain."""
    guest = scene.guest
    plan = virmirror.plan(guest.dom, {"vda": guest.path2}, collapse="commit")
    stop_at_collapse(scene, plan)
    assert guest.chain()[1] == guest.path2 / "old.qcow2"
    start_commit(guest.dom)
    scene.crash(forget_mirror)
    assert virmirror.inspect(guest.dom).verdict == "hidden"
    report = virmirror.run(plan, conn=scene.daemon.conn)
    assert report.disks[0].collapse == "commit"
    assert guest.chain() == [guest.path2 / "old.qcow2", guest.path2 / "common"]
    assert sorted(path.name for path in guest.path2.iterdir()) == ["common", "old.qcow2"]
    # and libvirt's own jobs work on that disk
    virmirror.block_pull(guest.dom, "vda")
    check_guest(scene, "nothing")


def test_end_of_the_collapse_that_libvirt_missed_is_told(scene: Scene) -> None:
    """It died after QEMU's pivot to the layer below, and before it had the upper one closed."""
    guest = scene.guest
    plan = virmirror.plan(guest.dom, {"vda": guest.path2}, collapse="commit")
    stop_at_collapse(scene, plan)
    start_commit(guest.dom)
    scene.crash(lambda text: text.replace("ready='yes'", "ready='pivot'"), ("complete",))
    below = guest.path2 / "old.qcow2"
    assert is_written_to(guest.chain()[0]) and is_written_to(below)
    assert virmirror.inspect(guest.dom).verdict == "stuck"
    with pytest.raises(virmirror.DivergedError, match=f"the guest writes to '{below}'"):
        virmirror.run(plan, conn=scene.daemon.conn)
    recovery = virmirror.recover(guest.dom, timeout=60)
    assert recovery.verdict == "stuck" and "start it again" in recovery.left[0]
    guest.wait_for_writes(30)
    assert guest.chain(inactive=True)[0] == below
    guest.check(below)
    guest.serial.write_bytes(b"")
    guest.dom.create()
    report = virmirror.run(plan, conn=scene.daemon.conn)
    assert guest.chain() == [below, guest.path2 / "common"]
    assert not report.left
    guest.wait_for_writes(300)  # it writes from round 1 on, and now over all of before
    check_guest(scene, "nothing")


def test_abort_of_a_hidden_commit_is_refused(scene: Scene) -> None:
    """It would crash libvirt; so would the failure of the commit, which is not ours."""
    scene.leave_ready()
    scene.end_job()
    start_commit(scene.guest.dom)
    scene.crash(forget_mirror)
    mirror = virmirror.adopt(scene.guest.dom, "migrate")
    with pytest.raises(virmirror.DivergedError, match="would make libvirt crash"):
        mirror.abort(timeout=30)
    mirror.detach()
    assert virmirror.inspect(scene.guest.dom).verdict == "hidden"
    assert virmirror.recover(scene.guest.dom, "abort", timeout=60).verdict == "nothing"
    assert scene.guest.chain()[0] == scene.guest.tops[0]
    check_guest(scene, "nothing")
