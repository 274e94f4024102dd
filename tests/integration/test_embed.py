# SPDX-License-Identifier: LGPL-2.1-or-later
"""The private host, on real QEMUs.

A process has one root for its life, so most of it is tried in processes of its
own; they take what is known about QEMU from the host of the session.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import libvirt
import pytest

from support.patience import PATIENCE
from virmirror import embed, testguest

pytestmark = pytest.mark.qemu

DOMAIN = (
    "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>"
    "<os><type arch='x86_64' machine='pc'>hvm</type></os>"
    "<devices><controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"
)

PRELUDE = f"""
import os, pathlib, sys, libvirt
from virmirror import embed
root, cache = pathlib.Path(sys.argv[1]), sys.argv[2]
DOMAIN = {DOMAIN!r}
def pid_of(host, name):
    return int((host.root / "run" / "qemu" / (name + ".pid")).read_text())
"""


@pytest.fixture
def root() -> Iterator[pathlib.Path]:
    """A short path: sockets are made below it."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="vmr-")).resolve()
    yield folder / "root"
    for used in folder.iterdir():
        embed.end_qemus(used)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def cache(host: embed.Host, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """What the host of this session knows about QEMU."""
    dom = host.start(DOMAIN.format(name="probe"), paused=True, persistent=False)
    dom.destroy()
    folder = tmp_path_factory.mktemp("capabilities")
    for file in (host.root / "cache" / "qemu" / "capabilities").glob("*.xml"):
        shutil.copy(file, folder)
    return folder


def script(
    text: str, root: pathlib.Path, cache: pathlib.Path, **environ: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(text), str(root), str(cache)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environ,
    )


def run_script(text: str, root: pathlib.Path, cache: pathlib.Path, **environ: str) -> str:
    process = script(text, root, cache, **environ)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended; one may wait to be reaped."""
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def wait_until_ended(pid: int) -> None:
    end = time.monotonic() + PATIENCE
    while is_running(pid):
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.01)


def test_start_of_a_writing_guest_runs_it_and_check_holds(
    host: embed.Host, tmp_path: pathlib.Path
) -> None:
    chain = testguest.make_chain(tmp_path)
    dom = host.start(testguest.domain_xml("embed-writes", [chain[-1]], tmp_path / "serial"))
    try:
        assert dom.isPersistent() == 1
        testguest.wait_for_writes(tmp_path / "serial", 300)
    finally:
        dom.destroy()
        dom.undefine()
    assert testguest.check(chain[-1], tmp_path / "serial").reported >= 300


def test_start_paused_and_transient_leaves_nothing_behind(host: embed.Host) -> None:
    dom = host.start(DOMAIN.format(name="embed-paused"), paused=True, persistent=False)
    assert dom.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    assert dom.isPersistent() == 0
    dom.destroy()
    assert "embed-paused" not in [d.name() for d in host.conn.listAllDomains()]


def test_start_that_fails_undefines_only_a_new_domain(
    host: embed.Host, tmp_path: pathlib.Path
) -> None:
    xml = testguest.domain_xml("embed-fails", [tmp_path / "missing"], tmp_path / "serial")
    with pytest.raises(libvirt.libvirtError):
        host.start(xml)
    assert not [d for d in host.conn.listAllDomains() if d.name() == "embed-fails"]
    dom = host.conn.defineXML(xml)
    try:
        with pytest.raises(libvirt.libvirtError):
            host.start(dom.XMLDesc())
        assert dom.isPersistent() == 1
    finally:
        dom.undefine()


def test_second_host_while_one_is_open_is_refused(host: embed.Host, root: pathlib.Path) -> None:
    for wanted in (None, root, host.root):
        with pytest.raises(RuntimeError, match="has a host open already"):
            embed.Host(wanted)
    assert not root.exists()


def test_keep_guests_without_a_root_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a root"):
        embed.Host(keep_guests=True)


def test_close_ends_the_guests_and_keeps_a_root_of_the_users(
    root: pathlib.Path, cache: pathlib.Path
) -> None:
    out = run_script(
        """
        with embed.Host(root, capabilities_cache=cache) as host:
            one = host.start(DOMAIN.format(name="one"), paused=True)
            two = host.start(DOMAIN.format(name="two"), paused=True, persistent=False)
            host.conn.defineXML(DOMAIN.format(name="three"))
            print(pid_of(host, "one"), pid_of(host, "two"), oct(root.stat().st_mode)[-4:])
        host.close()
        with embed.Host(root) as host:
            assert host.conn.listAllDomains() == [], "domains are left"
        """,
        root,
        cache,
    )
    first, second, mode = out.split()
    assert not is_running(int(first)) and not is_running(int(second))
    assert mode == "0700"
    assert (root / "etc" / "qemu.conf").exists()


def test_temporary_root_serves_later_hosts_and_goes_with_the_process(
    root: pathlib.Path, cache: pathlib.Path
) -> None:
    out = run_script(
        """
        with embed.Host(capabilities_cache=cache) as host:
            host.start(DOMAIN.format(name="one"), paused=True)
            first = host.root
        with embed.Host() as host:
            host.start(DOMAIN.format(name="one"), paused=True)
            assert host.root == first
        try:
            embed.Host(root)
        except RuntimeError as error:
            assert "one root in a process" in str(error), error
        else:
            sys.exit("a second root was taken")
        host = embed.Host()
        host.start(DOMAIN.format(name="left"), paused=True)
        print(first, pid_of(host, "left"))
        """,
        root,
        cache,
    )
    folder, pid = out.split()
    assert not pathlib.Path(folder).exists()
    assert not is_running(int(pid))
    assert not root.exists()


def test_hosts_can_be_opened_more_often_than_libvirt_opens_a_root(
    root: pathlib.Path, cache: pathlib.Path
) -> None:
    run_script(
        """
        for _ in range(30):
            with embed.Host(root, capabilities_cache=cache) as host:
                assert host.conn.listAllDomains() == []
        """,
        root,
        cache,
    )


def test_host_opens_again_what_was_closed(root: pathlib.Path, cache: pathlib.Path) -> None:
    run_script(
        """
        with embed.Host(root, capabilities_cache=cache) as host:
            host.conn.close()
        with embed.Host(root, capabilities_cache=cache) as host:
            host.start(DOMAIN.format(name="again"), paused=True)
        """,
        root,
        cache,
    )


def test_connection_is_known_by_its_uri(host: embed.Host) -> None:
    assert embed.connection(host.conn.getURI()) is host.conn
    assert embed.connection("qemu:///embed?root=/nowhere") is None


def test_keep_guests_leaves_them_to_the_next_process(
    root: pathlib.Path, cache: pathlib.Path
) -> None:
    out = run_script(
        """
        with embed.Host(root, keep_guests=True, capabilities_cache=cache) as host:
            host.start(DOMAIN.format(name="kept"), paused=True)
            print(pid_of(host, "kept"))
        """,
        root,
        cache,
    )
    assert is_running(int(out))
    run_script(
        """
        with embed.Host(root) as host:
            assert [dom.isActive() for dom in host.conn.listAllDomains()] == [1]
        """,
        root,
        cache,
    )
    assert not is_running(int(out))


def test_root_of_another_process_is_refused_with_its_pid(
    root: pathlib.Path, cache: pathlib.Path
) -> None:
    holder = script("host = embed.Host(root); print('open', flush=True); input()", root, cache)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "open\n"
        out = run_script(
            """
            try:
                embed.Host(root)
            except embed.EmbedError as error:
                print(error)
            with embed.Host(root.parent / "another") as host:
                assert host.conn.isAlive()
            """,
            root,
            cache,
        )
    finally:
        holder.communicate("\n", timeout=30)
    assert f"process {holder.pid} has the host" in out and str(root) in out


def test_end_qemus_ends_what_a_killed_process_left(root: pathlib.Path, cache: pathlib.Path) -> None:
    process = script(
        """
        host = embed.Host(root, capabilities_cache=cache)
        host.start(DOMAIN.format(name="left"), paused=True)
        print(pid_of(host, "left"), flush=True)
        input()
        """,
        root,
        cache,
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert is_running(pid)
    assert embed.end_qemus(root) == [pid]
    wait_until_ended(pid)
    assert embed.end_qemus(root) == []


def test_end_qemus_spares_a_process_that_is_not_of_the_root(
    host: embed.Host, root: pathlib.Path
) -> None:
    dom = host.start(DOMAIN.format(name="embed-spared"), paused=True, persistent=False)
    qemu = int((host.root / "run" / "qemu" / "embed-spared.pid").read_text())
    folder = root / "run" / "qemu"
    folder.mkdir(parents=True)
    # A process that got the number of an ended guest, and a QEMU of another root
    # whose path begins like this one's.
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            (folder / "reused.pid").write_text(f"{sleeper.pid}\n")
            (folder / "foreign.pid").write_text(f"{qemu}\n")
            (folder / "nonsense.pid").write_text("99999999999999999999\n")
            assert embed.end_qemus(root) == []
            assert embed.end_qemus(str(host.root)[:-1]) == []
            assert sleeper.poll() is None and is_running(qemu)
        finally:
            sleeper.kill()
    dom.destroy()


def test_host_in_a_forked_child_is_not_closed_by_it(
    root: pathlib.Path, cache: pathlib.Path
) -> None:
    run_script(
        """
        with embed.Host(root, capabilities_cache=cache) as host:
            dom = host.start(DOMAIN.format(name="forked"), paused=True)
            child = os.fork()
            if child == 0:
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert dom.isActive() == 1
            assert root.exists()
        """,
        root,
        cache,
    )


@pytest.mark.parametrize(
    ("name", "complaint"), [("a,b", "comma"), ('a"b', "quote"), ("x" * 80, "too long")]
)
def test_root_with_an_unfit_path_is_refused(
    root: pathlib.Path, cache: pathlib.Path, name: str, complaint: str
) -> None:
    out = run_script(
        """
        try:
            embed.Host(root)
        except embed.EmbedError as error:
            print(error, root.exists())
        """,
        root.parent / name,
        cache,
    )
    assert complaint in out and out.endswith("False\n")


def test_root_with_odd_characters_works(root: pathlib.Path, cache: pathlib.Path) -> None:
    out = run_script(
        """
        with embed.Host(root, capabilities_cache=cache) as host:
            host.start(DOMAIN.format(name="odd"), paused=True)
            print(pid_of(host, "odd"))
            host.conn.close()  # so that only end_qemus() can end it
        """,
        root.parent / "ü' %20&?#=",
        cache,
    )
    wait_until_ended(int(out))


def test_root_that_others_can_write_to_is_refused(root: pathlib.Path, cache: pathlib.Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    out = run_script(
        """
        try:
            embed.Host(root)
        except embed.EmbedError as error:
            print(error)
        """,
        root,
        cache,
    )
    assert "others can write" in out


def test_missing_qemu_is_refused_with_the_package_to_install(
    root: pathlib.Path, cache: pathlib.Path
) -> None:
    out = run_script(
        """
        try:
            embed.Host(root)
        except embed.EmbedError as error:
            print(error, root.exists())
        """,
        root,
        cache,
        PATH=str(root.parent),
    )
    assert "apt-get install qemu-system-x86" in out and out.endswith("False\n")


def test_missing_user_is_refused_with_the_package_to_install(
    root: pathlib.Path, cache: pathlib.Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("libvirt needs the user only as root")
    users = pathlib.Path("/etc/passwd").read_text().splitlines(keepends=True)
    passwd = root.parent / "passwd"
    passwd.write_text("".join(line for line in users if not line.startswith("libvirt-qemu:")))
    text = PRELUDE + textwrap.dedent(
        """
        for _ in range(2):
            try:
                embed.Host(root)
            except embed.EmbedError as error:
                print(error, type(error.__cause__).__name__)
        """
    )
    # In mounts of its own, so that the machine's users stay as they are.
    inside = f'mount --bind {passwd} /etc/passwd && exec "$@"'
    out = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", inside, "sh"),
            *(sys.executable, "-c", text, str(root), str(cache)),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "libvirt-qemu" in out and "apt-get install libvirt-daemon-system" in out
    assert "start a new process" in out and out.count("libvirtError") == 2


@pytest.mark.parametrize("content", [None, "<qemuCaps><emul", "old"])
def test_capabilities_cache_that_does_not_fit_is_probed_anew(
    root: pathlib.Path, cache: pathlib.Path, content: str | None
) -> None:
    own = root.parent / "cache"
    (good,) = cache.glob("*.xml")
    if content is not None:
        own.mkdir()
        text = good.read_text().replace("<qemuctime>", "<qemuctime>1")
        (own / good.name).write_text(text if content == "old" else content)
    run_script(
        """
        with embed.Host(root, capabilities_cache=cache) as host:
            host.start(DOMAIN.format(name="any"), paused=True)
        """,
        root,
        own,
    )
    # all else may change with each package that brings modules for QEMU
    assert binary_of(own / good.name) == binary_of(good)


def binary_of(capabilities: pathlib.Path) -> list[str | None]:
    """The QEMU that a file of libvirt's cache is about."""
    root = ET.parse(capabilities).getroot()
    return [root.findtext(name) for name in ("emulator", "qemuctime", "version")]
