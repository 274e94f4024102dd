# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real libvirtd of our own, to be killed at any moment.

It runs in a mount namespace in which libvirt's folders are empty and private,
so that neither the system's libvirt nor its guests are seen, let alone touched.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time
from types import TracebackType

import libvirt

import virmirror
from support.patience import PATIENCE

_HOLD = """
set -e
for folder in /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /etc/libvirt; do
    mkdir -p "$folder"
    mount -t tmpfs -o mode=0755 tmpfs "$folder"
done
cp "$1/qemu.conf" /etc/libvirt/
echo ready
exec cat
"""

_LIBVIRTD_CONF = """\
unix_sock_dir = "{folder}"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:file:{folder}/libvirtd.log"
"""

_QEMU_CONF = """\
stdio_handler = "file"
user = "{user}"
group = "{user}"
dynamic_ownership = {dynamic_ownership}
remember_owner = 0
security_driver = "none"
security_default_confined = {confined}
namespaces = []
cgroup_controllers = []
"""


class Daemon:
    """A libvirtd, and the context that it and its guests live in.

    ``folder`` is for its configuration, its socket and its log. Killed and
    started again it finds its guests, which never notice. QEMU runs as ``user``, and
    libvirt gives it the files if ``dynamic_ownership`` is 1.
    """

    def __init__(
        self, folder: pathlib.Path, *, user: str = "root", dynamic_ownership: int = 0
    ) -> None:
        self.folder = folder
        self.conn: libvirt.virConnect | None = None
        self._libvirtd: subprocess.Popen[bytes] | None = None
        (folder / "libvirtd.conf").write_text(_LIBVIRTD_CONF.format(folder=folder))
        (folder / "qemu.conf").write_text(
            _QEMU_CONF.format(
                user=user,
                dynamic_ownership=dynamic_ownership,
                # only then libvirt shows the user, as it does by default
                confined=int(user != "root"),
            )
        )
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        # It keeps the folders while there is no daemon, and ends with its input.
        self._holder = subprocess.Popen(
            [
                *("unshare", *as_root, "--mount", "--propagation", "private"),
                *("sh", "-c", _HOLD, "sh", str(folder)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert self._holder.stdout is not None
            assert self._holder.stdout.readline() == b"ready\n", "no namespace, see stderr"
            virmirror.start_event_loop()
            self.start_daemon()
        except BaseException:
            self.close()
            raise

    @property
    def uri(self) -> str:
        """What reaches it from outside of its namespace."""
        return f"qemu+unix:///system?socket={self.folder}/libvirt-sock"

    def inside(self) -> list[str]:
        """The command that another command runs by in its namespace: it sees its mounts."""
        as_root = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", *as_root, "--target", str(self._holder.pid), "--mount"]

    def start_daemon(self) -> libvirt.virConnect:
        """Start it, perhaps anew, and return a connection to it, also as ``conn``."""
        self._libvirtd = subprocess.Popen(
            [
                *(*self.inside(), "libvirtd"),
                *("--config", f"{self.folder}/libvirtd.conf", "--pid-file", f"{self.folder}/pid"),
            ],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + PATIENCE
        while not self._listens():
            assert self._libvirtd.poll() is None, f"libvirtd ended: {self._log()}"
            assert time.monotonic() < end, f"libvirtd does not listen: {self._log()}"
            time.sleep(0.02)
        self.conn = libvirt.open(self.uri)
        return self.conn

    def _log(self) -> str:
        """The last that libvirtd wrote down."""
        log = self.folder / "libvirtd.log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else "it has no log"

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(f"{self.folder}/libvirt-sock") == 0

    def kill_daemon(self) -> None:
        """Kill it with SIGKILL; its guests run on, ``conn`` is of no more use."""
        assert self._libvirtd is not None
        self._libvirtd.kill()
        self._libvirtd.wait()
        self._libvirtd = None

    def restart(self) -> libvirt.virConnect:
        """Start it anew, if it was killed; the old connection is closed."""
        if self._libvirtd is not None:
            return self.conn
        with contextlib.suppress(libvirt.libvirtError):
            self.conn.close()
        return self.start_daemon()

    def start(
        self, xml: str, *, paused: bool = False, persistent: bool = True
    ) -> libvirt.virDomain:
        """Start the domain that ``xml`` describes and return it."""
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        if not persistent:
            return self.conn.createXML(xml, flags)
        dom = self.conn.defineXML(xml)
        dom.createWithFlags(flags)
        return dom

    def outside(self, path: str) -> pathlib.Path:
        """Where a file of its namespace is found from outside."""
        return pathlib.Path(f"/proc/{self._holder.pid}/root{path}")

    def qemu_pids(self) -> dict[str, int]:
        """The QEMUs that run, by the names of their domains, known to libvirt or not."""
        pids = {}
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            with contextlib.suppress(OSError):
                if _is_qemu(pid) and _namespace(pid) == _namespace(self._holder.pid):
                    # a failed start takes the pid file away, the name stays
                    arguments = (folder / "cmdline").read_bytes().split(b"\0")
                    guest = arguments[arguments.index(b"-name") + 1].decode()
                    pids[guest.removeprefix("guest=").split(",")[0]] = pid
        return pids

    def end_qemu(self, name: str) -> None:
        """End the QEMU of a domain by its process, as its owner would."""
        pid = self.qemu_pids()[name]
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + PATIENCE
        while _is_qemu(pid):
            assert time.monotonic() < end
            time.sleep(0.01)

    def close(self) -> None:
        """End all that was started here, and nothing else; each step whatever others do."""
        assert self._holder.stdin is not None and self._holder.stdout is not None
        with contextlib.ExitStack() as last_first:
            last_first.callback(self._holder.wait, PATIENCE)
            last_first.callback(self._holder.stdout.close)
            last_first.callback(self._holder.stdin.close)
            if self._holder.poll() is None:
                for name in self.qemu_pids():
                    last_first.callback(self.end_qemu, name)
            if self._libvirtd is not None:
                self.kill_daemon()
            if self.conn is not None:
                with contextlib.suppress(libvirt.libvirtError):  # its daemon is gone
                    self.conn.close()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")


def _is_qemu(pid: int) -> bool:
    """Whether it is a QEMU that has not ended, reaped or not."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return "(qemu-system" in stat and not stat.rpartition(") ")[2].startswith("Z")
