# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where files are to be made: in places that last, and that can be written to."""

from __future__ import annotations

import contextlib
import pathlib
import re
import subprocess
from collections.abc import Callable, Iterator

import libvirt
import pytest

import virmirror
from support.guest import Guest
from support.refusal import refused
from support.storage import loop_device, tmpfs

pytestmark = pytest.mark.qemu

UNSUPPORTED = libvirt.VIR_ERR_CONFIG_UNSUPPORTED
FAILED = libvirt.VIR_ERR_OPERATION_FAILED
MIB = 1 << 20


def mount(*options: str | pathlib.Path) -> None:
    subprocess.run(["mount", *options], check=True)


@contextlib.contextmanager
def mounted(folder: pathlib.Path, *options: str | pathlib.Path) -> Iterator[None]:
    mount(*options, folder)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def read_only(folder: pathlib.Path) -> Iterator[None]:
    with mounted(folder, "--bind", folder):
        mount("-o", "remount,ro,bind", folder)
        yield


def on_source(device: pathlib.Path) -> Callable[[str], str]:
    """The disk's source is ``device``."""

    def edit(xml: str) -> str:
        xml = xml.replace("<disk type='file'", "<disk type='block'")
        return re.sub(r"<source file=[^>]*/>(?=<target)", f"<source dev='{device}'/>", xml)

    return edit


@pytest.fixture
def block_guest(
    request: pytest.FixtureRequest, make_guest: Callable[..., Guest], tmp_path: pathlib.Path
) -> Iterator[Guest]:
    """A guest whose disk is a qcow2 image on a block device.

    With "link" as parameter it is reached by a link that is in memory, as oVirt has them.
    """
    links = tmp_path / "links"
    links.mkdir()
    with tmpfs(links, MIB), contextlib.ExitStack() as stack:

        def edit(xml: str) -> str:
            (image,) = re.findall(r'file="([^"]*old.qcow2)"', xml)
            subprocess.run(["truncate", "-s", "+80M", image], check=True)
            device = stack.enter_context(loop_device(pathlib.Path(image)))
            (links / "top").symlink_to(device)
            is_linked = getattr(request, "param", "") == "link"
            return on_source(links / "top" if is_linked else device)(xml)

        guest = make_guest(layers=1, edit=edit)
        yield guest
        guest.end()


@contextlib.contextmanager
def refusing(guest: Guest, kind: type[virmirror.MirrorError], *words: str) -> Iterator[None]:
    """As `refused`, for a guest that writes to a file through a device."""
    before = guest.chain(), sorted(guest.path2.iterdir())
    with pytest.raises(virmirror.MirrorError) as caught:
        yield
    assert type(caught.value) is kind, repr(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert (guest.chain(), sorted(guest.path2.iterdir())) == before


def create(guest: Guest, overlay: str = "") -> virmirror.MirrorSnapshot:
    return virmirror.MirrorSnapshot.create(
        guest.dom, "migrate", f"vda{overlay},mirror={guest.path2}/new.qcow2"
    )


def test_overlay_beside_a_block_device_is_refused(block_guest: Guest) -> None:
    guest = block_guest
    words = ("'vda'", "its overlay '/dev/loop", "among device nodes", "in memory")
    with refusing(guest, virmirror.NotSupportedError, *words):
        virmirror.migrate(guest.dom, {"vda": guest.path2})
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    with refusing(guest, virmirror.NotSupportedError, *words):
        create(guest)
    (device,) = guest.sources()
    with refusing(guest, virmirror.NotSupportedError, "among device nodes"):
        create(guest, f",file={device}.mine")
    assert list(pathlib.Path("/dev").glob("loop*.*")) == []


def test_block_device_with_an_overlay_folder_is_moved(block_guest: Guest) -> None:
    plan = virmirror.plan(
        block_guest.dom, {"vda": block_guest.path2}, overlay_folder=block_guest.path1
    )
    assert pathlib.Path(plan.disks[0].overlay).parent == block_guest.path1
    virmirror.run(plan, conn=block_guest.dom.connect())
    assert [path.parent for path in block_guest.chain()] == [block_guest.path2]
    assert [path.name for path in block_guest.path1.iterdir()] == ["old.qcow2"]
    block_guest.wait_for_writes()
    block_guest.check()


def test_overlay_folder_is_used_for_all_disks(make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(disks=2)
    overlays = guest.path1.parent / "overlays"
    overlays.mkdir()
    seen: set[str] = set()

    def look(progress: virmirror.Progress) -> None:
        if progress.phase == "copy":
            seen.update(path.name for path in overlays.iterdir())

    folders = {"vda": guest.path2, "vdb": guest.path2}
    virmirror.migrate(guest.dom, folders, name="snap", overlay_folder=overlays, on_progress=look)
    assert seen == {"old.snap", "old2.snap"}
    assert list(overlays.iterdir()) == []
    guest.wait_for_writes()
    guest.check()


@pytest.mark.parametrize("block_guest", ["link"], indirect=True)
def test_overlay_that_would_be_in_memory_is_refused_unless_named(block_guest: Guest) -> None:
    guest = block_guest
    (link,) = guest.sources()
    words = ("'vda'", f"its overlay '{link.parent}/top.", "in memory", "name a place")
    with refusing(guest, virmirror.NotSupportedError, *words):
        virmirror.plan(guest.dom, {"vda": guest.path2})
    plan = virmirror.plan(guest.dom, {"vda": guest.path2}, overlay_folder=link.parent)
    assert "is in memory" in "".join(plan.notes)
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    with refusing(guest, virmirror.NotSupportedError, *words):
        create(guest)
    create(guest, f",file={link.parent}/mine").abort()


def test_source_in_memory_may_have_its_overlay_there(
    make_guest: Callable[..., Guest], tmp_path: pathlib.Path
) -> None:
    with tmpfs(tmp_path, 64 * MIB):
        guest = make_guest()
        assert virmirror.plan(guest.dom, {"vda": guest.path2}).notes == ()
        guest.end()


@pytest.mark.parametrize("kind", ["tmpfs", "loop", "overlay"])
def test_move_into_memory_is_noted(guest: Guest, tmp_path: pathlib.Path, kind: str) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    with tmpfs(memory, 200 * MIB), contextlib.ExitStack() as stack:
        if kind == "loop":
            image = memory / "image"
            subprocess.run(["truncate", "-s", "100M", image], check=True)
            subprocess.run(["mkfs.ext4", "-q", image], check=True)
            stack.enter_context(mounted(guest.path2, "-o", "loop", image))
        elif kind == "overlay":
            for name in ("upper", "work", "lower"):
                (memory / name).mkdir()
            layers = f"lowerdir={memory}/lower,upperdir={memory}/upper,workdir={memory}/work"
            options = ("-t", "overlay", "-o", layers, "overlay")
            stack.enter_context(mounted(guest.path2, *options))
        else:
            guest.path2 = memory
        plan = virmirror.plan(guest.dom, {"vda": guest.path2})
        assert "its mirror" in "".join(plan.notes)
        assert "is in memory" in "".join(plan.notes)


def test_move_among_device_nodes_is_refused(guest: Guest, tmp_path: pathlib.Path) -> None:
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    with mounted(nodes, "-t", "devtmpfs", "none"):
        words = ("'vda'", f"its mirror '{nodes}/old.", "among device nodes")
        with pytest.raises(virmirror.MirrorError) as caught:
            virmirror.plan(guest.dom, {"vda": nodes})
        assert all(word in str(caught.value) for word in words)
        with refused(guest, virmirror.NotSupportedError, UNSUPPORTED, "among device nodes"):
            virmirror.prepare_chain(guest.dom, "vda", nodes)


@pytest.mark.parametrize("side", ["path1", "path2"])
def test_folder_that_is_read_only_is_found_by_the_plan(guest: Guest, side: str) -> None:
    folder = getattr(guest, side)
    with read_only(folder):
        words = ("'vda'", f"'{folder}', in which a file is to be made, is on a file system")
        with refused(guest, virmirror.StorageError, FAILED, *words):
            virmirror.plan(guest.dom, {"vda": guest.path2})


def test_folder_that_is_read_only_is_found_before_a_create_and_a_prepare(guest: Guest) -> None:
    told = ("'vda'", "is mounted read-only")
    with read_only(guest.path2), refused(guest, virmirror.StorageError, FAILED, *told):
        virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    for folder in (guest.path1, guest.path2):
        with read_only(folder), refused(guest, virmirror.StorageError, FAILED, *told):
            create(guest)


def test_all_that_is_wrong_with_the_places_is_told_at_once(block_guest: Guest) -> None:
    (device,) = block_guest.sources()
    taken = block_guest.path2 / device.name
    taken.touch()
    with read_only(block_guest.path2):
        words = ("among device nodes", "is mounted read-only", f"'{taken}' is there already")
        with refusing(block_guest, virmirror.SpecError, *words):
            virmirror.plan(block_guest.dom, {"vda": block_guest.path2})
