# SPDX-License-Identifier: LGPL-2.1-or-later
"""Killed at any moment of a migration, the next process finishes or undoes it.

The processes that are killed, and those that go on, are ``tests/support/migrator.py``.
With ``VIRMIRROR_FULL=1`` every moment is tried, else every eleventh.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import Any

import pytest

from support.killshim import build_killshim
from virmirror import embed

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("qemus_reaped")]

FULL = os.environ.get("VIRMIRROR_FULL") == "1"
SUPPORT = pathlib.Path(__file__).parents[1] / "support"


def run_process(
    folder: pathlib.Path, shim: pathlib.Path, cache: pathlib.Path, **todo: Any
) -> subprocess.CompletedProcess[str]:
    job = {"root": str(folder / "root"), "cache": str(cache), **todo}
    return subprocess.run(
        [sys.executable, str(SUPPORT / "migrator.py"), json.dumps(job)],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.parametrize("kind", ["touch", "call"])
def test_kill_in_a_migration_is_finished_or_undone(
    kind: str, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> None:
    shim = build_killshim(tmp_path)
    ends: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    numbers = iter(range(1, 10_000))
    with tempfile.TemporaryDirectory(prefix="vmk") as name:
        root = pathlib.Path(name)
        pytest_cache = getattr(request.config, "cache", None)
        cache = root / "cache" if pytest_cache is None else pytest_cache.mkdir("qemu-capabilities")

        def next_job(n: int) -> dict[str, Any]:
            number = next(numbers)
            folder = root / str(number)
            folder.mkdir()
            common = {"number": number, "folder": str(folder), "log": str(root / "log")}
            return {**common, "n": n, "call": kind == "call"}

        try:
            process = run_process(root, shim, cache, last=None, next=next_job(0))
            assert process.returncode == 0, process.stderr
            count = json.loads(process.stdout)["count"]
            last = None
            for n in [*range(1, count + 1, 1 if FULL else 11), None]:
                job = None if n is None else next_job(n)
                process = run_process(root, shim, cache, last=last, next=job)
                lines = process.stdout.splitlines()
                if last is not None and process.returncode in (0, -signal.SIGKILL):
                    ends[json.loads(lines[1])["ended"]] += 1
                elif last is not None:
                    wrong.append(f"{last}: {process.stdout}{process.stderr[-3000:]}")
                    embed.end_qemus(root / "root")
                    process = run_process(root, shim, cache, last=None, next=job)
                if job is None:
                    break
                was_killed = process.returncode == -signal.SIGKILL
                assert was_killed or '"count"' in process.stdout, process.stderr
                last = {"folder": job["folder"], "undo": n % 2 == 0} if was_killed else None
        finally:
            embed.end_qemus(root / "root")
    print(f"{kind}: {count} moments, ends: {dict(ends)}, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
    assert ends["path1"] > 0 and ends["path2"] > 0, ends
