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
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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


class Sweep:
    """One embed root; each process settles what the last one left, and begins the next."""

    def __init__(self, root: pathlib.Path, shim: pathlib.Path, cache: pathlib.Path) -> None:
        self._root, self._shim, self._cache = root, shim, cache
        self._numbers = iter(range(1, 10_000))
        self._last: dict[str, Any] | None = None
        self.ends: collections.Counter[str] = collections.Counter()
        self.verdicts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []

    def job(self, kind: str, n: int, delay: int = 0) -> dict[str, Any]:
        number = next(self._numbers)
        folder = self._root / str(number)
        folder.mkdir()
        common = {"number": number, "folder": str(folder), "log": str(self._root / "log")}
        return {**common, "kind": kind, "n": n, "delay": delay}

    def run(self, job: dict[str, Any] | None) -> subprocess.CompletedProcess[str]:
        """Settle the last one, and play ``job``."""
        last, self._last = self._last, None
        process = run_process(self._root, self._shim, self._cache, last=last, next=job)
        lines = process.stdout.splitlines()
        if last is not None and process.returncode in (0, -signal.SIGKILL):
            self.verdicts[json.loads(lines[0])["verdict"]] += 1
            self.ends[json.loads(lines[1])["ended"]] += 1
        elif last is not None:
            self.wrong.append(f"{last}: {process.stdout}{process.stderr[-3000:]}")
            embed.end_qemus(self._root / "root")
            process = run_process(self._root, self._shim, self._cache, last=None, next=job)
        return process

    def kill(self, job: dict[str, Any], number: int) -> None:
        process = self.run(job)
        was_killed = process.returncode == -signal.SIGKILL
        assert was_killed or '"count"' in process.stdout, process.stderr
        if was_killed:
            self._last = {"folder": job["folder"], "undo": number % 2 == 0, "job": job}

    def judge(self, kind: str, moments: int) -> None:
        self.run(None)
        figures = f"ends: {dict(self.ends)}, verdicts: {dict(self.verdicts)}"
        print(f"{kind}: {moments} moments, {figures}, {len(self.wrong)} wrong")
        assert not self.wrong, "\n".join(self.wrong)


@pytest.fixture
def sweep(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Sweep]:
    shim = build_killshim(tmp_path)
    with tempfile.TemporaryDirectory(prefix="vmk") as name:
        root = pathlib.Path(name)
        pytest_cache = getattr(request.config, "cache", None)
        cache = root / "cache" if pytest_cache is None else pytest_cache.mkdir("qemu-capabilities")
        yield Sweep(root, shim, cache)
        embed.end_qemus(root / "root")


@pytest.mark.parametrize("kind", ["touch", "call"])
def test_kill_in_a_migration_is_finished_or_undone(sweep: Sweep, kind: str) -> None:
    process = sweep.run(sweep.job(kind, 0))
    assert process.returncode == 0, process.stderr
    count = json.loads(process.stdout)["count"]
    for n in range(1, count + 1, 1 if FULL else 11):
        sweep.kill(sweep.job(kind, n), n)
    sweep.judge(kind, count)
    assert sweep.ends["path1"] > 0 and sweep.ends["path2"] > 0, sweep.ends


def test_kill_within_the_commit_that_collapses_is_finished(sweep: Sweep) -> None:
    """libvirt may have started the commit and not have written down its ``<mirror>``."""
    count = 60 if FULL else 3
    chance = random.Random(1)
    for n in range(count):
        sweep.kill(sweep.job("commit", 1 + n % 2, chance.randrange(20_000)), n)
    sweep.judge("commit", count)
    assert set(sweep.ends) == {"path2"}, sweep.ends
