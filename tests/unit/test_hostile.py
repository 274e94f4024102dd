# SPDX-License-Identifier: LGPL-2.1-or-later
"""What somebody who means harm may have written: names, XML, the journal."""

from xml.sax.saxutils import quoteattr

import libvirt
import pytest

import virmirror

JOURNAL_URI = "urn:virmirror:journal"
EVERYWHERE = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
FILES = "".join(f"<{kind} path='/{kind}' format='qcow2'/>" for kind in ("source", "overlay"))
FILES += "<mirror path='/new/\u00e4,b' format='qcow2'/>"

# They mean something to a shell, to qemu-img, to QEMU, to XML, to a format string.
ODD_NAMES = [
    *("a,b", "a,,b=c", "nbd:x", "json:{}", "'q'", '"q"', "-rf", "--help", "a b", "$(id)"),
    *("%s%n", "<a>&amp;", "\u00e4\u2713", "a\\b", "*", "#x", "fat:rw:x"),
]
CONTROL_NAMES = ["a\nb", "a\rb", "a\tb", "a\x1b[2Jb", "a\x7f", "a\x85b", "a\u2028b"]


def record(uuid, *, version="1", sequence="3", snapshot="s", state="mirroring", disks=None):
    """Return a record of one disk, or with `disks` in it."""
    disks = f"<disk target='vda' state='mirroring'>{FILES}</disk>" if disks is None else disks
    head = {"version": version, "sequence": sequence, "snapshot": snapshot}
    head |= {"domain": uuid, "state": state}
    attributes = " ".join(f"{key}={quoteattr(value)}" for key, value in head.items())
    return f"<mirror {attributes}>{disks}</mirror>"


def set_journal(dom, xml):
    element = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    dom.setMetadata(element, xml, "virmirror", JOURNAL_URI, EVERYWHERE)


def check_text(error):
    """An error is one line that can be shown on any terminal."""
    text = str(error)
    assert text
    assert text.isprintable(), ascii(text)


LAYER = f"<copy path='/{'a' * 4000}' format='raw'/>"
UNUSABLE = {
    "foreign": (lambda uuid: "<other xmlns:a='urn:a' a:b='c'/>", "must be a <mirror>"),
    "empty": (lambda uuid: "<mirror/>", "no proper 'version'"),
    "newer": (lambda uuid: record(uuid, version="2"), "version 2"),
    "version of letters": (lambda uuid: record(uuid, version="1\n"), "no number"),
    "negative": (lambda uuid: record(uuid, sequence="-1"), "no number"),
    "too large a number": (lambda uuid: record(uuid, sequence="9" * 20), "no number"),
    "unknown state": (lambda uuid: record(uuid, state="a\x7fb"), "unknown state"),
    "other domain": (lambda uuid: record("0\n" * 18), "belongs to the domain"),
    "truncated": (lambda uuid: record(uuid, disks=""), "no disks"),
    "truncated disk": (
        lambda uuid: record(uuid, disks="<disk target='vda' state='mirroring'/>"),
        "no <source>",
    ),
    "twice the same": (
        lambda uuid: record(uuid, disks=f"<disk target='vda' state='mirroring'>{FILES}</disk>" * 2),
        "there twice",
    ),
    "relative": (
        lambda uuid: record(uuid, disks=f"<disk target='a' state='failed'>{FILES}</disk>").replace(
            "'/source'", "'../source'"
        ),
        "not absolute",
    ),
    "oversized": (
        lambda uuid: record(
            uuid, disks=f"<disk target='a' state='failed'>{FILES}{LAYER * 80}</disk>"
        ),
        "larger than",
    ),
    "deep": (
        lambda uuid: record(uuid, disks="<disk>" * 50 + "</disk>" * 50),
        "deep",
    ),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_journal_that_is_unusable_is_refused_and_kept(dom, kind):
    make, expected = UNUSABLE[kind]
    set_journal(dom, make(dom.UUIDString()))
    before = dom.XMLDesc()
    calls = [
        lambda: virmirror.adopt(dom),
        lambda: virmirror.inspect(dom),
        *(lambda how=how: virmirror.recover(dom, how) for how in ("resume", "abort", "pivot")),
        lambda: virmirror.MirrorSnapshot.create(dom, "name", "vda,mirror=/a"),
    ]
    for call in calls[:5]:
        with pytest.raises(virmirror.JournalError, match=expected) as caught:
            call()
        check_text(caught.value)
    with pytest.raises(virmirror.MirrorError) as caught:
        calls[5]()
    check_text(caught.value)
    assert dom.XMLDesc() == before


def test_journal_with_attributes_in_namespaces_is_read_or_refused(dom):
    xml = record(dom.UUIDString()).replace("<mirror ", "<mirror xmlns:z='urn:z' z:version='9' ", 1)
    set_journal(dom, xml)
    with pytest.raises(virmirror.JournalError) as caught:
        virmirror.adopt(dom)
    check_text(caught.value)


@pytest.mark.parametrize(
    "bomb",
    [
        "<!DOCTYPE domainsnapshot [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]>"
        "<domainsnapshot><name>&b;</name></domainsnapshot>",
        "<!DOCTYPE domainsnapshot SYSTEM 'file:///etc/passwd'><domainsnapshot/>",
        "<domainsnapshot>" + "<a>" * 100000,
        "<domainsnapshot>" + "<a>" * 300 + "</a>" * 300 + "</domainsnapshot>",
        "<domainsnapshot " + "a" * 5000000 + "='b'/>",
        "<domainsnapshot><name>&#0;</name></domainsnapshot>",
        "<domainsnapshot><name>&#1;\x1b[2J</name></domainsnapshot>",
    ],
    ids=["entities", "external", "unclosed", "deep", "long", "nul", "control"],
)
def test_xml_that_is_a_bomb_is_refused(dom, bomb):
    with pytest.raises(virmirror.SpecError) as caught:
        virmirror.snapshotCreateXML(dom, bomb)
    check_text(caught.value)
    assert dom.snapshotNum() == 0


@pytest.mark.parametrize("name", CONTROL_NAMES, ids=ascii)
def test_name_with_control_characters_is_refused(dom, tmp_path, name):
    create = virmirror.MirrorSnapshot.create
    calls = [
        lambda: create(dom, name, "vda,mirror=/a"),
        lambda: create(dom, "name", f"vda,mirror=/{name}"),
        lambda: create(dom, "name", f"{name},mirror=/a"),
        lambda: virmirror.prepare_chain(dom, "vda", str(tmp_path / name)),
    ]
    (tmp_path / name).mkdir()
    for call in calls:
        with pytest.raises(virmirror.SpecError) as caught:
            call()
        check_text(caught.value)
    assert list((tmp_path / name).iterdir()) == []


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_odd_name_of_a_folder_is_but_a_name(dom, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    before = sorted(tmp_path.iterdir())
    made = virmirror.prepare_chain(dom, "vda", str(folder))
    assert list(made) == [str(folder / "disk.qcow2")]
    assert [path.name for path in folder.iterdir()] == ["disk.qcow2"]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_odd_name_of_an_image_is_but_a_name(conn, dom, disk_path, tmp_path, name):
    disk_path.rename(tmp_path / name)
    xml = dom.XMLDesc().replace(f"'{disk_path}'", quoteattr(str(tmp_path / name)))
    dom.destroy()
    dom = conn.defineXML(xml)
    dom.create()
    folder = tmp_path / "new"
    folder.mkdir()
    made = virmirror.prepare_chain(dom, "vda", str(folder))
    assert list(made) == [str(folder / name)]
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_odd_name_in_a_spec_comes_through_xml(name):
    doubled = name.replace(",", ",,")
    xml = virmirror.snapshot_xml(name, name, f"vda,file=/old/{doubled},mirror=/new/{doubled}")
    for value in (f"/old/{name}", f"/new/{name}"):
        escaped = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert escaped.replace('"', "&quot;") in xml
