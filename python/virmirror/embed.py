# SPDX-License-Identifier: LGPL-2.1-or-later
"""A private QEMU host in this process, on libvirt's ``qemu:///embed``.

No daemon is needed and none is touched: the host lives below one folder, its
root, and ends with the context that it is used in::

    with virmirror.embed.Host() as host:
        dom = host.start(xml)

The demo and the tests of virmirror run on it. See
https://libvirt.org/drvqemu.html#embedded-driver for the driver behind it.

Three limits come from libvirt. A process can use one root only, from its first
host to its own end, and the root stays locked that long; several hosts on it,
one after the other, are possible. It can open the root about fifteen times, so
hosts share one connection, which stays open behind them; use ``host.conn``, or
the domain's ``connect()``, instead of further ones. And a process that is killed
leaves its QEMUs running: a new process can open the same root and finds them
there, or :func:`end_qemus` ends them.

libvirt's warnings go to standard error. The environment variable
``LIBVIRT_LOG_OUTPUTS``, set before libvirt is imported, sends them elsewhere.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import pathlib
import platform
import select
import shutil
import signal
import stat
import struct
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType

import libvirt

from . import _core

__all__ = ["EmbedError", "Host", "end_qemus"]

# libvirt makes ROOT/lib/qemu/qmp-XXXXXX/qmp.monitor, and the address of a UNIX
# socket has 107 bytes. The sockets of guests with long names need 23 more.
_ROOT_MAX_BYTES = 107 - len("/lib/qemu/qmp-XXXXXX/qmp.monitor")

# libvirt does not double a comma on QEMU's command line; the others would be
# escaped there, where _is_qemu_of() looks for the root.
_ROOT_FORBIDDEN = frozenset(',"\\')

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
security_default_confined = 0
namespaces = []
cgroup_controllers = []
"""

# The lock of the driver in this process. It is a POSIX lock: merely opening and
# closing the file in this process would give it up.
_DRIVER_PID = "driver.pid"

# How long, in seconds, a QEMU may take to end by SIGTERM, and then by SIGKILL.
_TERM_TIMEOUT = 5.0
_KILL_TIMEOUT = 10.0

_UNDEFINE_FLAGS = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


class EmbedError(RuntimeError):
    """There can be no private host here; the text says what to do about it.

    Where libvirt gave the reason, its :exc:`libvirt.libvirtError` is the
    ``__cause__``.
    """


@dataclass
class _Process:
    """What libvirt keeps until the process ends, and who uses it now."""

    root: pathlib.Path | None = None
    temporary: bool = False
    conn: libvirt.virConnect | None = None
    host: Host | None = None


_process = _Process()
_lock = threading.RLock()


class Host:
    """A QEMU host of this process alone, and the context that it lives in.

    ``root`` is the folder of its configuration, sockets and logs. It is made
    (mode 0700) where it does not exist, and stays; it must belong to this user,
    be writable to no other, and have a path of 75 bytes at most (52 with long
    domain names). ``etc/qemu.conf`` in it is written if there is none. Without
    a root a temporary folder is used; as libvirt does not let go of it before,
    it is removed at the end of the process, and serves later hosts until then.

    With ``keep_guests``, which needs a root, the guests stay running, and
    defined, when the host is closed; a later host on the same root, in this
    process or the next, finds them again.

    ``capabilities_cache`` is a folder that keeps what libvirt found out about
    QEMU, for other roots: their first guest starts in 0.4 s instead of 4.5 s.
    libvirt itself checks whether that still fits the QEMU, libvirt and kernel
    that are there. The folder is made, and must be owned, like a root.

    A host that is still open at the end of the process is closed then. The
    event loop is started (:func:`virmirror.start_event_loop`), since the driver
    refuses to open without one.

    Raises :exc:`EmbedError` if QEMU, libvirt's driver for it or its user is
    missing, if another process has the root open, or if the root is not fit;
    :exc:`RuntimeError` if this process has an open host already or has used
    another root; :exc:`libvirt.libvirtError` for what else libvirt refuses.
    libvirt: virConnectOpen.
    """

    #: The connection, a :class:`libvirt.virConnect`. It is that of the process's
    #: other hosts, too, and stays open when the host is closed.
    conn: libvirt.virConnect
    #: The root folder, absolute and without symbolic links.
    root: pathlib.Path

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        keep_guests: bool = False,
        capabilities_cache: str | os.PathLike[str] | None = None,
    ) -> None:
        if keep_guests and root is None:
            raise ValueError("keep_guests needs a root, since a temporary one is removed")
        self._keep_guests = keep_guests
        self._cache = None if capabilities_cache is None else pathlib.Path(capabilities_cache)
        self._pid = os.getpid()
        _check_machine()
        with _lock:
            self.root, made = _choose_root(root)
            try:
                _prepare_root(self.root)
                if self._cache is not None:
                    _own_folder(self._cache)
                    _copy_capabilities(self._cache, _capabilities(self.root), replace=False)
                self.conn = _connect(self.root)
            except BaseException:
                if made:
                    shutil.rmtree(self.root, ignore_errors=True)
                raise
            # libvirt has the root from here on, whatever happens
            if _process.root is None:
                atexit.register(_at_exit, self._pid)
                _process.root, _process.temporary = self.root, made
            _settle(self.conn)
            _process.host = self

    def start(
        self, xml: str, *, paused: bool = False, persistent: bool = True
    ) -> libvirt.virDomain:
        """Start the domain that ``xml`` describes and return it.

        ``paused`` leaves its CPUs stopped; without ``persistent`` the domain is
        gone once it is shut off. A domain that does not start, and was not
        defined before, is undefined again. Raises :exc:`libvirt.libvirtError`.
        libvirt: virDomainDefineXML and virDomainCreateWithFlags, or
        virDomainCreateXML.
        """
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        if not persistent:
            return self.conn.createXML(xml, flags)
        known = {dom.UUIDString() for dom in self.conn.listAllDomains()}
        dom = self.conn.defineXML(xml)
        try:
            dom.createWithFlags(flags)
        except libvirt.libvirtError:
            if dom.UUIDString() not in known:
                with contextlib.suppress(libvirt.libvirtError):
                    dom.undefineFlags(_UNDEFINE_FLAGS)
            raise
        self._save_capabilities()
        return dom

    def close(self) -> None:
        """End what runs on the host, and its use; again, nothing happens.

        Domains are destroyed and undefined, with their snapshots' and managed
        save's metadata, unless the host was made with ``keep_guests``. A QEMU
        that libvirt has lost sight of is found by its pid file and ended, too.
        A forked child closes nothing. Raises :exc:`EmbedError` if a QEMU does
        not end.
        """
        if self._pid != os.getpid():
            return  # the lock may have been another thread's when we were forked
        with _lock:
            if _process.host is not self:
                return
            _process.host = None
            try:
                if not self._keep_guests:
                    # It fails only where somebody has closed the connection.
                    with contextlib.suppress(libvirt.libvirtError):
                        _end_domains(self.conn)
            finally:
                self._save_capabilities()
                if not self._keep_guests:
                    end_qemus(self.root)

    def _save_capabilities(self) -> None:
        if self._cache is not None:
            _copy_capabilities(_capabilities(self.root), self._cache, replace=True)

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
        state = "at" if _process.host is self else "closed"
        return f"<virmirror.embed.Host {state} {str(self.root)!r}>"


def end_qemus(root: str | os.PathLike[str]) -> list[int]:
    """End the QEMUs of an embed root without libvirt, and return their pids.

    They are found by the files ``run/qemu/NAME.pid``. One is told to end
    (SIGTERM, after 5 s SIGKILL) only if its command line shows that it is a
    QEMU of this root. Raises :exc:`EmbedError` if one is still there 10 s after
    SIGKILL.
    """
    folder = pathlib.Path(root).resolve()
    ended = []
    for pid_file in sorted((folder / "run" / "qemu").glob("*.pid")):
        if pid_file.name == _DRIVER_PID:
            continue
        try:
            pid = int(pid_file.read_text())
            handle = os.pidfd_open(pid)
        except (OSError, ValueError, OverflowError):
            continue  # ended, and its file is about to go
        try:
            # The handle came first: it stands for the process that is looked at,
            # whoever may get the number afterwards.
            if _is_qemu_of(pid, folder):
                _end_process(handle, pid, folder)
                ended.append(pid)
        finally:
            os.close(handle)
    return ended


def _is_qemu_of(pid: int, root: pathlib.Path) -> bool:
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False  # ended just now
    return b"\0guest=" in command and os.fsencode(root) + b"/lib/qemu/domain-" in command


def _end_process(handle: int, pid: int, root: pathlib.Path) -> None:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    for number, timeout in ((signal.SIGTERM, _TERM_TIMEOUT), (signal.SIGKILL, _KILL_TIMEOUT)):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        if poll.poll(timeout * 1000):
            return
    raise EmbedError(f"QEMU process {pid} of root '{root}' does not end, not even by SIGKILL")


def _end_domains(conn: libvirt.virConnect) -> None:
    _in_parallel(_destroy, conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE))
    for dom in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT):
        with contextlib.suppress(libvirt.libvirtError):
            dom.undefineFlags(_UNDEFINE_FLAGS)


def _destroy(dom: libvirt.virDomain) -> None:
    # It may end by itself at any moment; what libvirt cannot end, end_qemus() does.
    with contextlib.suppress(libvirt.libvirtError):
        dom.destroy()


def _in_parallel(
    action: Callable[[libvirt.virDomain], None], doms: Iterable[libvirt.virDomain]
) -> None:
    """One destroy takes over a second, nearly all of it waiting."""
    threads = []
    for dom in doms:
        thread = threading.Thread(target=action, args=(dom,))
        try:
            thread.start()
        except RuntimeError:
            action(dom)  # the interpreter is ending and starts no thread any more
        else:
            threads.append(thread)
    for thread in threads:
        thread.join()


def _at_exit(pid: int) -> None:
    if pid != os.getpid():
        return
    with _lock:  # another thread may be closing the host just now
        assert _process.root is not None
        try:
            if _process.host is not None:
                _process.host.close()
        finally:
            if _process.conn is not None:
                with contextlib.suppress(libvirt.libvirtError):  # closed already
                    _process.conn.close()
            if _process.temporary:
                shutil.rmtree(_process.root, ignore_errors=True)


def _choose_root(root: str | os.PathLike[str] | None) -> tuple[pathlib.Path, bool]:
    """Return the root to use, and whether it was made just now."""
    if _process.host is not None:
        raise RuntimeError(
            f"this process has a host open already, at '{_process.root}', and libvirt "
            "allows one root in a process"
        )
    if root is None and _process.root is None:
        return pathlib.Path(tempfile.mkdtemp(prefix="virmirror-")).resolve(), True
    if root is None and _process.temporary:
        assert _process.root is not None
        return _process.root, False
    wanted = None if root is None else pathlib.Path(root).resolve()
    if wanted is None or _process.root not in (None, wanted):
        raise RuntimeError(
            f"this process has used the root '{_process.root}' before, and libvirt "
            "allows one root in a process"
        )
    return wanted, False


def _prepare_root(root: pathlib.Path) -> None:
    text = str(root)
    if len(os.fsencode(root)) > _ROOT_MAX_BYTES:
        raise EmbedError(
            f"the path '{text}' is too long for the sockets below it: take a root of at "
            f"most {_ROOT_MAX_BYTES} bytes (a temporary one is made in TMPDIR)"
        )
    if not text.isprintable() or _ROOT_FORBIDDEN & set(text):
        raise EmbedError(
            f"the path {text!r} has a comma, a double quote, a backslash or a character that "
            "cannot be printed, which the root of a host must not have"
        )
    _own_folder(root)
    conf = root / "etc" / "qemu.conf"
    if not conf.exists():
        conf.parent.mkdir(exist_ok=True)
        conf.write_text(_CONF + (_CONF_ROOT if os.geteuid() == 0 else ""))


def _own_folder(folder: pathlib.Path) -> None:
    """Make ``folder`` if it is missing; refuse one that others can write to.

    What is in it names programs, and the users that they run as.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise EmbedError(f"the folder '{folder}' belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EmbedError(f"others can write to the folder '{folder}': chmod go-w '{folder}'")


def connection(uri: str) -> libvirt.virConnect | None:
    """Return the connection of the host that is open in this process, if ``uri`` is its.

    libvirt registers its driver anew whenever a root is opened, and refuses with
    "Too many drivers" when its table is full.
    """
    host = _process.host
    return host.conn if host is not None and host.conn.getURI() == uri else None


def _connect(root: pathlib.Path) -> libvirt.virConnect:
    if _process.conn is None or not _is_open(_process.conn):
        _process.conn = _open(root)
    return _process.conn


def _is_open(conn: libvirt.virConnect) -> bool:
    try:
        return bool(conn.isAlive())
    except libvirt.libvirtError:
        return False  # somebody has closed it


def _open(root: pathlib.Path) -> libvirt.virConnect:
    if root != _process.root and (holder := _holder(root)):
        raise EmbedError(_held(root, f"process {holder}"))
    _core.start_event_loop()
    try:
        return libvirt.open(f"qemu:///embed?root={urllib.parse.quote(str(root))}")
    except libvirt.libvirtError as error:
        reason = _explain(error, root)
        if reason is None:
            raise
        raise EmbedError(reason) from error


def _settle(conn: libvirt.virConnect) -> None:
    """Wait until libvirt has taken the guests over that ran before it was opened.

    It does so in the background. What changed in QEMU meanwhile, such as a block
    job that is ready now, is in the domain's XML only afterwards.
    """
    for dom in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        with contextlib.suppress(libvirt.libvirtError):  # it may have ended
            dom.memoryStats()  # waits its turn behind the take-over; an XMLDesc() would not


def _holder(root: pathlib.Path) -> int:
    """Return the pid of the process that has ``root`` open, 0 if none has.

    Asked beforehand, since libvirt lets no process try again that failed once.
    Never asked about the root of this process, see ``_DRIVER_PID``.
    """
    try:
        with (root / "run" / "qemu" / _DRIVER_PID).open("rb") as file:
            asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except OSError:
        return 0
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def _held(root: pathlib.Path, who: str) -> str:
    return f"{who} has the host at '{root}' open: end it, or take another root"


def _explain(error: libvirt.libvirtError, root: pathlib.Path) -> str | None:
    """What to do about a failed open, where the cause is known."""
    message = error.get_error_message() or ""
    if _DRIVER_PID in message:
        return _held(root, "another process")
    if "Failed to parse user" in message or "Failed to parse group" in message:
        return (
            f"libvirt needs a user that is missing ({message}): apt-get install "
            "libvirt-daemon-system, or dnf install libvirt-daemon-driver-qemu"
        )
    if "state driver is not active" in message:
        return (
            "libvirt's driver for QEMU has failed to start in this process before, and tries "
            "only once: repair what was reported then, and start a new process"
        )
    if error.get_error_code() == libvirt.VIR_ERR_NO_CONNECT:
        return (
            "libvirt's driver for QEMU is missing: apt-get install "
            "libvirt-daemon-driver-qemu, or dnf install libvirt-daemon-driver-qemu"
        )
    return None


def _check_machine() -> None:
    """Without QEMU a host opens, but a start of a guest fails obscurely."""
    names = ("qemu-system-x86_64", f"qemu-system-{platform.machine()}", "qemu-kvm")
    if any(shutil.which(name) for name in names) or os.access("/usr/libexec/qemu-kvm", os.X_OK):
        return
    raise EmbedError(
        "qemu-system-x86_64 is missing: apt-get install qemu-system-x86, or dnf install qemu-kvm"
    )


def _capabilities(root: pathlib.Path) -> pathlib.Path:
    return root / "cache" / "qemu" / "capabilities"


def _copy_capabilities(source: pathlib.Path, target: pathlib.Path, *, replace: bool) -> None:
    """Copy what ``target`` lacks; with ``replace`` also what differs there.

    A failure costs nothing but the time to ask QEMU again.
    """
    with contextlib.suppress(OSError):
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in source.glob("*.xml"):
            known = target / file.name
            content = file.read_bytes()
            if known.exists() and (not replace or known.read_bytes() == content):
                continue
            # Another process may read it at any time: whole or not there.
            with tempfile.NamedTemporaryFile(dir=target, delete=False) as new:
                new.write(content)
            os.replace(new.name, known)
