# SPDX-License-Identifier: LGPL-2.1-or-later
"""A libvirtd as distributions ship it: QEMU runs as a user of its own."""

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import tempfile
from collections.abc import Iterator

import pytest

import virmirror
from support.daemon import Daemon
from support.guest import Guest

pytestmark = pytest.mark.qemu

USER = "libvirt-qemu"


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    """A folder that everybody gets to, unlike pytest's own."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="virmirror-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=[0, 1], ids=["static", "dynamic"])
def daemon(
    request: pytest.FixtureRequest, qemus_reaped: None, folder: pathlib.Path
) -> Iterator[Daemon]:
    home = folder / "daemon"
    home.mkdir()
    with Daemon(home, user=USER, dynamic_ownership=request.param) as daemon:
        yield daemon


@pytest.fixture
def guest(daemon: Daemon, folder: pathlib.Path) -> Iterator[Guest]:
    """On a chain that QEMU's user, or its group, may read."""
    user = pwd.getpwnam(USER)

    def give(xml: str) -> str:
        for path in folder.glob("guest*"):
            os.chown(path, user.pw_uid, user.pw_gid)
            for image in (path / "path1").iterdir():
                os.chown(image, user.pw_uid, user.pw_gid)
                image.chmod(0o640)
        return xml

    guest = Guest(daemon, folder, edit=give)
    yield guest
    guest.end()


def test_migrate_where_qemu_has_a_user_of_its_own(guest: Guest) -> None:
    modes = {path.name: path.stat().st_mode for path in guest.path1.iterdir()}
    virmirror.migrate(guest.dom, {"vda": guest.path2})
    uid = pwd.getpwnam(USER).pw_uid
    for name, mode in modes.items():
        status = (guest.path2 / name).stat()
        assert (status.st_uid, status.st_mode) == (uid, mode)
    guest.wait_for_writes()
    guest.check()


def test_plan_names_what_keeps_qemu_from_the_new_storage(guest: Guest) -> None:
    closed = guest.path2 / "closed"
    inner = closed / "inner"
    inner.mkdir(parents=True)
    closed.chmod(0o700)
    before = guest.state()
    uid = pwd.getpwnam(USER).pw_uid
    with pytest.raises(virmirror.StorageError, match=rf"user {uid}.*through '{closed}'"):
        virmirror.migrate(guest.dom, {"vda": inner})
    assert guest.state() == before
    closed.chmod(0o711)
    assert isinstance(virmirror.plan(guest.dom, {"vda": inner}), virmirror.Plan)
