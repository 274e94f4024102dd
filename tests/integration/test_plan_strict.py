# SPDX-License-Identifier: LGPL-2.1-or-later
"""What stands in a disk's definition: refused, or the same after a move."""

from __future__ import annotations

import pathlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import libvirt
import pytest

import virmirror
from support.guest import SIZE, Guest
from support.refusal import refused
from support.storage import READ, denied

pytestmark = pytest.mark.qemu

UNSUPPORTED = libvirt.VIR_ERR_CONFIG_UNSUPPORTED
INVALID = libvirt.VIR_ERR_OPERATION_INVALID
SLICES = f"<slices><slice type='storage' offset='0' size='{SIZE}'/></slices>"
# Whatever wants to move a disk looks at its definition first.
WAYS: dict[str, Callable[[Guest], object]] = {
    "plan": lambda guest: virmirror.plan(guest.dom, {"vda": guest.path2}),
    "migrate": lambda guest: virmirror.migrate(guest.dom, {"vda": guest.path2}),
    "prepare": lambda guest: virmirror.prepare_chain(guest.dom, "vda", guest.path2),
    "create": lambda guest: virmirror.MirrorSnapshot.create(
        guest.dom, "migrate", f"vda,mirror={guest.path2}/new.qcow2"
    ),
    "xml": lambda guest: virmirror.snapshotCreateXML(
        guest.dom, virmirror.snapshot_xml("migrate", None, f"vda,mirror={guest.path2}/new.qcow2")
    ),
}


def kind_of(way: str, kind: type[virmirror.MirrorError]) -> type[virmirror.MirrorError]:
    """What is raised: a create finds no skeleton, too, which could not be made."""
    return virmirror.SpecError if way in ("create", "xml") else kind


def in_driver(attributes: str) -> Callable[[str], str]:
    return lambda xml: xml.replace("<driver name='qemu'", f"<driver name='qemu' {attributes}")


def in_source(children: str) -> Callable[[str], str]:
    return lambda xml: re.sub(r"(<source file=[^>]*)/>", rf"\1>{children}</source>", xml)


def redefine(guest: Guest, old: str, new: str) -> None:
    """Change the persistent definition, and not the running domain."""
    xml = guest.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert re.search(old, xml), xml
    guest.dom.connect().defineXML(re.sub(old, new, xml, count=1))


@pytest.mark.parametrize("way", WAYS)
def test_disk_that_is_a_slice_of_a_file_is_refused(
    make_guest: Callable[..., Guest], way: str
) -> None:
    guest = make_guest(layers=1, base_format="raw", edit=in_source(SLICES))
    kind = kind_of(way, virmirror.NotSupportedError)
    with refused(guest, kind, UNSUPPORTED, "'vda'", "<source><slices>"):
        WAYS[way](guest)
    guest.wait_for_writes()


@pytest.mark.parametrize("way", WAYS)
def test_disk_with_copy_on_read_is_refused(make_guest: Callable[..., Guest], way: str) -> None:
    guest = make_guest(edit=in_driver("copy_on_read='on'"))
    words = ("'vda'", "<driver copy_on_read='on'>", "restart the guest")
    with refused(guest, kind_of(way, virmirror.NotSupportedError), UNSUPPORTED, *words):
        WAYS[way](guest)
    guest.wait_for_writes()
    guest.check()


def test_everything_in_the_definition_that_is_refused_is_told_at_once(
    make_guest: Callable[..., Guest],
) -> None:
    edits = in_source(SLICES), in_driver("copy_on_read='on'")
    guest = make_guest(layers=1, base_format="raw", edit=lambda xml: edits[0](edits[1](xml)))
    words = ("<source><slices>", "<driver copy_on_read='on'>", "is the folder that")
    with refused(guest, virmirror.SpecError, UNSUPPORTED, *words):
        virmirror.plan(guest.dom, {"vda": guest.path1})


@pytest.mark.parametrize("way", WAYS)
def test_persistent_definition_with_a_secret_is_refused(
    make_guest: Callable[..., Guest], way: str
) -> None:
    guest = make_guest(layers=1, base_format="raw")
    secret = "<encryption format='luks'><secret type='passphrase' usage='s'/></encryption>"
    redefine(guest, r"(<source file='[^']*')/>", rf"\1>{secret}</source>")
    words = ("'vda'", "in the persistent definition <source><encryption>")
    with refused(guest, kind_of(way, virmirror.NotSupportedError), UNSUPPORTED, *words):
        WAYS[way](guest)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("type='qcow2'/>", "type='raw'/>", "another type or format"),
        (r"(<source file='[^']*old.qcow2'/>)", r"\1<backingStore/>", "another backing chain"),
        (
            r"(<source file='([^']*)old.qcow2'/>)",
            r"\1<backingStore type='file'><format type='raw'/><source file='\2common'/>"
            "<backingStore/></backingStore>",
            "another backing chain",
        ),
        (
            r"(<source file='([^']*)old.qcow2'/>)",
            r"\1<backingStore type='file'><format type='qcow2'/><source file='\2other'/>"
            "<backingStore/></backingStore>",
            "another backing chain",
        ),
    ],
)
def test_persistent_definition_that_means_other_bytes_is_refused(
    guest: Guest, old: str, new: str, told: str
) -> None:
    redefine(guest, old, new)
    for way, call in WAYS.items():
        kind = kind_of(way, virmirror.StateError)
        code = UNSUPPORTED if kind is virmirror.SpecError else INVALID
        with refused(guest, kind, code, "'vda'", told):
            call(guest)
    guest.wait_for_writes()
    guest.check()


def test_persistent_definition_with_the_same_chain_is_fine(guest: Guest) -> None:
    below = (
        r"\1<backingStore type='file'><format type='qcow2'/><source file='\2common'/>"
        "<backingStore/></backingStore>"
    )
    redefine(guest, r"(<source file='([^']*)old.qcow2'/>)", below)
    virmirror.migrate(guest.dom, {"vda": guest.path2}, collapse="commit")
    assert guest.chain(inactive=True) == [guest.path2 / "old.qcow2"]
    assert guest.chain() == [guest.path2 / "old.qcow2", guest.path2 / "common"]
    guest.wait_for_writes()
    guest.check()


CACHE = "<metadata_cache><max_size unit='bytes'>{}</max_size></metadata_cache>"
LABEL = "<seclabel model='dac' relabel='no'/>"


def tuned(xml: str) -> str:
    """The definition with as many harmless settings as QEMU takes together."""
    (top,) = re.findall(r'<source file="([^"]*old.qcow2)"/>', xml)
    base = pathlib.Path(top).with_name("common")
    disk = f"""
      <disk type='file' device='disk' snapshot='external'>
        <driver name='qemu' type='qcow2' cache='none' error_policy='stop'
          rerror_policy='report' io='threads' ioeventfd='on' event_idx='on' discard='unmap'
          detect_zeroes='unmap' iothread='1' queues='1' queue_size='128' packed='off'
          page_per_vq='off' copy_on_read='off'>{CACHE.format(1 << 20)}</driver>
        <source file='{top}' startupPolicy='optional'>{LABEL}</source>
        <backingStore type='file'>
          <format type='qcow2'>{CACHE.format(2 << 20)}</format>
          <source file='{base}'>{LABEL}</source>
          <backingStore/>
        </backingStore>
        <target dev='vda' bus='virtio'/>
        <iotune><total_bytes_sec>100000000</total_bytes_sec><group_name>g</group_name></iotune>
        <serial>abc</serial><boot order='1'/><alias name='ua-root'/>
        <blockio logical_block_size='512' physical_block_size='4096'/>
        <geometry cyls='130' heads='16' secs='63'/>
      </disk>"""
    xml = xml.replace("<vcpu>1</vcpu>", "<vcpu>1</vcpu><iothreads>1</iothreads>")
    return re.sub(r"<disk .*?</disk>", lambda _: disk, xml)


def elements(guest: Guest, flags: int = 0) -> list[tuple[str, dict[str, str], str]]:
    """Each element of the disk, with its path, attributes and text; not what has to change:
    folders, names of the files, numbers of QEMU's nodes."""
    disk = ET.fromstring(guest.dom.XMLDesc(flags)).find(".//disk")
    assert disk is not None
    found = []

    def walk(element: ET.Element, path: str) -> None:
        path += f"/{element.tag}"
        attributes = {key: value for key, value in element.attrib.items() if key != "index"}
        if "file" in attributes:
            attributes["file"] = "the file"
        found.append((path, attributes, (element.text or "").strip()))
        for child in element:
            walk(child, path)

    walk(disk, "")
    return found


@pytest.mark.parametrize("collapse", ["commit", "pull", "none"])
def test_disk_with_all_harmless_settings_has_them_after_a_move(
    make_guest: Callable[..., Guest], collapse: virmirror.Collapse
) -> None:
    guest = make_guest(edit=tuned)
    live, persistent = elements(guest), elements(guest, libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert len(live) > 20
    virmirror.migrate(guest.dom, {"vda": guest.path2}, collapse=collapse)
    if collapse == "none":
        # one layer more, which is tuned as the one that it is on
        top = [one for one in live if one[0].startswith(("/disk/driver", "/disk/source"))]
        assert [one for one in elements(guest) if one in top] == top
        assert len([one for one in elements(guest) if "seclabel" in one[0]]) == 3
    else:
        assert elements(guest) == live
        assert elements(guest, libvirt.VIR_DOMAIN_XML_INACTIVE) == persistent
    assert {path.parent for path in guest.chain()} == {guest.path2}
    guest.wait_for_writes()
    guest.check()
    guest.dom.create()
    guest.wait_for_writes()


def test_disk_with_settings_has_them_after_a_create_and_an_abort(
    make_guest: Callable[..., Guest],
) -> None:
    guest = make_guest(edit=tuned)
    virmirror.prepare_chain(guest.dom, "vda", guest.path2)
    mirror = virmirror.MirrorSnapshot.create(guest.dom, "m", f"vda,mirror={guest.path2}/new")
    mirror.wait_ready(timeout=60)
    assert len(re.findall("<seclabel model='dac' relabel='no'/>", guest.dom.XMLDesc())) == 6
    mirror.abort()
    assert [path for path, _, _ in elements(guest)].count("/disk/source/seclabel") == 1
    guest.wait_for_writes()
    guest.check()


def test_disks_with_settings_that_are_brought_back_have_them(
    make_guest: Callable[..., Guest],
) -> None:
    cache = CACHE.format(1 << 20)

    def tune(xml: str) -> str:
        xml = re.sub(r"(<driver name='qemu' type=.qcow2.)/>", rf"\1>{cache}</driver>", xml)
        return in_source(LABEL)(xml)

    guest = make_guest(disks=2, edit=tune)
    specs = []
    for target in ("vda", "vdb"):
        virmirror.prepare_chain(guest.dom, target, guest.path2)
        specs.append(f"{target},mirror={guest.path2}/new-{target}")
    mirror = virmirror.MirrorSnapshot.create(guest.dom, "m", specs)
    for path in guest.path2.iterdir():
        if (source := guest.path1 / path.name).exists():
            virmirror.copy(source, path, overwrite=True)
    mirror.wait_ready(timeout=60)
    tuned_live = elements(guest)
    with denied(guest.path2 / "old2.qcow2", READ):
        with pytest.raises(virmirror.MirrorError, match="were brought back"):
            mirror.pivot()
    assert guest.chain()[1:] == [guest.path1 / "old.qcow2", guest.path1 / "common"]
    assert [one for one in tuned_live if "mirror" not in one[0]] == elements(guest)
    mirror.abort()
    guest.wait_for_writes()
    guest.check()


def test_persistent_definition_with_settings_of_its_own_is_refused(guest: Guest) -> None:
    redefine(
        guest, r"(<driver name='qemu' type='qcow2')/>", rf"\1>{CACHE.format(1 << 20)}</driver>"
    )
    words = ("'vda'", "other settings of its files")
    with refused(guest, virmirror.StateError, INVALID, *words):
        virmirror.plan(guest.dom, {"vda": guest.path2})


SCHEMA = pathlib.Path("/usr/share/libvirt/schemas/domaincommon.rng")
RNG = "{http://relaxng.org/ns/structure/1.0}"
DISKLIST = pathlib.Path(__file__).parents[2] / "ext/core/disklist.c"


def names_in(schema: ET.Element, definition: str) -> set[str]:
    """The elements that a definition has, and their attributes, by name."""
    found = schema.find(f"{RNG}define[@name='{definition}']")
    assert found is not None, f"libvirt's schema has no {definition!r} any more"
    return {
        node.get("name") or ""
        for node in found.iter()
        if node.tag in (f"{RNG}element", f"{RNG}attribute")
    }


@pytest.mark.parametrize(
    "definition",
    [
        *("diskspec", "diskDriver", "diskSourceCommon", "diskSourceFile", "diskSourceBlock"),
        *("diskFormat", "diskBackingStore", "virtioOptions"),
    ],
)
def test_all_that_the_installed_libvirt_knows_has_an_answer(definition: str) -> None:
    known = set(re.findall(r'"(\w+)"', DISKLIST.read_text()))
    # parts of elements that are refused, or that stay as they are
    inside = {"slice", "shareBacking"}
    assert names_in(ET.parse(SCHEMA).getroot(), definition) <= known | inside
