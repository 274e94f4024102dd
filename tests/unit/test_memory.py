# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nothing is kept: references, objects that the collector cannot see, memory."""

import gc
import subprocess
import sys
import tracemalloc

import libvirt
import pytest

import virmirror
from virmirror import _core

ROUNDS = 50


def count(*things):
    """Return the reference counts; in an assert, pytest itself would hold some more."""
    gc.collect()
    return [sys.getrefcount(thing) for thing in things]


def failing_calls(dom, snap):
    """Return calls that fail at different depths of the binding."""
    create = virmirror.MirrorSnapshot.create
    return [
        lambda: create(dom, "name", 3),
        lambda: create(dom, "name", ["vda,mirror=/a", 3]),
        lambda: create(dom, "name", "vda,,"),
        lambda: create(dom, "name", "vda,mirror=/a", timeout=-1),
        lambda: create(dom, "name", "vda,mirror=/a"),
        lambda: virmirror.adopt(dom, "other"),
        lambda: virmirror.prepare_chain(dom, "vdz", "/new"),
        lambda: virmirror.prepare_chain(dom, "vda", 3),
        lambda: virmirror.block_pull(dom, "vdz", "/base"),
        lambda: virmirror.snapshotCreateXML(dom, "<", -1),
        lambda: virmirror.snapshotCreateXML(dom, "<"),
        lambda: virmirror.snapshotDelete(snap, 8 | 16),
        lambda: virmirror.snapshotDelete(dom),
        lambda: virmirror.snapshotGetXMLDesc(snap, 1),
        lambda: virmirror.snapshot_xml("a/b", None, "vda,mirror=x"),
    ]


def use_all(dom, snap):
    for call in failing_calls(dom, snap):
        with pytest.raises((TypeError, ValueError, libvirt.libvirtError)):
            call()


def use_mirror(dom):
    mirror = virmirror.adopt(dom)
    with pytest.raises(virmirror.MirrorError):
        mirror.progress()
    assert mirror.disks
    assert repr(mirror)
    mirror.detach()


def test_calls_that_fail_keep_no_reference(dom, snap):
    things = (dom, snap, virmirror.SpecError)
    use_all(dom, snap)
    before = count(*things)
    for _ in range(ROUNDS):
        use_all(dom, snap)
    assert count(*things) == before


def test_mirror_snapshot_keeps_no_reference_after_its_end(journalled):
    things = (journalled, virmirror.MirrorSnapshot, virmirror.MirrorDisk)
    use_mirror(journalled)
    before = count(*things)
    for _ in range(ROUNDS):
        use_mirror(journalled)
    assert count(*things) == before


def test_mirror_snapshot_keeps_its_domain_alive(journalled):
    (before,) = count(journalled)
    mirror = virmirror.adopt(journalled)
    assert count(journalled) == [before + 1]
    mirror.detach()
    del mirror
    assert count(journalled) == [before]


def test_collector_sees_what_a_mirror_snapshot_refers_to(mirror):
    assert gc.is_tracked(mirror)
    referents = gc.get_referents(mirror)
    for thing in (type(mirror), mirror.domain, mirror.disks):
        assert any(thing is referent for referent in referents)


def test_collector_sees_what_the_module_refers_to():
    referents = gc.get_referents(_core)
    for thing in (_core.MirrorSnapshot, _core.MirrorDisk, virmirror.SpecError):
        assert any(thing is referent for referent in referents)


def test_cycle_through_the_domain_is_collected(journalled):
    class Holder:
        _o = journalled._o

    things = (virmirror.MirrorSnapshot, Holder)
    before = count(*things)
    for _ in range(ROUNDS):
        holder = Holder()
        holder.mirror = virmirror.adopt(holder)
        holder.mirror.detach()
    del holder
    assert count(*things) == before


def test_memory_of_python_does_not_grow(journalled):
    use_mirror(journalled)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(5):
            use_mirror(journalled)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(ROUNDS):
            use_mirror(journalled)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 100 * ROUNDS


@pytest.mark.parametrize(
    "program",
    [
        # a second copy of the module has a state of its own
        "import sys, virmirror; first = sys.modules.pop('virmirror._core');"
        "import virmirror._core as second;"
        "assert first is not second and first.MirrorSnapshot is not second.MirrorSnapshot;"
        "assert first._error_types == second._error_types",
        # importing starts no event loop and brings nothing along
        "import sys, threading, virmirror;"
        "assert threading.active_count() == 1;"
        "assert len(__import__('os').listdir('/proc/self/task')) == 1;"
        "assert 'virmirror.embed' not in sys.modules",
    ],
    ids=["second copy", "import only"],
)
def test_program_of_its_own_succeeds(program):
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
