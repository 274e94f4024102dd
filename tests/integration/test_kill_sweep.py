# SPDX-License-Identifier: LGPL-2.1-or-later
"""Killed at each call of libvirt, the next process puts everything right.

The processes that are killed, and those that recover, are
``tests/support/sweeper.py``; what kills them is ``tests/support/killshim.c``.
With ``VIRMIRROR_FULL=1`` every call is tried, else each function of libvirt once.
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
from collections.abc import Iterator
from typing import Any

import pytest

from support.killshim import build_killshim
from virmirror import embed

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("qemus_reaped")]

FULL = os.environ.get("VIRMIRROR_FULL") == "1"
SUPPORT = pathlib.Path(__file__).parents[1] / "support"
POLICIES = ("resume", "abort", "pivot")

# What may be found, by how far it got; only a kill at the wrong moment inside
# libvirt leaves anything else.
ENDING = {"ready", "mirroring", "cut-over", "pivoted", "aborted", "nothing"}


class Kill(dict[str, Any]):
    """Where a process is killed: ``before``, ``after`` or ``during`` a call."""

    def __init__(self, **where: int) -> None:
        super().__init__({"before": 0, "after": 0, "during": 0, "delay": 0} | where)

    def __str__(self) -> str:
        return " ".join(f"{key} {value}" for key, value in self.items() if value)

    def done(self, log: list[tuple[str, str]]) -> list[str]:
        """The calls that had returned."""
        n = self["after"] or self["before"] - 1
        return [name for _, name in log[:n]]


class Sweep:
    """One embed root, and the processes that use it one after the other."""

    def __init__(self, folder: pathlib.Path, shim: pathlib.Path, cache: pathlib.Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self._shim = shim
        self._cache = cache
        self._number = 0
        self.last: dict[str, Any] | None = None

    def run(self, job: dict[str, Any] | None) -> subprocess.CompletedProcess[str]:
        """Recover the last one that was killed, and play the next."""
        todo = {
            "root": str(self.root),
            "cache": str(self._cache),
            "recover": self.last,
            "next": job,
        }
        self.last = None
        return subprocess.run(
            [sys.executable, str(SUPPORT / "sweeper.py"), json.dumps(todo)],
            env={**os.environ, "LD_PRELOAD": str(self._shim)},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def job(self, scenario: str, disks: int, kill: Kill) -> dict[str, Any]:
        self._number += 1
        folder = self.folder / str(self._number)
        folder.mkdir()
        common = {"number": self._number, "folder": str(folder), "log": str(self.folder / "log")}
        return {"scenario": scenario, "disks": disks, **common, **kill}

    def log(self) -> list[tuple[str, str]]:
        """The calls of the last process: "r" or "w", and the name."""
        text = (self.folder / "log").read_text()
        return [(kind, name) for _, kind, name in map(str.split, text.splitlines())]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return build_killshim(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def sweep(shim: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Sweep]:
    cache = getattr(request.config, "cache", None)
    with tempfile.TemporaryDirectory(prefix="vms") as name:
        folder = pathlib.Path(name)
        capabilities = folder / "cache" if cache is None else cache.mkdir("qemu-capabilities")
        yield Sweep(folder, shim, capabilities)
        embed.end_qemus(folder / "root")


def points(log: list[tuple[str, str]], *, full: bool) -> list[Kill]:
    """Where to kill: before and after calls that change something, before others.

    Not before one that reads after one that reads: nothing has changed meanwhile.
    """
    kills = []
    times = collections.Counter(name for _, name in log)
    chosen = {name: 1 + len(name) % times[name] for name in times}
    seen: collections.Counter[str] = collections.Counter()
    for n, (kind, name) in enumerate(log, start=1):
        seen[name] += 1
        if not full and seen[name] != chosen[name]:
            continue
        if full and kind == "r" and n > 1 and log[n - 2][0] == "r":
            continue
        kills.append(Kill(before=n))
        if kind == "w":
            kills.append(Kill(after=n))
    return kills


def fits(verdict: str, done: list[str], end: bool, scenario: str, disks: int) -> bool:
    """Whether a verdict fits the calls that had been made."""
    count = collections.Counter(done)
    copies, ended = count["virDomainBlockCopy"], count["virDomainBlockJobAbort"]
    if count["virDomainSetMetadata"] == 0 or end:
        return verdict == "nothing"
    if count["virDomainSetMetadata"] < 3:
        return verdict == "creating"
    if copies < disks:
        return verdict == "aborted"
    if ended == 0:
        return verdict in {"ready", "mirroring"}
    if scenario in {"abort", "return"}:
        return verdict in ENDING
    return verdict == ("cut-over" if ended < disks else "pivoted")


SCENARIOS = [("return", 2), ("pivot", 2), ("abort", 2)]
if FULL:
    SCENARIOS += [("pivot", 1), ("running", 2), ("abort", 1), ("recover", 2)]


def judge(lines: list[str], kill: Kill, log: list[tuple[str, str]], job: dict[str, Any]) -> str:
    """What was found after a kill; raises AssertionError if it does not fit."""
    found: str = json.loads(lines[0])["inspection"]["verdict"]
    done = kill.done(log)
    cleared = (
        bool(done) and done[-1] == "virDomainSetMetadata" and "virDomainSnapshotDelete" in done
    )
    assert fits(found, done, cleared, job["scenario"], job["disks"]), f"found {found}"
    return found


@pytest.mark.parametrize(("scenario", "disks"), SCENARIOS)
def test_kill_at_each_call_is_recovered(sweep: Sweep, scenario: str, disks: int) -> None:
    process = sweep.run(sweep.job(scenario, disks, Kill()))
    assert process.returncode == 0, process.stderr
    kills = points(sweep.log(), full=FULL)
    if not FULL and scenario != "pivot":
        # what is the same as in a pivot has been tried there
        own = {"abort": "virDomainBlockJobAbort", "return": "virDomainBlockCopy"}[scenario]
        last = max(n for n, (_, name) in enumerate(sweep.log(), start=1) if name == own)
        kills = [Kill(before=last), Kill(after=last)]
    wrong: list[str] = []
    verdicts: collections.Counter[str] = collections.Counter()
    killed: tuple[Kill, list[tuple[str, str]], dict[str, Any]] | None = None
    for number, kill in enumerate([*kills, None]):
        job = None if kill is None else sweep.job(scenario, disks, kill)
        process = sweep.run(job)
        if killed is not None:
            try:
                verdicts[judge(process.stdout.splitlines(), *killed)] += 1
                assert process.returncode in (0, -signal.SIGKILL), process.stderr[-2000:]
            except (AssertionError, IndexError) as error:
                wrong.append(f"{killed[0]} {killed[1][-1]}: {error}\n{process.stdout}")
            if job is not None and process.returncode not in (0, -signal.SIGKILL):
                embed.end_qemus(sweep.root)  # the one that is lost must not slow the others
                process = sweep.run(job)
        killed = None
        if kill is None or job is None:
            break
        if process.returncode != -signal.SIGKILL:
            # the number of looks while waiting is not always the same
            assert '"finished": true' in process.stdout, process.stderr
            continue
        killed = kill, sweep.log(), job
        print(f"{scenario} {number}/{len(kills)} {kill} {killed[1][-1][1]}", dict(verdicts), wrong)
        sweep.last = {
            "folder": job["folder"],
            "policy": POLICIES[number % 3],
            "then": POLICIES[1 + number // 3 % 2],
        }
    figures = f"{scenario} over {disks}: {verdicts.total()} kills, {dict(verdicts)}"
    print(f"{figures}, {len(wrong)} wrong")
    assert not wrong, figures + "\n" + "\n".join(wrong)
