# SPDX-License-Identifier: LGPL-2.1-or-later
"""The demo succeeds, and fails when what it shows does not hold."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import pytest

pytestmark = pytest.mark.qemu

DEMO = pathlib.Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.fixture
def environment():
    """What the demo runs in: all that it makes goes to a folder of its own."""
    # tmp_path is too long for the sockets that libvirt makes below it
    with tempfile.TemporaryDirectory(prefix="vm") as folder:
        yield {**os.environ, "TMPDIR": folder}


@pytest.fixture(scope="module")
def capabilities():
    """What libvirt found out about QEMU, so that it is found out once."""
    with tempfile.TemporaryDirectory(prefix="vmr") as folder:
        yield folder


@pytest.fixture
def changed_demo(tmp_path, capabilities):
    """A copy of the demo that starts quickly, with a piece of it replaced."""

    def change(old="", new=""):
        text = DEMO.read_text()
        assert old in text and "embed.Host()" in text
        text = text.replace("embed.Host()", f"embed.Host(capabilities_cache={capabilities!r})")
        script = tmp_path / "demo.py"
        script.write_text(text.replace(old, new) if old else text)
        return script

    return change


def run(script, environment):
    """Run a demo and see that it leaves nothing behind."""
    result = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    check_nothing_left(environment)
    return result


def check_nothing_left(environment):
    folder = environment["TMPDIR"]
    assert os.listdir(folder) == []
    assert processes_with(folder) == []


def processes_with(text):
    """The processes that have ``text`` in their command line."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in path.read_text():
                found.append(path.parent.name)
        except OSError:
            pass  # it has ended
    return found


def test_demo_succeeds_and_shows_all_steps(environment):
    result = run(DEMO, environment)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    for number in range(1, 7):
        assert any(line.startswith(f"{number}. ") for line in lines)
    assert result.stdout.count("   $ ") == 7
    assert lines[-1].startswith("OK: no write was lost")
    assert "\033[" not in result.stdout
    old, new = (i for i, line in enumerate(lines) if line == "   vda")
    assert "path1/old.qcow2" in lines[old + 1] and "path1/common" in lines[old + 2]
    assert "path2/new.qcow2" in lines[new + 1] and "path2/common" in lines[new + 2]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        pytest.param(
            "virmirror.copy(path1 / name, path2 / name, overwrite=True)",
            "pass",
            "it was not copied",
            id="nothing-copied",
        ),
        pytest.param(
            "        mirror.wait_ready(timeout=300)\n        mirror.pivot()\n",
            "        mirror.abort()\n",
            "is no backing file of disk 'vda'",
            id="aborted-instead",
        ),
        pytest.param(
            "    guest.dom.destroy()\n",
            "    guest.dom.destroy()\n    guest.serial.write_bytes(b'.' * 10**6)\n",
            "round 1000000 was reported",
            id="reported-writes-missing",
        ),
    ],
)
def test_demo_fails_when_something_is_wrong(changed_demo, environment, old, new, complaint):
    result = run(changed_demo(old, new), environment)
    assert result.returncode == 1
    assert complaint in result.stderr
    assert result.stderr.strip().startswith("FAILED: ")
    assert "Traceback" not in result.stderr
    assert "OK" not in result.stdout


def test_demo_on_a_terminal_without_line_drawing_succeeds(changed_demo, environment):
    result = run(changed_demo(), {**environment, "PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "?? path1/old.qcow2" in result.stdout


def test_demo_without_qemu_says_what_is_missing(environment, tmp_path):
    result = run(DEMO, {**environment, "PATH": str(tmp_path)})
    assert result.returncode == 1
    assert "apt-get install qemu-system-x86" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_ended_by_signal_takes_its_guest_along(changed_demo, environment, number):
    demo = subprocess.Popen(
        [sys.executable, str(changed_demo())],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in demo.stdout:
        if line.startswith("1. "):
            break
    demo.send_signal(number)
    _, stderr = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "FAILED: " in stderr
    check_nothing_left(environment)
