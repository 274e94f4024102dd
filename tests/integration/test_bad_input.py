# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is wrong is said precisely, and before anything is changed."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import libvirt
import pytest

import virmirror
from support.guest import Guest
from support.mirrors import create_empty
from support.patience import PATIENCE
from support.refusal import refused
from support.storage import is_written_to, loop_device
from virmirror import embed

pytestmark = pytest.mark.qemu

ABORT = virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_ABORT
PIVOT = virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_PIVOT
UNSUPPORTED = libvirt.VIR_ERR_CONFIG_UNSUPPORTED
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def duo(host: embed.Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The guest of two disks that nobody here can harm."""
    guest = Guest(host, tmp_path_factory.mktemp("duo"), disks=2)
    for target in guest.targets():
        virmirror.prepare_chain(guest.dom, target, guest.path2)
    with guest.resting():
        yield guest
    guest.wait_for_writes(50)
    guest.check()
    guest.end()


@dataclass
class Place:
    """Where vda could go, if it were not for what a test does to these files."""

    guest: Guest
    overlay: pathlib.Path
    mirror: pathlib.Path

    @property
    def folder(self) -> pathlib.Path:
        return self.mirror.parent

    @property
    def spec(self) -> str:
        return f"vda,file={self.overlay},mirror={self.mirror}"

    def path(self, role: str) -> pathlib.Path:
        return self.overlay if role == "overlay" else self.mirror

    def create(self) -> virmirror.MirrorSnapshot:
        return virmirror.MirrorSnapshot.create(
            self.guest.dom, "migrate", self.spec, reuse_external=True
        )


@pytest.fixture
def place(duo: Guest) -> Iterator[Place]:
    before = set(duo.path1.iterdir())
    folder = pathlib.Path(tempfile.mkdtemp(dir=duo.path2))
    place = Place(duo, duo.path1 / "over.qcow2", folder / "new.qcow2")
    try:
        virmirror.prepare_chain(duo.dom, "vda", folder)
        create_empty(place.overlay)
        create_empty(place.mirror)
        yield place
    finally:
        shutil.rmtree(folder)
        for path in set(duo.path1.iterdir()) - before:
            path.unlink() if not path.is_dir() else path.rmdir()


def qemu_img(*args: object) -> None:
    subprocess.run(["qemu-img", *map(str, args)], check=True, stdout=subprocess.DEVNULL)


def patch(path: pathlib.Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


# ---- what is asked for


@pytest.mark.parametrize(
    ("disks", "kind", "code", "words"),
    [
        ("vdz,mirror={new}", "NotFoundError", UNSUPPORTED, ["no disk 'vdz'"]),
        (
            ["vda,mirror={new}", "vda,mirror={new}2"],
            "SpecError",
            libvirt.VIR_ERR_XML_DETAIL,
            ["disk 'vda' is given twice"],
        ),
        (
            ["vda,file={p1}/a,mirror={new}", "{p1}/old.qcow2,file={p1}/b,mirror={new}2"],
            "SpecError",
            libvirt.VIR_ERR_XML_DETAIL,
            ["disk 'vda'", "named twice"],
        ),
        ("", "SpecError", libvirt.VIR_ERR_INVALID_ARG, ["diskspec ''", "names no disk"]),
        (",mirror={new}", "SpecError", libvirt.VIR_ERR_INVALID_ARG, ["names no disk"]),
        ("vda,,mirror={new}", "SpecError", libvirt.VIR_ERR_XML_DETAIL, ["no mirror"]),
        (
            "vda,mirror={new},mirror={new}2",
            "SpecError",
            libvirt.VIR_ERR_INVALID_ARG,
            ["'mirror=' is given twice", "mirror={new},mirror={new}2"],
        ),
        (
            "vda,mirror={new},colour=red",
            "SpecError",
            libvirt.VIR_ERR_INVALID_ARG,
            ["'colour=red' is unknown"],
        ),
        ("vda,mirror=", "SpecError", libvirt.VIR_ERR_INVALID_ARG, ["'mirror=' has no value"]),
        ("vda", "SpecError", libvirt.VIR_ERR_XML_DETAIL, ["disk 'vda' has no mirror"]),
        ("vda,snapshot=no", "SpecError", libvirt.VIR_ERR_XML_DETAIL, ["no disk is to be mirrored"]),
        (
            "vda,snapshot=internal,mirror={new}",
            "SpecError",
            libvirt.VIR_ERR_XML_DETAIL,
            ["'vda'", "only an external"],
        ),
        ([], "SpecError", libvirt.VIR_ERR_XML_DETAIL, ["no disk is to be mirrored"]),
        (
            "vda,mirror=new.qcow2",
            "SpecError",
            libvirt.VIR_ERR_XML_DETAIL,
            ["'new.qcow2' of the mirror of disk 'vda' is not absolute"],
        ),
        (
            "vda,file=over.qcow2,mirror={new}",
            "SpecError",
            libvirt.VIR_ERR_XML_DETAIL,
            ["'over.qcow2' of the overlay of disk 'vda' is not absolute"],
        ),
        (
            "vda,mirror={p2}/",
            "SpecError",
            libvirt.VIR_ERR_XML_DETAIL,
            ["mirror of disk 'vda' names a folder"],
        ),
        (
            "vda,driver=raw,mirror={new}",
            "SpecError",
            UNSUPPORTED,
            ["overlay of disk 'vda' cannot be 'raw'"],
        ),
        (
            "vda,mirror={p2}/nowhere/new.qcow2",
            "NotFoundError",
            UNSUPPORTED,
            ["disk 'vda': '{p2}/nowhere', the folder of its mirror, is no folder"],
        ),
        (
            "vda,file={p1}/same,mirror={p1}/same",
            "SpecError",
            libvirt.VIR_ERR_XML_DETAIL,
            ["'{p1}/same'", "the overlay of disk 'vda' and for the mirror of disk 'vda'"],
        ),
        (
            ["vda,mirror={new}", "vdb,mirror={new}"],
            "SpecError",
            libvirt.VIR_ERR_XML_DETAIL,
            ["'{new}'", "the mirror of disk 'vda' and for the mirror of disk 'vdb'"],
        ),
    ],
)
def test_create_for_disks_that_make_no_sense_is_refused(
    duo: Guest, disks: str | list[str], kind: str, code: int, words: list[str]
) -> None:
    paths = {"p1": duo.path1, "p2": duo.path2, "new": duo.path2 / "new.qcow2"}

    def fill(text: str) -> str:
        return text.format_map(paths)

    wanted = fill(disks) if isinstance(disks, str) else [fill(disk) for disk in disks]
    with refused(duo, getattr(virmirror, kind), code, *map(fill, words)):
        virmirror.MirrorSnapshot.create(duo.dom, "migrate", wanted)


@pytest.mark.parametrize("name", ["a/b", "../a", "", ".hidden", "x" * 248, "a\nb"])
def test_create_by_a_name_that_libvirt_cannot_store_is_refused(duo: Guest, name: str) -> None:
    words = ["snapshot name '", "is not valid"]
    with refused(duo, virmirror.SpecError, libvirt.VIR_ERR_XML_DETAIL, *words):
        virmirror.MirrorSnapshot.create(duo.dom, name, f"vda,mirror={duo.path2}/new.qcow2")


def test_create_by_the_name_of_an_existing_snapshot_is_refused(place: Place) -> None:
    dom = place.guest.dom
    # one that libvirt only knows of, so that the disks stay as they are
    xml = (
        "<domainsnapshot><name>migrate</name><state>disk-snapshot</state>"
        "<creationTime>1</creationTime><memory snapshot='no'/><disks>"
        "<disk name='vda' snapshot='external'><source file='/elsewhere'/></disk></disks>"
        f"{dom.XMLDesc()}</domainsnapshot>"
    )
    snap = dom.snapshotCreateXML(xml, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE)
    try:
        words = ["snapshot 'migrate' already"]
        code = libvirt.VIR_ERR_OPERATION_INVALID
        with refused(place.guest, virmirror.ExistsError, code, *words):
            place.create()
    finally:
        snap.delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("way", ["plain", "dots", "symlink", "hard link", "linked folder"])
@pytest.mark.parametrize("layer", ["old.qcow2", "common"])
def test_create_with_a_mirror_that_is_in_use_is_refused(
    place: Place, layer: str, way: str, reuse: bool
) -> None:
    used = place.guest.path1 / layer
    alias = place.folder / "alias"
    if way == "plain":
        alias = used
    elif way == "dots":
        alias = place.folder / ".." / ".." / "path1" / layer
    elif way == "symlink":
        alias.symlink_to(used)
    elif way == "hard link":
        alias.hardlink_to(used)
    else:
        alias.symlink_to(place.guest.path1)
        alias = alias / layer
    words = [f"disk 'vda': '{alias}' is the same file as '{used}', which disk 'vda' uses"]
    with refused(place.guest, virmirror.SpecError, UNSUPPORTED, *words):
        virmirror.MirrorSnapshot.create(
            place.guest.dom, "migrate", f"vda,mirror={alias}", reuse_external=reuse
        )


def test_create_with_a_mirror_that_is_the_overlay_by_another_name_is_refused(
    place: Place,
) -> None:
    place.mirror = place.folder / ".." / ".." / "path1" / "over.qcow2"
    words = [f"'{place.mirror}' is wanted twice"]
    with refused(place.guest, virmirror.SpecError, UNSUPPORTED, *words):
        place.create()


def test_create_with_a_mirror_that_stands_on_the_overlay_is_refused(place: Place) -> None:
    place.mirror.unlink()
    with loop_device(place.overlay) as device:
        place.mirror.symlink_to(device)
        words = [f"'{place.mirror}' is on the same storage as '{place.overlay}'"]
        with refused(place.guest, virmirror.SpecError, UNSUPPORTED, *words):
            place.create()


@pytest.mark.parametrize("layer", ["old.qcow2", "old2.qcow2", "common"])
def test_create_with_a_mirror_that_stands_on_a_layer_is_refused(place: Place, layer: str) -> None:
    place.mirror.unlink()
    with loop_device(place.guest.path1 / layer) as device:
        place.mirror.symlink_to(device)
        words = [f"'{place.mirror}' is on the same storage as '{place.guest.path1 / layer}'"]
        with refused(place.guest, virmirror.SpecError, UNSUPPORTED, *words):
            place.create()


def test_create_on_a_copy_that_stands_on_the_original_is_refused(place: Place) -> None:
    copy = place.folder / "common"
    copy.unlink()
    with loop_device(place.guest.path1 / "common") as device:
        copy.symlink_to(device)
        words = [f"'{copy}' is on the same storage as '{place.guest.path1 / 'common'}'"]
        with refused(place.guest, virmirror.ImageError, UNSUPPORTED, *words):
            place.create()


def test_create_with_one_mirror_by_two_names_is_refused(place: Place) -> None:
    other = place.folder / ".." / place.folder.name / "made.qcow2"
    disks = [f"vda,mirror={place.folder}/made.qcow2", f"vdb,mirror={other}"]
    virmirror.prepare_chain(place.guest.dom, "vdb", place.folder)
    with refused(
        place.guest, virmirror.SpecError, UNSUPPORTED, f"'{other}' is wanted twice", "'vda'"
    ):
        virmirror.MirrorSnapshot.create(place.guest.dom, "migrate", disks)


def test_all_that_is_wrong_is_said_at_once(place: Place) -> None:
    create_empty(place.overlay, size="65M")
    create_empty(place.mirror, f"{place.folder}/old.qcow2")
    disks = [place.spec, f"vdb,mirror={place.folder}/nowhere.qcow2", f"vdc,mirror={place.folder}/c"]
    words = [
        f"disk 'vda': its overlay '{place.overlay}' has another virtual size",
        f"disk 'vda': its mirror '{place.mirror}' has the backing file",
        f"disk 'vdb': cannot open '{place.folder}/nowhere.qcow2'",
        "no disk 'vdc'",
    ]
    with refused(place.guest, virmirror.SpecError, UNSUPPORTED, *words):
        virmirror.MirrorSnapshot.create(place.guest.dom, "migrate", disks, reuse_external=True)


# ---- XML


def snapshot_xml(disk: str, before: str = "") -> str:
    return f"{before}<domainsnapshot><disks><disk name='vda'>{disk}</disk></disks></domainsnapshot>"


BOMB = (
    "<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'>"
    + "".join(
        f"<!ENTITY {name} '{f'&{below};' * 10}'>"
        for below, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]>"
)


@pytest.mark.parametrize(
    ("xml", "code", "words"),
    [
        (
            snapshot_xml("<mirror file='/new'/>" + f"<!--{'x' * MIB}-->"),
            libvirt.VIR_ERR_XML_ERROR,
            ["snapshot XML is larger than 262144 bytes"],
        ),
        (
            snapshot_xml("<mirror file='/new'/>" + f"<!--{'x' * 5 * MIB}-->"),
            libvirt.VIR_ERR_XML_ERROR,
            ["snapshot XML is larger than"],
        ),
        (
            snapshot_xml("<mirror file='/new'/>", "<!DOCTYPE domainsnapshot SYSTEM 'file:///x'>"),
            libvirt.VIR_ERR_XML_ERROR,
            ["document type declaration"],
        ),
        (
            snapshot_xml("<mirror file='&i;'/>", BOMB),
            libvirt.VIR_ERR_XML_ERROR,
            ["document type declaration"],
        ),
        (
            snapshot_xml("<mirror file='/new'/>" + "<a>" * 300 + "</a>" * 300),
            libvirt.VIR_ERR_XML_ERROR,
            ["nested more than"],
        ),
        (snapshot_xml("<mirror file='/new'>"), libvirt.VIR_ERR_XML_ERROR, ["malformed"]),
        ("", libvirt.VIR_ERR_XML_ERROR, ["snapshot XML"]),
        (
            snapshot_xml("<mirror file='/new'/><mirror file='/new2'/>"),
            libvirt.VIR_ERR_XML_DETAIL,
            ["<mirror> is given twice"],
        ),
        (snapshot_xml("<mirror/>"), libvirt.VIR_ERR_XML_DETAIL, ["mirror of disk 'vda' is empty"]),
        (
            snapshot_xml("<mirror file='/new' sync='yes'/>"),
            libvirt.VIR_ERR_XML_DETAIL,
            ["unknown attribute 'sync'"],
        ),
        (
            snapshot_xml("<mirror type='network'><source protocol='nbd'/></mirror>"),
            None,
            ["mirror of disk 'vda' cannot be of type 'network'"],
        ),
    ],
)
def test_create_from_xml_that_makes_no_sense_is_refused(
    duo: Guest, xml: str, code: int | None, words: list[str]
) -> None:
    kind = virmirror.SpecError
    with refused(duo, kind, code or libvirt.VIR_ERR_XML_DETAIL, *words):
        virmirror.snapshotCreateXML(duo.dom, xml)


# ---- objects


def test_create_over_a_read_only_connection_is_refused(duo: Guest, host: embed.Host) -> None:
    conn = libvirt.openReadOnly(host.conn.getURI())
    dom = conn.lookupByName(duo.dom.name())
    with refused(
        duo, virmirror.MirrorError, libvirt.VIR_ERR_OPERATION_DENIED, "read only", "forbidden"
    ):
        virmirror.MirrorSnapshot.create(dom, "migrate", f"vda,mirror={duo.path2}/new.qcow2")


def test_domain_that_was_freed_is_refused(duo: Guest) -> None:
    dom = duo.dom.connect().lookupByName(duo.dom.name())
    dom.__del__()
    code = libvirt.VIR_ERR_INVALID_DOMAIN
    with refused(duo, virmirror.SpecError, code, "libvirt.virDomain object was freed"):
        virmirror.MirrorSnapshot.create(dom, "migrate", "vda,mirror=/new")


def test_object_of_another_kind_is_refused(duo: Guest) -> None:
    before = duo.state()
    for other in (duo.dom.connect(), "guest1", None):
        with pytest.raises(TypeError, match=r"expected a libvirt\.virDomain"):
            virmirror.MirrorSnapshot.create(other, "migrate", "vda,mirror=/new")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"expected a libvirt\.virDomainSnapshot"):
            virmirror.snapshotDelete(other, ABORT)  # type: ignore[arg-type]
    assert duo.state() == before


# ---- the files to be reused, both of which take the same defects


@dataclass(frozen=True)
class Defect:
    make: Callable[[pathlib.Path], object]
    words: tuple[str, ...]
    kind: str = "ImageError"
    code: int = UNSUPPORTED


def alone(path: pathlib.Path) -> str:
    """For qemu-io and others: the image without its backing file, which is in use."""
    file = {"driver": "file", "filename": str(path)}
    return "json:" + json.dumps({"driver": "qcow2", "file": file, "backing": None})


def write_data(path: pathlib.Path) -> None:
    subprocess.run(["qemu-io", "-c", "write -q 1M 64k", alone(path)], check=True)


def hide_backing_format(path: pathlib.Path) -> None:
    content = path.read_bytes()
    offset = content.index(bytes.fromhex("e2792aca"))
    patch(path, offset, bytes.fromhex("00000001"))  # an extension that nobody knows


def make_socket(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_PATH)
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


def instead(make: Callable[[pathlib.Path], object]) -> Callable[[pathlib.Path], object]:
    def replace(path: pathlib.Path) -> None:
        path.unlink()
        make(path)

    return replace


def with_options(**options: object) -> Callable[[pathlib.Path], object]:
    return lambda path: create_empty(path, **options)  # type: ignore[arg-type]


def with_bytes(offset: int, data: bytes) -> Callable[[pathlib.Path], object]:
    return lambda path: patch(path, offset, data)


DEFECTS = {
    "missing": Defect(
        pathlib.Path.unlink,
        ("cannot open '{path}': No such file", "it is to be the {role}"),
        "NotFoundError",
        libvirt.VIR_ERR_SYSTEM_ERROR,
    ),
    "larger": Defect(with_options(size="65M"), ("has another virtual size",)),
    "smaller": Defect(with_options(size="1M"), ("has another virtual size",)),
    "raw": Defect(instead(lambda path: path.write_bytes(bytes(MIB))), ("no usable qcow2 image",)),
    "empty": Defect(instead(lambda path: path.write_bytes(b"")), ("no usable qcow2 image",)),
    "version 2": Defect(with_options(options="compat=0.10"), ("version 2", "compat=1.1")),
    "no backing file": Defect(with_options(backing=None), ("has no backing file",)),
    "no backing format": Defect(hide_backing_format, ("backing_fmt",)),
    "other backing format": Defect(
        with_options(backing_format="raw"), ("another format of its backing file",)
    ),
    "data": Defect(write_data, ("holds data of its own", "create it anew")),
    "data file": Defect(
        lambda path: create_empty(path, options=f"data_file={path}.data"),
        ("keeps its data in another file",),
    ),
    "encrypted": Defect(with_bytes(32, b"\0\0\0\2"), ("is encrypted",)),
    "dirty": Defect(with_bytes(79, b"\1"), ("was not closed properly", "qemu-img")),
    "corrupt": Defect(with_bytes(79, b"\2"), ("was not closed properly", "qemu-img")),
    "unknown feature": Defect(with_bytes(72, b"\x80"), ("no usable qcow2 image",)),
    "internal snapshot": Defect(
        lambda path: qemu_img("snapshot", "-c", "one", alone(path)), ("internal snapshots",)
    ),
    "bitmap": Defect(lambda path: qemu_img("bitmap", "--add", path, "one"), ("bitmaps",)),
    "FIFO": Defect(instead(os.mkfifo), ("is a FIFO",)),
    "folder": Defect(instead(pathlib.Path.mkdir), ("is a folder",)),
    "socket": Defect(instead(make_socket), ("is a socket",)),
    "character device": Defect(
        instead(lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))),
        ("is a character device",),
    ),
    "dangling link": Defect(
        instead(lambda path: path.symlink_to(path.with_name("victim"))),
        ("is a symbolic link that leads nowhere",),
    ),
    "link": Defect(
        lambda path: path.symlink_to(path.rename(path.with_name("real"))),
        ("is a symbolic link to a regular file", "name what it leads to"),
    ),
    "json: name": Defect(with_options(backing='json:{"driver":"null-co"}'), ("'json:",)),
    "nbd: name": Defect(with_options(backing="nbd://127.0.0.1:1/x"), ("'nbd:",)),
    "absolute name": Defect(
        with_options(backing="/etc/shadow", backing_format="qcow2"), ("'/etc/shadow'",)
    ),
    "header too long": Defect(with_bytes(100, b"\xff\xff\xff\xff"), ("no usable qcow2 image",)),
    "clusters too large": Defect(with_bytes(20, b"\0\0\0\x3f"), ("no usable qcow2 image",)),
    "L1 table too large": Defect(with_bytes(36, b"\x7f\xff\xff\xff"), ("no usable qcow2 image",)),
    "L1 table outside": Defect(with_bytes(40, b"\0\0\x7f" + bytes(5)), ("{path}",)),
    "backing name outside": Defect(with_bytes(8, b"\0\0\x7f" + bytes(5)), ("no usable qcow2",)),
    "backing name too long": Defect(with_bytes(16, b"\0\0\x7f\xff"), ("no usable qcow2 image",)),
    "truncated": Defect(lambda path: os.truncate(path, 90), ("no usable qcow2 image",)),
}


@pytest.mark.parametrize("role", ["overlay", "mirror"])
@pytest.mark.parametrize("name", DEFECTS)
def test_create_on_a_file_with_a_defect_is_refused(place: Place, role: str, name: str) -> None:
    defect = DEFECTS[name]
    path = place.path(role)
    defect.make(path)
    words = [word.format(path=path, role=role) for word in defect.words]
    kind = getattr(virmirror, defect.kind)
    with refused(place.guest, kind, defect.code, "disk 'vda': ", path, *words, disk="vda"):
        place.create()
    assert not path.with_name("victim").exists()


@contextlib.contextmanager
def opened_for_writing(path: pathlib.Path) -> Iterator[None]:
    """Have a qemu-io hold the image."""
    other = subprocess.Popen(
        ["qemu-io", alone(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdin is not None and other.stdout is not None
    try:
        select.select([other.stdout], [], [], PATIENCE)  # its prompt
        assert is_written_to(path)
        yield
    finally:
        other.stdin.close()
        other.wait(PATIENCE)
        other.stdout.close()


@pytest.mark.parametrize("role", ["overlay", "mirror"])
def test_create_on_a_file_that_another_process_writes_to_is_refused(
    place: Place, role: str
) -> None:
    path = place.path(role)
    words = [f"disk 'vda': its {role} '{path}' is open for writing in another process"]
    with opened_for_writing(path):
        with refused(place.guest, virmirror.ImageError, UNSUPPORTED, *words, disk="vda"):
            place.create()


def test_create_on_an_overlay_of_another_layer_is_refused(place: Place) -> None:
    create_empty(place.overlay, "common")
    words = [f"'{place.overlay}' has the backing file 'common', not", "path1/old.qcow2"]
    with refused(place.guest, virmirror.ImageError, UNSUPPORTED, *words, disk="vda"):
        place.create()


# ---- the chain at the destination


def shorten(place: Place) -> None:
    create_empty(place.mirror, "common")


def loop(place: Place) -> None:
    create_empty(place.folder / "common", "old.qcow2")


def name_below(name: str) -> Callable[[Place], None]:
    return lambda place: create_empty(place.folder / "old.qcow2", name)


def replace_base(make: Callable[[pathlib.Path], object]) -> Callable[[Place], None]:
    return lambda place: instead(make)(place.folder / "common")  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("harm", "words", "kind"),
    [
        (
            lambda place: [path.unlink() for path in place.folder.glob("[oc]*")],
            ["{folder}/old.qcow2", "is missing", "prepare_chain()"],
            "NotFoundError",
        ),
        (
            lambda place: (place.folder / "common").unlink(),
            ["backing file '{folder}/common' of '{folder}/old.qcow2' is missing", "prepare_chain"],
            "NotFoundError",
        ),
        (shorten, ["chain of the copy has 1 layers, but the chain in use has 2"], "ImageError"),
        (loop, ["loop", "{folder}/old.qcow2"], "ImageError"),
        (name_below("new.qcow2"), ["loop", "{folder}/new.qcow2"], "ImageError"),
        (name_below("json:{}"), ["'{folder}/old.qcow2'", "'json:{{}}'", "protocol"], "ImageError"),
        (name_below("nbd://h/x"), ["'nbd://h/x'", "protocol"], "ImageError"),
        (name_below("/etc/shadow"), ["'/etc/shadow'", "absolute"], "ImageError"),
        (name_below("../../../../../../../../../etc/shadow"), ["/etc/shadow"], "ImageError"),
        (name_below("../../path1/common"), ["leads out of the folder"], "ImageError"),
        (
            lambda place: create_empty(place.folder / "common", None, size="32M"),
            ["'{folder}/common' has 33554432 bytes, but", "path1/common' has 67108864"],
            "ImageError",
        ),
        (
            lambda place: create_empty(place.folder / "old.qcow2", "common", backing_format="raw"),
            ["'{folder}/common' has format raw, but"],
            "ImageError",
        ),
        (
            replace_base(lambda path: path.symlink_to(path.parents[2] / "path1" / "common")),
            ["'{folder}/common' is a symbolic link"],
            "ImageError",
        ),
        (replace_base(os.mkfifo), ["'{folder}/common' is a FIFO"], "ImageError"),
        (
            replace_base(lambda path: path.write_bytes(b"QFI\xfb" + bytes(200))),
            ["'{folder}/common' is no usable qcow2 image"],
            "ImageError",
        ),
    ],
)
def test_create_on_a_chain_with_a_defect_is_refused(
    place: Place, harm: Callable[[Place], object], words: list[str], kind: str
) -> None:
    harm(place)
    said = [word.format(folder=place.folder) for word in words]
    code = UNSUPPORTED
    if kind == "NotFoundError":
        code = libvirt.VIR_ERR_SYSTEM_ERROR
    with refused(place.guest, getattr(virmirror, kind), code, "disk 'vda': ", *said, disk="vda"):
        place.create()


@pytest.mark.parametrize("name", [b"/etc/x", b"nbd:/x", b"other/", b"old.qc"])
def test_create_is_refused_where_a_header_in_use_says_what_libvirt_does_not(
    place: Place, name: bytes
) -> None:
    top = place.guest.path1 / "old.qcow2"
    offset = top.read_bytes().index(b"common")
    patch(top, offset, name)
    try:
        words = [f"below '{top}' there is", "by libvirt", f"but '{name.decode()}' by its header"]
        with refused(place.guest, virmirror.ImageError, UNSUPPORTED, "disk 'vda': ", *words):
            place.create()
    finally:
        patch(top, offset, b"common")


# ---- what becomes of the files while the mirror is ready


@pytest.fixture
def ready(guest: Guest) -> Place:
    """A mirror of vda that could be pivoted to, until a test harms its files."""
    place = Place(guest, guest.path1 / "over.qcow2", guest.path2 / "new.qcow2")
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    create_empty(place.overlay)
    create_empty(place.mirror)
    mirror = place.create()
    mirror.wait_ready(timeout=30)
    mirror.detach()
    return place


def exchange(path: pathlib.Path) -> None:
    """Put a copy in its place, as `mv` or `rsync` would."""
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.rename(path)


def test_pivot_is_refused_while_the_files_are_not_those_of_the_start(ready: Place) -> None:
    guest, folder = ready.guest, ready.folder
    snap = guest.dom.snapshotLookupByName("migrate")
    Case = tuple[Callable[[pathlib.Path], object], pathlib.Path, str, int, str]
    invalid = libvirt.VIR_ERR_OPERATION_INVALID
    cases: list[Case] = [
        (exchange, folder / "old.qcow2", "DivergedError", invalid, "replaced by another file"),
        (exchange, folder / "common", "DivergedError", invalid, "replaced by another file"),
        (
            pathlib.Path.unlink,
            folder / "common",
            "NotFoundError",
            libvirt.VIR_ERR_SYSTEM_ERROR,
            "No such file",
        ),
        (
            lambda path: create_empty(path, None, size="65M"),
            folder / "common",
            "DivergedError",
            invalid,
            "replaced by another file",
        ),
        (
            lambda path: os.truncate(path, 100),
            folder / "common",
            "ImageError",
            UNSUPPORTED,
            "no usable qcow2 image",
        ),
        (
            lambda path: patch(path, 24, (65 * MIB).to_bytes(8, "big")),
            folder / "common",
            "ImageError",
            UNSUPPORTED,
            "has 68157440 bytes",
        ),
    ]
    for harm, path, kind, code, words in cases:
        kept, content = path.rename(path.with_name("kept")), path.with_name("kept").read_bytes()
        path.hardlink_to(kept)
        harm(path)
        with refused(guest, getattr(virmirror, kind), code, f"'{path}'", words, disk="vda"):
            virmirror.snapshotDelete(snap, PIVOT)
        path.unlink(missing_ok=True)
        kept.rename(path)
        path.write_bytes(content)
    with opened_for_writing(folder / "common"):
        code = libvirt.VIR_ERR_BLOCK_COPY_ACTIVE
        with refused(guest, virmirror.BusyError, code, f"'{folder}/common' is open for writing"):
            virmirror.snapshotDelete(snap, PIVOT)
    # nothing of it has harmed the mirror
    for name in ("common", "old.qcow2"):
        (folder / name).write_bytes((guest.path1 / name).read_bytes())
    virmirror.snapshotDelete(snap, PIVOT)
    assert guest.chain()[0] == ready.mirror
    guest.wait_for_writes(50)
    guest.check()


@pytest.mark.parametrize(
    ("harm", "kind"), [(exchange, "DivergedError"), (pathlib.Path.unlink, "NotFoundError")]
)
def test_mirror_whose_file_is_lost_can_only_be_aborted(
    ready: Place, harm: Callable[[pathlib.Path], object], kind: str
) -> None:
    guest = ready.guest
    snap = guest.dom.snapshotLookupByName("migrate")
    harm(ready.mirror)
    code = libvirt.VIR_ERR_OPERATION_INVALID
    if kind == "NotFoundError":
        code = libvirt.VIR_ERR_SYSTEM_ERROR
    with refused(guest, getattr(virmirror, kind), code, f"'{ready.mirror}'", disk="vda"):
        virmirror.snapshotDelete(snap, PIVOT)
    virmirror.snapshotDelete(snap, ABORT)
    assert guest.chain()[0] == ready.overlay
    assert not guest.has_journal()
    guest.wait_for_writes(50)
    guest.check()
