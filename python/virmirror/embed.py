# SPDX-License-Identifier: LGPL-2.1-or-later
"""A private QEMU host in this process, on libvirt's ``qemu:///embed``.

No daemon is needed and none is touched: the host lives below one folder, its
root, and ends with the context that it is used in::

    with virmirror.embed.Host() as host:
        dom = host.start(xml)

The demo and the tests of virmirror run on it. See
https://libvirt.org/drvqemu.html#embedded-driver for the driver behind it.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import select
import shutil
import signal
import tempfile
import urllib.parse
from types import TracebackType

import libvirt

__all__ = ["Host"]

_BINARY = "qemu-system-x86_64"

# libvirt writes to the guest's log itself: there is no virtlogd here.
_CONF = 'stdio_handler = "file"\n'

# As root the driver would change users, label files and set up cgroups, none of
# which a private host wants or a container allows.
_CONF_ROOT = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
"""

# How long, in seconds, a QEMU may take to end once it was told to.
_END_TIMEOUT = 10.0


class Host:
    """A QEMU host of this process alone, and the context that it lives in.

    ``root`` is the folder of its configuration, sockets and logs. It is made
    (mode 0700) where it does not exist; without one a temporary folder is used
    and removed in the end. Keep its path short: the monitor sockets below it
    must fit into the 108 bytes of a socket's address.

    With ``keep_guests`` the guests stay running, and defined, when the host is
    closed; another process can open the same root afterwards.

    libvirt can have one root in a process, from the first open to the end of
    the process. The event loop is started (:func:`virmirror.start_event_loop`),
    since the driver refuses to open without one.

    Raises :exc:`RuntimeError` if QEMU or its user is missing, if this process
    has another root open, or if another process has this one, and
    :exc:`libvirt.libvirtError` for what else libvirt refuses.
    """

    def __init__(
        self, root: str | os.PathLike[str] | None = None, *, keep_guests: bool = False
    ) -> None:
        _check_machine()
        self._temporary = root is None
        self._keep_guests = keep_guests
        self._closed = False
        if root is None:
            root = tempfile.mkdtemp(prefix="virmirror-")
        self.root = pathlib.Path(root).absolute()
        #: The connection, a :class:`libvirt.virConnect`.
        self.conn = _open(self.root)

    def start(
        self, xml: str, *, paused: bool = False, persistent: bool = True
    ) -> libvirt.virDomain:
        """Start the domain that ``xml`` describes and return it.

        ``paused`` leaves its CPUs stopped; without ``persistent`` the domain is
        gone once it is shut off. Raises :exc:`libvirt.libvirtError`.
        libvirt: virDomainDefineXML and virDomainCreateWithFlags, or
        virDomainCreateXML.
        """
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        if not persistent:
            return self.conn.createXML(xml, flags)
        dom = self.conn.defineXML(xml)
        try:
            dom.createWithFlags(flags)
        except libvirt.libvirtError:
            dom.undefine()
            raise
        return dom

    def close(self) -> None:
        """End what runs on the host, and close it; again, nothing happens.

        Domains are destroyed and undefined, with their snapshots' and managed
        save's metadata, unless the host was made with ``keep_guests``. A QEMU
        that libvirt has lost sight of is found by its pid file and ended, too.
        """
        if self._closed:
            return
        self._closed = True
        if not self._keep_guests:
            for dom in self.conn.listAllDomains():
                _remove(dom)
            _end_processes(self.root)
        self.conn.close()
        if self._temporary and not self._keep_guests:
            shutil.rmtree(self.root)

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<virmirror.embed.Host {'closed' if self._closed else 'at'} {str(self.root)!r}>"


def _check_machine() -> None:
    if shutil.which(_BINARY) is None:
        raise RuntimeError(f"{_BINARY} is missing: apt-get install qemu-system-x86")
    if os.geteuid() != 0:
        return
    try:
        pwd.getpwnam("libvirt-qemu")
    except KeyError:
        raise RuntimeError(
            "the user 'libvirt-qemu', which libvirt needs when it runs as root, is "
            "missing: apt-get install libvirt-daemon-system"
        ) from None


def _open(root: pathlib.Path) -> libvirt.virConnect:
    from virmirror import _core

    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    conf = root / "etc" / "qemu.conf"
    if not conf.exists():
        conf.parent.mkdir(exist_ok=True)
        conf.write_text(_CONF + (_CONF_ROOT if os.geteuid() == 0 else ""))
    _core.start_event_loop()
    uri = f"qemu:///embed?root={urllib.parse.quote(str(root))}"
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        message = error.get_error_message() or ""
        if "already open with path" in message:
            raise RuntimeError(
                f"cannot open a host at {str(root)!r}: this process has another one "
                "already, and libvirt allows one root in a process"
            ) from error
        if "driver.pid" in message:
            raise RuntimeError(f"another process has the host at {str(root)!r} open") from error
        raise


def _remove(dom: libvirt.virDomain) -> None:
    # It may end by itself at any moment, and a transient one is gone then.
    with contextlib.suppress(libvirt.libvirtError):
        dom.destroy()
    flags = (
        libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    )
    with contextlib.suppress(libvirt.libvirtError):
        dom.undefineFlags(flags)


def _end_processes(root: pathlib.Path) -> None:
    """End the QEMUs whose pid files are below ``root`` and who belong there."""
    for pid_file in (root / "run" / "qemu").glob("*.pid"):
        if pid_file.name == "driver.pid":
            continue
        try:
            pid = int(pid_file.read_text())
            handle = os.pidfd_open(pid)
        except (OSError, ValueError):
            continue  # ended, and its file is about to go
        try:
            # The handle keeps the pid from being reused under our hands.
            if str(root) in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [], _END_TIMEOUT)
        except OSError:
            pass  # ended just now
        finally:
            os.close(handle)
