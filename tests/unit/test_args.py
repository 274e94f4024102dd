# SPDX-License-Identifier: LGPL-2.1-or-later
"""What callers pass: libvirt-python's objects and proxies of them, timeouts, flags, paths."""

import enum
import math
import os
import re
from decimal import Decimal
from pathlib import Path
from unittest import mock

import libvirt
import pytest

import virmirror

SPEC = "vda,mirror=/new/disk.qcow2"


class DomProxy:
    """As some managers wrap a domain: without `_o`, with `.dom`."""

    def __init__(self, dom):
        self.dom = dom


class GetattrProxy:
    """As others do: everything is looked up in the domain."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)


class BrokenProxy:
    @property
    def _o(self):
        raise RuntimeError("the connection is gone")


def takers():
    """Return functions that take a domain and nothing unusual."""
    return {
        "adopt": virmirror.adopt,
        "prepare_chain": lambda dom: virmirror.prepare_chain(dom, "vda", "/new"),
        "block_pull": lambda dom: virmirror.block_pull(dom, "vda"),
        "snapshotCreateXML": lambda dom: virmirror.snapshotCreateXML(dom, "<domainsnapshot/>"),
        "create": lambda dom: virmirror.MirrorSnapshot.create(dom, "name", SPEC),
    }


@pytest.fixture(params=takers())
def take_domain(request):
    return takers()[request.param]


@pytest.mark.parametrize("proxy", [DomProxy, GetattrProxy])
def test_domain_behind_a_proxy_is_taken(journalled, proxy):
    wrapped = proxy(journalled)
    mirror = virmirror.adopt(wrapped)
    mirror.detach()
    assert mirror.domain is wrapped


def test_domain_behind_a_proxy_gets_libvirts_methods(dom):
    snap = virmirror.snapshotCreateXML(DomProxy(dom), "<domainsnapshot/>")
    assert snap.domain() is dom


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (3, "int"),
        (None, "NoneType"),
        ("guest", "str"),
        (libvirt.virDomain, "type"),
        (mock.Mock(), "Mock"),
        (DomProxy(3), "DomProxy"),
    ],
    ids=repr,
)
def test_domain_of_the_wrong_type_is_refused(take_domain, wrong, name):
    with pytest.raises(TypeError, match=f"^expected a libvirt.virDomain, not {name}$"):
        take_domain(wrong)


def test_domain_that_is_a_connection_is_refused(take_domain, conn):
    expected = "expected a libvirt.virDomain (virDomainPtr), not a virConnectPtr"
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
        take_domain(conn)


def test_domain_that_is_a_snapshot_is_refused(take_domain, snap):
    expected = "expected a libvirt.virDomain (virDomainPtr), not a virDomainSnapshotPtr"
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
        take_domain(snap)


@pytest.mark.parametrize("wrap", [lambda dom: dom, DomProxy], ids=["itself", "proxy"])
def test_domain_that_was_freed_is_refused(take_domain, dom, wrap):
    dom.__del__()
    with pytest.raises(
        virmirror.SpecError, match=r"^this libvirt\.virDomain object was freed$"
    ) as e:
        take_domain(wrap(dom))
    assert e.value.get_error_code() == libvirt.VIR_ERR_INVALID_DOMAIN


def test_domain_whose_attribute_raises_passes_that_on(take_domain):
    with pytest.raises(RuntimeError, match="the connection is gone"):
        take_domain(BrokenProxy())


def test_domain_after_its_connection_was_closed_stays_valid(conn, dom):
    conn.close()
    with pytest.raises(virmirror.NotFoundError):
        virmirror.adopt(dom)


@pytest.mark.parametrize("function", ["snapshotDelete", "snapshotGetXMLDesc"])
def test_snapshot_of_the_wrong_kind_is_refused(function, dom):
    with pytest.raises(
        TypeError, match=r"^expected a libvirt\.virDomainSnapshot \(.*virDomainPtr$"
    ):
        getattr(virmirror, function)(dom)
    with pytest.raises(TypeError, match=r"^expected a libvirt\.virDomainSnapshot, not str$"):
        getattr(virmirror, function)("migrate")


@pytest.mark.parametrize("function", ["snapshotDelete", "snapshotGetXMLDesc"])
def test_snapshot_that_was_freed_is_refused(function, snap):
    snap.__del__()
    with pytest.raises(
        virmirror.SpecError, match=r"^this libvirt.virDomainSnapshot object was"
    ) as e:
        getattr(virmirror, function)(snap)
    assert e.value.get_error_code() == libvirt.VIR_ERR_INVALID_DOMAIN_SNAPSHOT


def test_snapshot_whose_domain_was_freed_is_refused(dom, snap):
    dom.__del__()
    with pytest.raises(virmirror.SpecError, match=r"virDomain object was freed$"):
        virmirror.snapshotDelete(snap)


@pytest.mark.parametrize("value", [None, 5, 5.5, math.inf, 1e300, Decimal(3)], ids=repr)
def test_timeout_that_makes_sense_is_taken(mirror, value):
    with pytest.raises(virmirror.MirrorError, match="virDomainGetBlockJobInfo"):
        mirror.abort(timeout=value)


@pytest.mark.parametrize("value", [-1, -0.5, math.nan, -math.inf], ids=repr)
def test_timeout_out_of_range_is_refused(mirror, value):
    for method in (mirror.wait_ready, mirror.pivot, mirror.abort):
        with pytest.raises(
            ValueError, match=f"^timeout must be None or seconds >= 0, not {value}$"
        ):
            method(timeout=value)


@pytest.mark.parametrize("value", [True, False, "5", [5], 5j], ids=repr)
def test_timeout_of_the_wrong_type_is_refused(mirror, value):
    expected = f"^timeout must be None or seconds, not {type(value).__name__}$"
    for method in (mirror.wait_ready, mirror.pivot, mirror.abort):
        with pytest.raises(TypeError, match=expected):
            method(timeout=value)


def test_timeout_too_large_for_a_float_is_refused(mirror):
    with pytest.raises(OverflowError):
        mirror.wait_ready(timeout=10**400)


def test_timeout_of_nothing_raises_a_timeout(mirror):
    with pytest.raises(TimeoutError) as caught:
        mirror.wait_ready(timeout=0)
    assert isinstance(caught.value, virmirror.MirrorTimeoutError)


class Flag(enum.IntFlag):
    CHILDREN = 1


@pytest.mark.parametrize("flags", [1, Flag.CHILDREN], ids=repr)
def test_flags_as_any_integer_are_passed_on(dom, snap, flags):
    assert virmirror.snapshotDelete(snap, flags=flags) == 0
    assert dom.snapshotNum() == 0


@pytest.mark.parametrize("flags", [-1, 2**32, 2**80])
def test_flags_out_of_range_are_refused(dom, flags):
    expected = f"^flags must be from 0 to 4294967295, not {flags}$"
    with pytest.raises(ValueError, match=expected):
        virmirror.snapshotCreateXML(dom, "<domainsnapshot/>", flags)


@pytest.mark.parametrize("flags", [True, 1.0, "1", None], ids=repr)
def test_flags_of_the_wrong_type_are_refused(dom, flags):
    with pytest.raises(TypeError, match=f"^flags must be an int, not {type(flags).__name__}$"):
        virmirror.snapshotCreateXML(dom, "<domainsnapshot/>", flags)


@pytest.mark.parametrize("bandwidth", [-1, 2**64])
def test_bandwidth_out_of_range_is_refused(dom, bandwidth):
    with pytest.raises(ValueError, match=r"^bandwidth must be from 0 to "):
        virmirror.block_pull(dom, "vda", bandwidth=bandwidth)


@pytest.mark.parametrize("kind", [str, os.fsencode, Path], ids=["str", "bytes", "PathLike"])
def test_path_of_any_kind_is_taken(dom, tmp_path, kind):
    with pytest.raises(virmirror.MirrorError, match="gone"):
        virmirror.prepare_chain(dom, "vda", kind(tmp_path / "gone"))


def test_path_of_the_wrong_type_is_refused(dom):
    with pytest.raises(TypeError, match=r"str, bytes or os\.PathLike"):
        virmirror.prepare_chain(dom, "vda", 3)


def test_path_with_a_null_character_is_refused(dom):
    with pytest.raises(ValueError, match="null"):
        virmirror.prepare_chain(dom, "vda", "/new\0/x")


def test_diskspecs_as_text_or_any_iterable_are_the_same():
    text = virmirror.snapshot_xml("name", None, SPEC)
    assert virmirror.snapshot_xml("name", None, [SPEC]) == text
    assert virmirror.snapshot_xml("name", None, (spec for spec in [SPEC])) == text


def test_diskspecs_that_are_no_iterable_are_refused(dom):
    with pytest.raises(
        TypeError, match=r"^disks must be a diskspec or an iterable of them, not int$"
    ):
        virmirror.MirrorSnapshot.create(dom, "name", 3)


@pytest.mark.parametrize("wrong", [3, b"vda", None], ids=repr)
def test_diskspec_that_is_no_text_is_refused(dom, wrong):
    with pytest.raises(TypeError, match=f"^a diskspec must be a str, not {type(wrong).__name__}$"):
        virmirror.MirrorSnapshot.create(dom, "name", [SPEC, wrong])


def test_diskspecs_whose_iterator_raises_pass_that_on(dom):
    def broken():
        yield SPEC
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        virmirror.MirrorSnapshot.create(dom, "name", broken())


SYNTAX = (
    "write disk[,snapshot=type][,driver=type][,file=name][,mirror=name], "
    "and a comma in a name twice"
)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("", "it names no disk"),
        ("vda,", "a field is empty"),
        ("vda,mirror=", "'mirror=' has no value"),
        ("vda,mirror=/a,mirror=/b", "'mirror=' is given twice"),
        ("vda,size=3", "'size=3' is unknown"),
    ],
)
def test_diskspec_that_is_not_valid_is_told_exactly(dom, spec, reason):
    with pytest.raises(virmirror.SpecError) as caught:
        virmirror.MirrorSnapshot.create(dom, "name", spec)
    assert str(caught.value) == f"diskspec '{spec}' is not valid: {reason}; {SYNTAX}"
    assert isinstance(caught.value, ValueError)
    assert caught.value.get_error_code() == libvirt.VIR_ERR_INVALID_ARG


def test_diskspec_with_a_null_character_is_refused(dom):
    with pytest.raises(ValueError, match=r"^a diskspec must not contain a null character$"):
        virmirror.MirrorSnapshot.create(dom, "name", "vda\0,mirror=/x")
