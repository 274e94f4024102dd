# SPDX-License-Identifier: LGPL-2.1-or-later
"""MirrorSnapshot as an object: attributes, context manager, life and death."""

import copy
import gc
import inspect
import pickle
import threading
import time
import traceback
import warnings
import weakref

import libvirt
import pytest

import virmirror
from virmirror import DiskProgress, MirrorDisk, MirrorFigures, MirrorSnapshot


def test_new_directly_is_refused():
    with pytest.raises(TypeError, match=r"use MirrorSnapshot\.create\(\) or adopt\(\)"):
        MirrorSnapshot()


def test_subclass_is_refused():
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (MirrorSnapshot,), {})


def test_set_attribute_is_refused(mirror):
    for name in ("name", "state", "disks", "domain", "snapshot", "other"):
        with pytest.raises(AttributeError):
            setattr(mirror, name, None)


def test_attributes_tell_what_the_journal_says(journalled, mirror, disk_path):
    assert mirror.name == "migrate"
    assert mirror.state == "mirroring"
    assert mirror.domain is journalled
    assert mirror.disks == (
        MirrorDisk(("vda", "mirroring", "/old/base.qcow2", str(disk_path), "/new/disk.qcow2")),
    )
    (disk,) = mirror.disks
    assert (disk.target, disk.mirror) == ("vda", "/new/disk.qcow2")


def test_snapshot_without_libvirts_record_raises_libvirts_error(mirror):
    with pytest.raises(libvirt.libvirtError) as caught:
        _ = mirror.snapshot
    assert caught.value.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT


def test_snapshot_with_libvirts_record_is_looked_up(journalled, mirror):
    journalled.snapshotCreateXML("<domainsnapshot><name>migrate</name></domainsnapshot>")
    assert mirror.snapshot.getName() == "migrate"
    assert mirror.snapshot.domain() is journalled


def test_snapshot_whose_domain_was_freed_is_refused(journalled, mirror):
    journalled.__del__()
    with pytest.raises(virmirror.SpecError, match="was freed"):
        _ = mirror.snapshot


def test_repr_tells_name_state_and_disks(mirror):
    assert repr(mirror) == "<MirrorSnapshot 'migrate', mirroring: vda mirroring>"
    mirror.detach()
    assert repr(mirror) == "<MirrorSnapshot 'migrate', mirroring, detached: vda mirroring>"


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_pickle_or_copy_is_refused(mirror, act):
    with pytest.raises(TypeError, match=r"^cannot pickle or copy a MirrorSnapshot: call adopt"):
        act(mirror)


@pytest.mark.parametrize("tuple_type", [MirrorDisk, DiskProgress])
def test_named_tuples_are_tuples_that_can_be_pickled(tuple_type):
    value = tuple_type(range(5))
    assert value == (0, 1, 2, 3, 4)
    assert pickle.loads(pickle.dumps(value)) == value
    assert type(pickle.loads(pickle.dumps(value))) is tuple_type
    assert tuple_type.__module__ == "virmirror"


def test_figures_are_a_tuple_that_can_be_pickled():
    value = MirrorFigures((5, 1.5, 2.5, None))
    assert pickle.loads(pickle.dumps(value)) == value
    assert (value.left, value.written, value.mirrored, value.limit) == (5, 1.5, 2.5, None)


@pytest.mark.parametrize("method", ["pivot", "abort"])
def test_converge_must_be_known(mirror, method):
    with pytest.raises(virmirror.SpecError, match="'wait' or 'throttle'"):
        getattr(mirror, method)(converge="faster")


def test_named_tuple_is_matched_by_position():
    match DiskProgress(("vda", True, False, 5, 10)):
        case DiskProgress(target, True, False, current, end):
            assert (target, current, end) == ("vda", 5, 10)


def test_wait_ready_when_the_copy_has_ended_says_so(mirror):
    with pytest.raises(virmirror.JobFailedError, match=r"/new/disk\.qcow2") as caught:
        mirror.wait_ready()
    assert (caught.value.disk, caught.value.phase) == ("vda", "wait")


def test_pivot_when_the_copy_has_ended_is_refused(mirror):
    with pytest.raises(virmirror.JobFailedError, match="abort") as caught:
        mirror.pivot()
    assert (caught.value.disk, caught.value.phase) == ("vda", "pivot")


def test_abort_that_fails_leaves_the_state_to_see(mirror):
    with pytest.raises(virmirror.MirrorError):
        mirror.abort()
    assert mirror.disks[0].state == "aborting"


def test_detach_twice_is_fine_and_ends_the_use(mirror):
    mirror.detach()
    mirror.detach()
    for method in (mirror.wait_ready, mirror.progress, mirror.pivot, mirror.abort):
        with pytest.raises(virmirror.StateError, match=r"was detached: .*adopt\(\)"):
            method()
    assert mirror.name == "migrate"


def test_detach_keeps_the_journal(journalled, mirror):
    mirror.detach()
    again = virmirror.adopt(journalled, "migrate")
    again.detach()
    assert again.disks == mirror.disks


# ---- the context manager ---------------------------------------------------


def test_with_when_detached_inside_does_not_abort(journalled):
    with virmirror.adopt(journalled) as mirror:
        mirror.detach()
    assert mirror.disks[0].state == "mirroring"


def test_with_when_detached_inside_lets_the_exception_go_on(journalled):
    with pytest.raises(KeyError) as caught:
        with virmirror.adopt(journalled) as mirror:
            mirror.detach()
            raise KeyError("mine")
    assert caught.value.__context__ is None


def test_with_without_exception_raises_the_abort_that_failed(journalled):
    with pytest.raises(virmirror.MirrorError, match="virDomainGetBlockJobInfo") as caught:
        with virmirror.adopt(journalled) as mirror:
            pass
    mirror.detach()
    assert caught.value.phase == "abort"
    assert caught.value.__notes__ == [
        "mirrored snapshot 'migrate' is left in state 'mirroring' (vda aborting)"
    ]


def test_with_an_exception_goes_on_with_the_failed_abort_chained(journalled):
    mine = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        with virmirror.adopt(journalled) as mirror:
            raise mine
    mirror.detach()
    assert caught.value is mine
    failure = mine.__context__
    assert isinstance(failure, virmirror.MirrorError)
    assert failure.phase == "abort"
    assert failure.__context__ is None
    (note,) = mine.__notes__
    assert note.startswith(
        "mirrored snapshot 'migrate' is left in state 'mirroring' (vda aborting), "
        "its abort failed: this function is not supported"
    )


def test_with_an_exception_that_has_a_context_keeps_it(journalled):
    with pytest.raises(KeyError) as caught:
        with virmirror.adopt(journalled) as mirror:
            try:
                raise ValueError("first")
            except ValueError:
                raise KeyError("second")  # noqa: B904
    mirror.detach()
    first = caught.value.__context__
    assert isinstance(first, ValueError)
    assert isinstance(first.__context__, virmirror.MirrorError)
    text = "".join(traceback.format_exception(caught.value))
    assert text.index("virDomainGetBlockJobInfo") < text.index("first") < text.index("second")


def test_with_inside_a_handler_makes_no_loop_of_contexts(journalled):
    def fail():
        with virmirror.adopt(journalled) as mirror:
            try:
                raise KeyError("mine")
            finally:
                mirrors.append(mirror)

    mirrors = []
    with pytest.raises(KeyError) as caught:
        try:
            raise ValueError("outer")
        except ValueError:
            fail()
    mirrors[0].detach()
    seen = []
    error = caught.value
    while error is not None:
        assert error not in seen
        seen.append(error)
        error = error.__context__
    assert [type(error) for error in seen] == [KeyError, ValueError, virmirror.MirrorError]


def test_exit_called_by_hand_answers_false(mirror):
    mirror.detach()
    assert mirror.__enter__() is mirror
    assert mirror.__exit__(None, None, None) is False


# ---- the end of the object -------------------------------------------------


def test_delete_without_an_end_warns(journalled):
    mirror = virmirror.adopt(journalled)
    with pytest.warns(ResourceWarning, match=r"^mirrored snapshot 'migrate' goes on, but"):
        del mirror


def test_delete_after_detach_does_not_warn(journalled):
    mirror = virmirror.adopt(journalled)
    mirror.detach()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del mirror


def test_delete_in_a_cycle_warns_once(journalled):
    journalled.cycle = virmirror.adopt(journalled)
    gc.collect()
    with pytest.warns(ResourceWarning) as caught:
        del journalled.cycle
        gc.collect()
    assert len(caught) == 1


def test_delete_with_the_warning_as_an_error_keeps_the_exception_that_is_raised(journalled):
    unraisable = []
    hook = "sys.unraisablehook"

    def fail():
        mirror = virmirror.adopt(journalled)
        raise KeyError(mirror.name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hook, unraisable.append)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            with pytest.raises(KeyError, match="migrate"):
                try:
                    fail()
                except KeyError as error:
                    error.__traceback__ = None
                    raise
    assert [entry.exc_type for entry in unraisable] == [ResourceWarning]


def test_object_that_a_warning_has_saved_is_an_empty_one(journalled):
    saved = []
    mirror = virmirror.adopt(journalled)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings._showwarnmsg_impl", lambda message: saved.append(message.source))
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            del mirror
    (zombie,) = saved
    assert repr(zombie) == "<MirrorSnapshot, finalized>"
    assert (zombie.name, zombie.disks, zombie.domain, zombie.snapshot) == (None,) * 4
    with pytest.raises(virmirror.StateError):
        zombie.abort()


def test_weak_reference_is_possible(journalled):
    mirror = virmirror.adopt(journalled)
    mirror.detach()
    reference = weakref.ref(mirror)
    assert reference() is mirror
    del mirror
    assert reference() is None


# ---- threads ---------------------------------------------------------------


@pytest.fixture
def waiting(mirror):
    """Have another thread in wait_ready(), which takes two seconds to find out."""
    raised = []

    def wait():
        try:
            mirror.wait_ready()
        except virmirror.JobFailedError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    yield mirror
    thread.join()
    assert len(raised) == 1


def test_call_while_another_thread_is_in_one_is_refused(waiting):
    for method in (waiting.progress, waiting.pivot, waiting.abort, waiting.detach):
        with pytest.raises(virmirror.BusyError, match="another call"):
            method()


def test_attributes_while_another_thread_is_in_a_call_can_be_read(waiting):
    assert waiting.state == "mirroring"
    assert waiting.disks[0].target == "vda"
    assert "migrate" in repr(waiting)


def test_wait_releases_the_gil(mirror):
    counted = []

    def count():
        while not stop.is_set():
            counted.append(time.monotonic())
            time.sleep(0.01)

    stop = threading.Event()
    thread = threading.Thread(target=count)
    thread.start()
    with pytest.raises(virmirror.MirrorTimeoutError):
        mirror.wait_ready(timeout=0.5)
    stop.set()
    thread.join()
    assert len(counted) > 15


def test_signatures_can_be_inspected():
    methods = ("create", "wait_ready", "progress", "pivot", "abort", "detach")
    signatures = {name: str(inspect.signature(getattr(MirrorSnapshot, name))) for name in methods}
    assert signatures["create"] == (
        "(dom, name, disks, *, description=None, reuse_external=False, quiesce=False, timeout=60.0)"
    )
    assert signatures["abort"] == "(self, /, timeout=30.0, *, pause_budget=2.0, converge=None)"
