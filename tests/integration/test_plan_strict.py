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
