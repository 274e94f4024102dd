# SPDX-License-Identifier: LGPL-2.1-or-later
"""The functions of libvirt's shape, as far as libvirt's test driver goes."""

import libvirt
import pytest

import virmirror

PLAIN = "<domainsnapshot><name>plain</name></domainsnapshot>"
MIRRORED = virmirror.snapshot_xml("migrate", None, "vda,file=/old/o,mirror=/new/m")


@pytest.fixture
def inactive(conn):
    return conn.defineXML(
        "<domain type='test'><name>off</name><memory>1024</memory>"
        "<os><type>hvm</type></os></domain>"
    )


def test_create_xml_without_mirror_is_libvirts_own(dom):
    snap = virmirror.snapshotCreateXML(dom, PLAIN)
    assert isinstance(snap, libvirt.virDomainSnapshot)
    assert snap.domain() is dom
    assert dom.snapshotListNames() == ["plain"]


def test_create_xml_without_mirror_passes_flags_on(dom):
    virmirror.snapshotCreateXML(dom, PLAIN)
    with pytest.raises(libvirt.libvirtError) as caught:
        virmirror.snapshotCreateXML(dom, PLAIN, 1 << 30)
    assert not isinstance(caught.value, virmirror.MirrorError)
    assert dom.snapshotNum() == 1


def test_create_xml_without_mirror_while_mirrored_is_refused(journalled):
    with pytest.raises(virmirror.BusyError, match="'migrate'"):
        virmirror.snapshotCreateXML(journalled, PLAIN)
    assert journalled.snapshotNum() == 0


def test_create_xml_that_is_no_xml_is_refused(dom):
    with pytest.raises(virmirror.SpecError) as caught:
        virmirror.snapshotCreateXML(dom, "<domainsnapshot>")
    assert caught.value.get_error_code() == libvirt.VIR_ERR_XML_ERROR


@pytest.mark.parametrize("xml", [None, b"<domainsnapshot/>", "<domainsnapshot/>\0"], ids=repr)
def test_create_xml_that_is_no_text_is_refused(dom, xml):
    with pytest.raises((TypeError, ValueError)):
        virmirror.snapshotCreateXML(dom, xml)


@pytest.mark.parametrize(
    "flag",
    [
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_HALT,
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA,
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE,
    ],
)
def test_create_xml_mirrored_with_a_flag_that_does_not_fit_is_refused(dom, flag):
    with pytest.raises(virmirror.NotSupportedError):
        virmirror.snapshotCreateXML(dom, MIRRORED, flag)


def test_create_xml_mirrored_of_an_inactive_domain_is_refused(inactive):
    with pytest.raises(virmirror.MirrorError) as caught:
        virmirror.snapshotCreateXML(inactive, MIRRORED)
    assert caught.value.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
    assert "not running" in str(caught.value)


def test_create_xml_on_a_read_only_connection_is_refused(uri):
    conn = libvirt.openReadOnly(uri)
    with pytest.raises(libvirt.libvirtError) as caught:
        virmirror.snapshotCreateXML(conn.lookupByName("guest"), PLAIN)
    assert caught.value.get_error_code() == libvirt.VIR_ERR_OPERATION_DENIED


def test_create_without_support_of_the_hypervisor_is_refused(dom):
    with pytest.raises(virmirror.NotSupportedError):
        virmirror.MirrorSnapshot.create(dom, "migrate", "vda,mirror=/new/m")
    assert dom.snapshotNum() == 0


def test_create_of_an_inactive_domain_is_refused(inactive):
    with pytest.raises(virmirror.StateError, match="'off' is not running"):
        virmirror.MirrorSnapshot.create(inactive, "migrate", "vda,mirror=/new/m")


def test_delete_of_a_plain_snapshot_is_libvirts_own(dom, snap):
    assert virmirror.snapshotDelete(snap) == 0
    assert dom.snapshotNum() == 0


@pytest.mark.parametrize("flag", ["MIRROR_ABORT", "MIRROR_PIVOT"])
def test_delete_of_a_plain_snapshot_with_a_mirror_flag_is_refused(dom, snap, flag):
    flags = getattr(virmirror, f"VIR_DOMAIN_SNAPSHOT_DELETE_{flag}")
    with pytest.raises(virmirror.StateError, match="is not mirrored") as caught:
        virmirror.snapshotDelete(snap, flags)
    assert caught.value.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
    assert dom.snapshotNum() == 1


@pytest.mark.parametrize(
    ("flags", "what"), [(8 | 16, "mirror"), (1 | 4, "children")], ids=["mirror", "children"]
)
def test_delete_with_flags_that_exclude_each_other_is_refused(snap, flags, what):
    with pytest.raises(virmirror.SpecError) as caught:
        virmirror.snapshotDelete(snap, flags)
    assert str(caught.value) == f"delete {what} flags are mutually exclusive"
    assert caught.value.get_error_code() == libvirt.VIR_ERR_INVALID_ARG


def test_delete_constants_have_the_values_of_the_public_api():
    prefix = "VIR_DOMAIN_SNAPSHOT_DELETE_"
    values = {
        name.removeprefix(prefix): getattr(virmirror, name)
        for name in virmirror.__all__
        if name.startswith(prefix)
    }
    assert values == {
        "CHILDREN": 1,
        "METADATA_ONLY": 2,
        "CHILDREN_ONLY": 4,
        "MIRROR_ABORT": 8,
        "MIRROR_PIVOT": 16,
    }


def test_get_xml_desc_of_a_plain_snapshot_is_libvirts(snap):
    assert virmirror.snapshotGetXMLDesc(snap) == snap.getXMLDesc()


def test_get_xml_desc_with_flags_is_refused(snap):
    with pytest.raises(virmirror.NotSupportedError, match="0x1"):
        virmirror.snapshotGetXMLDesc(snap, libvirt.VIR_DOMAIN_SNAPSHOT_XML_SECURE)


def test_adopt_without_a_mirrored_snapshot_is_refused(dom):
    with pytest.raises(virmirror.NotFoundError, match=r"^the domain has no mirrored snapshot$"):
        virmirror.adopt(dom)


def test_adopt_with_another_name_is_refused(journalled):
    with pytest.raises(virmirror.NotFoundError, match="'migrate', not 'other'"):
        virmirror.adopt(journalled, "other")


def test_adopt_with_a_journal_that_cannot_be_read_is_refused(journalled):
    journalled.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT,
        "<mirror version='99'/>",
        "virmirror",
        "urn:virmirror:journal",
        libvirt.VIR_DOMAIN_AFFECT_LIVE,
    )
    with pytest.raises(virmirror.JournalError):
        virmirror.adopt(journalled)


def test_prepare_chain_of_an_unknown_disk_is_refused(dom, tmp_path):
    with pytest.raises(virmirror.NotFoundError, match=r"^domain 'guest' has no disk 'vdz'$"):
        virmirror.prepare_chain(dom, "vdz", tmp_path)


def test_prepare_chain_of_an_inactive_domain_is_refused(inactive, tmp_path):
    with pytest.raises(virmirror.StateError, match=r"^domain 'off' is not running$"):
        virmirror.prepare_chain(inactive, "vda", tmp_path)


@pytest.mark.parametrize("wait", [True, False])
def test_block_pull_of_an_unknown_disk_is_refused(dom, wait):
    with pytest.raises(virmirror.NotFoundError, match="vdz"):
        virmirror.block_pull(dom, "vdz", wait=wait)


def test_snapshot_xml_with_everything_is_complete():
    xml = virmirror.snapshot_xml(
        "a<b", "it's & more", ["vda,driver=qcow2,file=/a,,b,mirror=/c", "vdb,snapshot=no"]
    )
    assert "<name>a&lt;b</name>" in xml
    assert "&amp;" in xml
    assert 'file="/a,b"' in xml
    assert '<mirror file="/c"/>' in xml
    assert '<disk name="vdb" snapshot="no"/>' in xml


def test_snapshot_xml_without_mirror_is_left_to_libvirt(dom):
    xml = virmirror.snapshot_xml("plain")
    assert virmirror.snapshotCreateXML(dom, xml).getName() == "plain"


def test_snapshot_xml_mirrored_with_nonsense_tells_all_of_it():
    with pytest.raises(virmirror.SpecError) as caught:
        virmirror.snapshot_xml("a/b", None, ["vda,mirror=relative", "vdb"])
    for finding in ("'a/b'", "'relative'", "'vdb' has no mirror"):
        assert finding in str(caught.value)
