# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tests' own reaper takes QEMUs that nobody waits for, and no others."""

import subprocess
import sys
from pathlib import Path

from support.patience import PATIENCE

TESTS = Path(__file__).resolve().parents[1]

# In a process of its own: the one that runs the tests may have a reaper already. What
# is named like a QEMU runs until its input ends. The daemon leaves its parent, as QEMU
# does; the child stays, as that does which libvirt starts to probe it.
PROGRAM = """
import os, pathlib, subprocess, sys, time
from support.reaper import reaped_qemus

def state(pid):
    stat = pathlib.Path(f"/proc/{pid}/stat")
    return stat.read_text().rpartition(") ")[2][0] if stat.exists() else None

def wait_for(pid, wanted):
    while state(pid) != wanted:
        time.sleep(0.01)

cat, = sys.argv[1:]
with reaped_qemus():
    child = subprocess.Popen([cat], stdin=subprocess.PIPE)
    daemon = subprocess.Popen(
        ["setsid", "--fork", "sh", "-c", 'echo $$; exec "$0"', cat],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    pid = int(daemon.stdout.readline())
    assert daemon.wait() == 0
    child.stdin.close()
    wait_for(child.pid, "Z")
    daemon.stdin.close()
    wait_for(pid, None)
    assert child.wait() == 0
"""


def test_reaper_takes_the_daemon_and_leaves_the_child(tmp_path):
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.symlink_to("/bin/cat")
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(qemu)],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 0, result.stderr
