# SPDX-License-Identifier: LGPL-2.1-or-later
"""Waiting for many mirrors at once: what it costs the waiting process, and the host.

The mirrors are those of guests, paused by now, whose new storage is so slow that none gets
ready while anybody looks. Each contender is a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping

import slowmirrors
import supervisor
from harness import Bench, Column, Results, Target, Values, main
from hosts import Guest, Seed
from tools import Wrong, build_call_log, cpu_of, run


class Supervise(Bench):
    __doc__ = __doc__
    name = "supervise"
    title = "mirrors supervised until a deadline"
    notes = (
        "% of one core, of the waiting process, the libvirtd and all the QEMUs",
        "the calls are those of libvirt's functions, counted in the waiting process",
    )
    columns = (
        Column("own", "own CPU (%)", 2),
        Column("daemon", "libvirtd (%)", 2),
        Column("qemu", "QEMUs (%)", 2),
        Column("rate", "calls/s while waiting", 1),
        Column("calls", "calls in all", 0),
    )
    reference = supervisor.OURS

    def prepare(self) -> None:
        self.count, self.seconds = (2, 1.0) if self.quick else (32, 30.0)
        self.daemon = self.setting.daemon()
        self.guests: list[Guest] = []
        specs = []
        for _ in range(self.count):
            self.guests.append(Guest(self.daemon, self.work))
            self.guests[-1].dom.suspend()
            specs += [self.guests[-1].dom.name(), Seed(self.guests[-1]).prepare()]
        self.mirrors = subprocess.Popen(
            [*self.daemon.inside(), sys.executable, slowmirrors.__file__, self.daemon.uri, *specs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.mirrors.stdout is not None
        if self.mirrors.stdout.readline() != b"ready\n":
            raise Wrong("the mirrors could not be started")

    def close(self) -> None:
        if hasattr(self, "mirrors"):
            self.mirrors.communicate()  # the mirrors fail with it, and their guests can end
        for guest in getattr(self, "guests", []):
            guest.end()

    def contenders(self, case: str) -> Mapping[str, Callable[[], Values]]:
        return {name: lambda name=name: self._supervise(name) for name in supervisor.WAYS}

    def _supervise(self, way: str) -> Values:
        names = [guest.dom.name() for guest in self.guests]
        pids = self.daemon.qemu_pids()
        before = self._others(pids)
        log = self.work / "calls"
        output = run(
            [
                *self.daemon.inside(),
                *(sys.executable, supervisor.__file__, self.daemon.uri, way),
                *(str(self.seconds), log, *names),
            ],
            env={"LD_PRELOAD": str(build_call_log())},
        )
        after = self._others(pids)
        found = json.loads(output)
        self._still_mirroring()
        return {
            "own": found["cpu"] / found["seconds"] * 100,
            "daemon": (after[0] - before[0]) / found["seconds"] * 100,
            "qemu": (after[1] - before[1]) / found["seconds"] * 100,
            "rate": found["rate"],
            "calls": float(len(log.read_text().splitlines())),
        }

    def _others(self, pids: Mapping[str, int]) -> tuple[float, float]:
        """CPU seconds of the daemon and of the QEMUs."""
        daemon = int((self.daemon.folder / "pid").read_text())
        return cpu_of(daemon), sum(cpu_of(pid) for pid in pids.values())

    def _still_mirroring(self) -> None:
        for guest in self.guests:
            job = guest.dom.blockJobInfo("vda")
            if not job or job["cur"] >= job["end"] or "ready='yes'" in guest.dom.XMLDesc():
                raise Wrong(f"the mirror of {guest.dom.name()} did not last: {job}")

    def targets(self, results: Results) -> list[Target]:
        ours = supervisor.OURS
        return [
            Target("calls of libvirt while waiting", results.median("", ours, "rate"), 0),
            Target("% of a core", results.median("", ours, "own"), 0.5),
        ]


if __name__ == "__main__":
    sys.exit(main(Supervise))
