# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line on a real QEMU: each command a process of its own.

The guests live in a host that no process has open between two commands.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest

from support.patience import PATIENCE
from support.storage import SlowFile
from virmirror import embed, testguest

pytestmark = pytest.mark.qemu

# Starts a guest, and ends.
START = """
import sys
from virmirror import embed
with embed.Host(sys.argv[1], keep_guests=True) as host:
    host.start(sys.argv[2])
"""


class Guest:
    """The one guest of a test, on common <- old.qcow2 in ``path1``, and the command line."""

    def __init__(self, root: pathlib.Path, folder: pathlib.Path, name: str, data: int = 0) -> None:
        self.root, self.name = root, name
        self.path1, self.path2 = folder / "path1", folder / "path2"
        self.path1.mkdir()
        self.path2.mkdir()
        self.serial = folder / "serial"
        *_, top = testguest.make_chain(self.path1, size=256 * testguest.MIB, data=data)
        xml = testguest.domain_xml(name, [top], self.serial)
        subprocess.run([sys.executable, "-c", START, root, xml], check=True, timeout=120)
        testguest.wait_for_writes(self.serial, 20)
        self.overlay, self.mirror = self.path1 / "old.migrate", self.path2 / "new.qcow2"
        self.diskspec = f"vda,file={self.overlay},mirror={self.mirror}"

    def command(self, *arguments: str | os.PathLike[str]) -> list[str]:
        program = [sys.executable, "-m", "virmirror", "--embed", str(self.root)]
        return [*program, *map(os.fspath, arguments)]

    def virmirror(self, *arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=120)

    def out(self, *arguments: str | os.PathLike[str]) -> str:
        """Run a command that must succeed, without a word on stderr."""
        result = self.virmirror(*arguments)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    def error(self, *arguments: str | os.PathLike[str]) -> str:
        """Run a command that must fail, with one line on stderr."""
        result = self.virmirror(*arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert re.fullmatch("error: .*\n", result.stderr)
        return result.stderr

    def make_overlays(self) -> None:
        """The first step of a move: both of the new top layers."""
        self.out("prepare-chain", self.name, "vda", self.path2)
        for top in (self.overlay, self.mirror):
            options = ["-o", "backing_file=old.qcow2", "-o", "backing_fmt=qcow2"]
            command = ["qemu-img", "create", "-q", "-f", "qcow2", *options, top]
            subprocess.run(command, check=True)

    def create(self) -> None:
        self.out(
            *("snapshot-create-as", self.name, "migrate", "--reuse-external"),
            *("--diskspec", self.diskspec),
        )

    def wait_ready(self) -> None:
        end = time.monotonic() + PATIENCE
        while " vda ready\n" not in self.out("snapshot-list", self.name):
            assert time.monotonic() < end

    def chain_of(self, top: pathlib.Path) -> list[pathlib.Path]:
        command = ["qemu-img", "info", "-U", "--backing-chain", "--output=json", top]
        layers = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return [pathlib.Path(layer["filename"]) for layer in layers]

    def check(self, top: pathlib.Path) -> None:
        """Stop the guest; no write may be missing from what has this top layer."""
        testguest.wait_for_writes(self.serial, 50)
        embed.end_qemus(self.root)
        assert testguest.check(top, self.serial).reported > 50


@pytest.fixture(scope="module")
def root() -> Iterator[pathlib.Path]:
    """The root of a host; the path is short, for the sockets below it."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="vm-cli-"))
    yield root
    shutil.rmtree(root)


@pytest.fixture
def make_guest(
    root: pathlib.Path, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Guest]]:
    yield lambda data=0: Guest(root, tmp_path, request.node.name[-30:], data)
    embed.end_qemus(root)


@pytest.fixture
def guest(make_guest: Callable[..., Guest]) -> Guest:
    return make_guest()


def test_move_with_the_six_commands_loses_no_write(guest: Guest) -> None:
    dom, path1, path2 = guest.name, guest.path1, guest.path2

    skeleton = guest.out("prepare-chain", dom, "vda", path2)
    assert skeleton.splitlines() == [f"{path2}/old.qcow2", f"{path2}/common"]
    for new in (f"{path1}/old.migrate", f"{path2}/new.qcow2"):
        create = "qemu-img create -f qcow2 -o backing_file=old.qcow2 -o backing_fmt=qcow2"
        subprocess.run([*create.split(), new], check=True)
    assert (
        guest.out(
            *("snapshot-create-as", dom, "migrate", "--reuse-external"),
            *("--diskspec", f"vda,file={path1}/old.migrate,mirror={path2}/new.qcow2"),
        )
        == "Domain snapshot migrate created\n"
    )
    subprocess.run(["cp", path1 / "common", path1 / "old.qcow2", path2], check=True)
    guest.wait_ready()
    assert (
        guest.out("snapshot-delete", dom, "migrate", "--mirror-pivot")
        == "Domain snapshot migrate deleted\n"
    )
    pulled = guest.out("blockpull", dom, "vda", "--base", path2 / "common", "--wait")
    assert pulled == "Pull complete\n"

    shutil.rmtree(path1)
    assert guest.chain_of(path2 / "new.qcow2") == [path2 / "new.qcow2", path2 / "common"]
    guest.check(path2 / "new.qcow2")


def test_create_without_reuse_makes_the_files_itself(guest: Guest) -> None:
    guest.out("prepare-chain", guest.name, "vda", guest.path2)
    guest.out("snapshot-create-as", guest.name, "m", "moving", "--disk-only", guest.diskspec)
    subprocess.run(
        ["cp", guest.path1 / "common", guest.path1 / "old.qcow2", guest.path2], check=True
    )
    guest.wait_ready()
    guest.out("snapshot-delete", guest.name, "--current", "--mirror-pivot")
    shutil.rmtree(guest.path1)
    guest.check(guest.mirror)


def test_create_without_skeleton_fails_and_leaves_no_snapshot(guest: Guest) -> None:
    error = guest.error("snapshot-create-as", guest.name, "migrate", "--diskspec", guest.diskspec)
    assert "prepare_chain" in error
    assert "migrate" not in guest.out("snapshot-list", guest.name)


def test_abort_keeps_the_primary_file(guest: Guest) -> None:
    guest.make_overlays()
    guest.create()
    done = guest.out("snapshot-delete", guest.name, "migrate", "--mirror-abort")
    assert done == "Domain snapshot migrate deleted\n"
    shutil.rmtree(guest.path2)
    assert "migrate" not in guest.out("snapshot-list", guest.name)
    guest.check(guest.overlay)


def test_delete_without_or_with_both_mirror_flags_changes_nothing(guest: Guest) -> None:
    guest.make_overlays()
    guest.create()
    error = guest.error("snapshot-delete", guest.name, "migrate")
    assert "--mirror-abort" in error
    assert "--mirror-pivot" in error
    error = guest.error(
        "snapshot-delete", guest.name, "--current", "--mirror-abort", "--mirror-pivot"
    )
    assert error == "error: delete mirror flags are mutually exclusive\n"
    guest.wait_ready()


def test_show_mirrored_snapshot_tells_of_its_mirror(guest: Guest) -> None:
    guest.make_overlays()
    guest.create()
    guest.wait_ready()
    xml = guest.out("snapshot-dumpxml", guest.name, "migrate")
    assert f'<mirror file="{guest.mirror}" format="qcow2"/>' in xml
    head, _, *rows = guest.out("snapshot-list", guest.name).splitlines()
    assert head.split() == ["Name", "Creation", "Time", "State", "Mirror"]
    (row,) = rows
    assert re.fullmatch(r" migrate +\d{4}-\d\d-\d\d \S+ \S+ +disk-snapshot +vda ready", row)


def test_pivot_before_the_mirror_is_ready_fails_and_an_abort_follows(guest: Guest) -> None:
    guest.make_overlays()
    with SlowFile(guest.mirror, 192 * 1024):  # the guest writes more, however slow it is
        guest.create()
        assert re.search(r" vda \d+ %$", guest.out("snapshot-list", guest.name), re.MULTILINE)
        error = guest.error("snapshot-delete", guest.name, "migrate", "--mirror-pivot")
        assert error == "error: the mirror of disk 'vda' is not ready yet: wait for it\n"
        guest.out("snapshot-delete", guest.name, "migrate", "--mirror-abort")
    guest.check(guest.overlay)


def test_pull_without_wait_goes_on_after_the_command(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(data=64 * testguest.MIB)
    top = guest.path1 / "old.qcow2"
    assert guest.out("blockpull", guest.name, "vda", "--bandwidth", "8") == "Block Pull started\n"
    assert len(guest.chain_of(top)) == 2
    assert "vda" in guest.error("blockpull", guest.name, "vda")
    # but it can be waited for
    assert guest.out("blockpull", guest.name, "vda", "--wait") == "Pull complete\n"
    assert guest.chain_of(top) == [top]


def test_pull_that_exceeds_its_timeout_is_aborted(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(data=64 * testguest.MIB)
    top = guest.path1 / "old.qcow2"
    pull = ("blockpull", guest.name, "vda", "--wait")
    error = guest.error(*pull, "--bandwidth", "1", "--timeout", "1")
    assert error == "error: pull aborted: it took longer than 1 s\n"
    assert len(guest.chain_of(top)) == 2
    assert guest.out(*pull) == "Pull complete\n"
    assert guest.chain_of(top) == [top]
    guest.check(top)


def test_pull_interrupted_is_aborted(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(data=64 * testguest.MIB)
    pull = ("blockpull", guest.name, "vda", "--wait", "--verbose")
    process = subprocess.Popen(
        guest.command(*pull, "--bandwidth", "1"), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    shown = ""
    while not re.search(r"\[ +[1-9]\d? %\]", shown):  # so it has begun
        shown += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 130
    assert re.fullmatch("error: interrupted.*", rest.splitlines()[-1])
    assert len(guest.chain_of(guest.path1 / "old.qcow2")) == 2

    result = guest.virmirror(*pull)  # nothing is in the way; \r is read as \n
    assert (result.returncode, result.stdout) == (0, "Pull complete\n")
    assert result.stderr.endswith("\nBlock Pull: [100 %]\n")


def test_open_a_host_that_another_process_has_open_fails(guest: Guest) -> None:
    script = "import sys; from virmirror import embed\n"
    script += "with embed.Host(sys.argv[1], keep_guests=True): print('open', flush=True); input()"
    command = [sys.executable, "-c", script, guest.root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"open\n"
        assert "has the host at" in guest.error("snapshot-list", guest.name)
        process.communicate(b"\n", timeout=60)


def test_inspect_and_recover_tell_of_a_mirror_and_end_it(guest: Guest) -> None:
    guest.make_overlays()
    guest.create()
    guest.wait_ready()

    told = guest.out("inspect", guest.name)
    assert told.startswith("Verdict:   ready: ")
    assert f"  mirror:  {guest.mirror} (open for writing)" in told
    assert json.loads(guest.out("inspect", guest.name, "--json"))["verdict"] == "ready"
    assert guest.out("recover", guest.name) == "Found:     ready\nNow:       ready\n"
    told = guest.out("recover", guest.name, "--policy", "abort")
    assert told.startswith("Found:     ready\nDone:      ")
    assert told.endswith("\nNow:       nothing\n")
    assert guest.out("inspect", guest.name).startswith("Verdict:   nothing: ")
    guest.check(guest.overlay)


def test_migrate_moves_the_guest_and_says_what_it_did(guest: Guest) -> None:
    planned = guest.out("migrate", guest.name, f"vda={guest.path2}", "--dry-run")
    assert f"{guest.path1}/old.qcow2 -> {guest.path2}/old.qcow2" in planned
    assert list(guest.path2.iterdir()) == []
    done = guest.out("migrate", guest.name, f"vda={guest.path2}")
    assert f"vda: {guest.path2}/old.qcow2 <- {guest.path2}/common\n" in done
    assert re.search(r"Migration complete: .* MiB in .* s, pause \d+ ms", done)
    assert guest.out("inspect", guest.name).startswith("Verdict:   nothing")


def until_it_copies(process: subprocess.Popen[bytes]) -> bytes:
    """What the command tells until it copies a layer; it must not have ended by then."""
    assert process.stderr is not None
    told = b""
    while b"common" not in told:
        told += process.stderr.read1()
        assert process.poll() is None, told
    return told


def test_migrate_that_was_killed_is_resumed_or_undone(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(data=32 * testguest.MIB)
    move = ["migrate", guest.name, f"vda={guest.path2}", "--bandwidth", "1", "--verbose"]
    for option in ("--undo", "--resume"):
        with subprocess.Popen(guest.command(*move), stderr=subprocess.PIPE) as process:
            until_it_copies(process)
            process.kill()
        assert "Migration: unfinished" in guest.out("inspect", guest.name)
        assert "is unfinished" in guest.error("migrate", guest.name, f"vda={guest.path2}")
        if option == "--undo":
            assert guest.out("migrate", guest.name, option) == "Migration undone\n"
            assert list(guest.path2.iterdir()) == []
    # with the limit of the plan it would take half a minute: it is interrupted
    resume = guest.command("migrate", guest.name, "--resume", "--verbose")
    with subprocess.Popen(resume, stderr=subprocess.PIPE) as process:
        told = until_it_copies(process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        told += process.stderr.read()
    assert process.returncode == 130
    assert b"error: interrupted: " in told
    assert told.endswith(b": the migration was undone: the guest is where it was before\n")
    assert list(guest.path2.iterdir()) == []
    assert guest.out("inspect", guest.name).startswith("Verdict:   nothing")
