# SPDX-License-Identifier: LGPL-2.1-or-later
"""The exceptions: one class per code of the engine, and libvirt's shape."""

import pickle

import libvirt
import pytest

import virmirror
from virmirror import _core, errors

TYPES = {
    "invalid-spec": (virmirror.SpecError, ValueError),
    "invalid-state": (virmirror.StateError, libvirt.libvirtError),
    "not-found": (virmirror.NotFoundError, LookupError),
    "exists": (virmirror.ExistsError, libvirt.libvirtError),
    "busy": (virmirror.BusyError, libvirt.libvirtError),
    "not-ready": (virmirror.NotReadyError, libvirt.libvirtError),
    "not-supported": (virmirror.NotSupportedError, libvirt.libvirtError),
    "timeout": (virmirror.MirrorTimeoutError, TimeoutError),
    "cancelled": (virmirror.CancelledError, libvirt.libvirtError),
    "job-failed": (virmirror.JobFailedError, libvirt.libvirtError),
    "image": (virmirror.ImageError, libvirt.libvirtError),
    "io": (virmirror.StorageError, libvirt.libvirtError),
    "journal": (virmirror.JournalError, libvirt.libvirtError),
    "diverged": (virmirror.DivergedError, libvirt.libvirtError),
    "virt": (virmirror.MirrorError, libvirt.libvirtError),
}
ERR = (55, 20, "text", 2, "one", None, "three", -1, 7)


def every_class():
    return [getattr(errors, name) for name in errors.__all__]


def test_error_types_every_code_has_its_class():
    assert _core._error_types == {reason: types[0] for reason, types in TYPES.items()}


@pytest.mark.parametrize("reason", TYPES)
def test_error_type_is_libvirts_and_pythons(reason):
    error_type, python_type = TYPES[reason]
    assert issubclass(error_type, virmirror.MirrorError)
    assert issubclass(error_type, libvirt.libvirtError)
    assert issubclass(error_type, python_type)


def test_error_types_all_are_exported():
    assert {error_type for error_type, _ in TYPES.values()} == set(every_class())
    assert set(errors.__all__) <= set(virmirror.__all__)


@pytest.mark.parametrize("error_type", every_class())
def test_new_with_detail_keeps_it(error_type):
    error = error_type(
        "text", err=ERR, disk="vda", phase="pivot", partial=True, unknown=True, reason="virt"
    )
    assert (error.disk, error.phase, error.partial, error.unknown, error.reason) == (
        "vda",
        "pivot",
        True,
        True,
        "virt",
    )
    assert (str(error), error.args) == ("text", ("text",))


@pytest.mark.parametrize("error_type", every_class())
def test_getters_of_libvirt_answer_from_err(error_type):
    error = error_type("text", err=ERR)
    answers = (
        error.get_error_code(),
        error.get_error_domain(),
        error.get_error_message(),
        error.get_error_level(),
        error.get_str1(),
        error.get_str2(),
        error.get_str3(),
        error.get_int1(),
        error.get_int2(),
    )
    assert answers == ERR


def test_new_after_another_error_of_the_thread_does_not_read_it(conn):
    with pytest.raises(libvirt.libvirtError):
        conn.lookupByName("nobody")
    assert virmirror.MirrorError("text").get_error_code() is None


@pytest.mark.parametrize("error_type", every_class())
def test_pickle_keeps_everything(error_type):
    error = error_type("text", err=ERR, disk="vda", phase="pivot", partial=True, reason="x")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is error_type
    assert again.__dict__ == error.__dict__
    assert again.args == error.args


def test_raise_from_libvirt_keeps_its_code_and_texts(mirror):
    with pytest.raises(virmirror.MirrorError) as caught:
        mirror.progress()
    assert type(caught.value) is virmirror.MirrorError
    code, domain, message, level, str1, str2, str3, int1, int2 = caught.value.err
    assert code == libvirt.VIR_ERR_NO_SUPPORT
    assert message == str(caught.value)
    assert message.endswith("virDomainGetBlockJobInfo")
    assert (level, str2, str3) == (libvirt.VIR_ERR_ERROR, "virDomainGetBlockJobInfo", None)
    assert (int1, int2) == (-1, -1)
    assert (caught.value.reason, caught.value.disk) == ("virt", "vda")
    assert str1.count("%s") == 1 or str1.count("%1$s") == 1  # libvirt 10 and later
    assert isinstance(domain, int)


def test_raise_from_the_engine_has_libvirts_default_code(dom):
    with pytest.raises(virmirror.NotFoundError, match="no mirrored snapshot") as caught:
        virmirror.adopt(dom)
    assert caught.value.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
    assert caught.value.get_error_domain() == libvirt.VIR_FROM_DOMAIN
    assert caught.value.reason == "not-found"
    assert not caught.value.partial
    assert not caught.value.unknown


def test_raise_with_an_error_handler_of_libvirt_registered_does_not_block(mirror):
    seen = []
    libvirt.registerErrorHandler(lambda _context, error: seen.append(error), None)
    try:
        with pytest.raises(virmirror.MirrorError):
            mirror.progress()
    finally:
        libvirt.registerErrorHandler(None, None)
    assert libvirt.VIR_ERR_NO_SUPPORT in [error[0] for error in seen]
