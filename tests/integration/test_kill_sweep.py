# SPDX-License-Identifier: LGPL-2.1-or-later
"""Killed at each call of libvirt, the next process puts everything right.

The processes that are killed, and those that recover, are
``tests/support/sweeper.py``; what kills them is ``tests/support/killshim.c``.
With ``VIRMIRROR_FULL=1`` every call is tried, else each function of libvirt once.

libvirt's QEMU driver is in the process that is killed. One that dies while it writes
down the end of a block job (``job=''``) cannot read that afterwards, and has lost its
QEMU: that is the only reason for the verdict ``lost``.
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


class Judgement:
    """What was found after each kill, and what was wrong with that."""

    def __init__(self, scenario: str, disks: int, *, within: bool = False) -> None:
        self.scenario = scenario
        self.disks = disks
        self._within = within
        self.verdicts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []

    def judge(
        self,
        kill: Kill,
        log: list[tuple[str, str]],
        process: subprocess.CompletedProcess[str],
    ) -> None:
        try:
            self._judge(kill, log, process)
        except (AssertionError, IndexError) as error:
            self.wrong.append(f"{kill} {log[-1]}: {error}\n{process.stdout}")

    def _judge(
        self,
        kill: Kill,
        log: list[tuple[str, str]],
        process: subprocess.CompletedProcess[str],
    ) -> None:
        found: str = json.loads(process.stdout.splitlines()[0])["inspection"]["verdict"]
        self.verdicts[found] += 1
        assert process.returncode in (0, -signal.SIGKILL), process.stderr[-2000:]
        if found == "lost":
            assert "Failed to load config for domain" in process.stderr, process.stderr
        if self._within:
            return
        done = kill.done(log)
        # the journal goes after libvirt's record; recovery looks once more after that
        ended = "virDomainSnapshotDelete" in done
        cleared = ended and "virDomainSetMetadata" in done[done.index("virDomainSnapshotDelete") :]
        # what libvirt does in a thread of its own may be hit by any kill
        assert found == "lost" or fits(found, done, cleared, self.scenario, self.disks), (
            f"found {found}"
        )

    def __str__(self) -> str:
        figures = f"{self.verdicts.total()} kills, {dict(self.verdicts)}, {len(self.wrong)} wrong"
        return f"{self.scenario} over {self.disks}: {figures}"


def kill_at(sweep: Sweep, kills: list[Kill], judgement: Judgement) -> None:
    """Play the scenario once for each kill; the process that plays it recovers the last."""
    killed: tuple[Kill, list[tuple[str, str]]] | None = None
    for number, kill in enumerate([*kills, None]):
        job = None if kill is None else sweep.job(judgement.scenario, judgement.disks, kill)
        process = sweep.run(job)
        if killed is not None:
            judgement.judge(*killed, process)
            if job is not None and process.returncode not in (0, -signal.SIGKILL):
                embed.end_qemus(sweep.root)  # the one that failed must not slow the others
                process = sweep.run(job)
        killed = None
        if kill is None or job is None:
            break
        if process.returncode != -signal.SIGKILL:
            # the number of looks while waiting is not always the same
            assert '"finished": true' in process.stdout, process.stderr
            continue
        killed = kill, sweep.log()
        print(f"{number}/{len(kills)} {kill} {killed[1][-1][1]}, {judgement}")
        sweep.last = {
            "folder": job["folder"],
            "policy": POLICIES[number % 3],
            "then": POLICIES[1 + number // 3 % 2],
        }
    print(judgement)
    assert not judgement.wrong, f"{judgement}\n" + "\n".join(judgement.wrong)


def calls_of(sweep: Sweep, scenario: str, disks: int) -> list[tuple[str, str]]:
    process = sweep.run(sweep.job(scenario, disks, Kill()))
    assert process.returncode == 0, process.stderr
    return sweep.log()


@pytest.mark.parametrize(("scenario", "disks"), SCENARIOS)
def test_kill_at_each_call_is_recovered(sweep: Sweep, scenario: str, disks: int) -> None:
    log = calls_of(sweep, scenario, disks)
    kills = points(log, full=FULL)
    if not FULL and scenario != "pivot":
        # what is the same as in a pivot has been tried there
        own = {"abort": "virDomainBlockJobAbort", "return": "virDomainBlockCopy"}[scenario]
        last = max(n for n, (_, name) in enumerate(log, start=1) if name == own)
        kills = [Kill(before=last), Kill(after=last)]
    kill_at(sweep, kills, Judgement(scenario, disks))


@pytest.mark.parametrize("scenario", ["return", "running"] if FULL else ["return"])
def test_kill_within_the_calls_is_recovered(sweep: Sweep, scenario: str) -> None:
    """At any time, also while files are made, and while libvirt is busy."""
    log = calls_of(sweep, scenario, 2)
    changing = [n for n, (kind, _) in enumerate(log, start=1) if kind == "w"]
    chance = random.Random(scenario)
    kills = [
        Kill(during=chance.choice(changing), delay=chance.randrange(40_000))
        for _ in range(60 if FULL else 5)
    ]
    kill_at(sweep, kills, Judgement(scenario, 2, within=True))
