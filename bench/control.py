# SPDX-License-Identifier: LGPL-2.1-or-later
"""The control plane of one small migration: the seed's steps from the snapshot to the pull.

The guest writes all the time. Making the empty files and copying the layers is
the same for all, and is not counted.
"""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import libvirt

import virmirror
from harness import Bench, Column, Results, Target, Values, main
from hosts import PULLED, READY, Guest, JobEvents, Seed, Virsh
from tools import Wrong, build_call_log, clock, run

RELATIVE = libvirt.VIR_DOMAIN_BLOCK_REBASE_RELATIVE
PIVOT = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
RECORDER = pathlib.Path(__file__).with_name("recorder.py")

VIRSH, POLLS = "virsh", "libvirt-python, 1 s polls"
EVENTS, SAME = "libvirt-python, events", "libvirt-python, virmirror's calls"
OURS = "virmirror"

# as long as a record of virmirror's
METADATA = f"<record text='{'x' * 900}'/>"


class Control(Bench):
    __doc__ = __doc__
    name = "control"
    title = "control plane of one small migration"
    notes = (
        "milliseconds from the snapshot to the end of the pull, without making files and copying",
        f"'{EVENTS}': the four calls that change something, and no more",
        f"'{SAME}': every call that virmirror makes (recorded), without anything between them",
    )
    columns = (
        Column("mirror", "snapshot, mirror (ms)", 1),
        Column("pivot", "pivot (ms)", 1),
        Column("pull", "pull (ms)", 1),
        Column("total", "in all (ms)", 1, ratio=True),
        Column("calls", "libvirt calls", 0),
    )
    reference = OURS

    def prepare(self) -> None:
        self.daemon = self.setting.daemon()
        self.virsh = Virsh(self.daemon)
        self.events = JobEvents(self.daemon.conn)
        self.log = self._record()

    def close(self) -> None:
        if hasattr(self, "events"):
            self.events.close()

    def contenders(self, case: str) -> Mapping[str, Callable[[], Values]]:
        ways: dict[str, Callable[[Seed, str], Values]] = {
            VIRSH: self._virsh,
            POLLS: self._polls,
            EVENTS: self._events,
            SAME: self._same_calls,
            OURS: self._virmirror,
        }
        return {name: lambda way=way: self._migrate(way) for name, way in ways.items()}

    def _migrate(self, way: Callable[[Seed, str], Values]) -> Values:
        """One migration of a new guest, which must lose nothing."""
        guest = Guest(self.daemon, self.work)
        try:
            seed = Seed(guest)
            values = dict(way(seed, seed.prepare()))
            values["total"] = values["mirror"] + values["pivot"] + values["pull"]
            if guest.chain() != [seed.mirror, seed.base]:
                raise Wrong(f"the chain is {guest.chain()}")
            guest.wait_for_writes(20)
            guest.check(seed.mirror)
        finally:
            guest.end()
        return values

    def _steps(
        self,
        seed: Seed,
        mirror: Callable[[], object],
        pivot: Callable[[], object],
        pull: Callable[[], object],
    ) -> dict[str, float]:
        with clock() as mirror_took:
            mirror()
        seed.copy_layers()
        with clock() as pivot_took:
            pivot()
        with clock() as pull_took:
            pull()
        steps = {"mirror": mirror_took, "pivot": pivot_took, "pull": pull_took}
        return {name: took[0] * 1000 for name, took in steps.items()}

    def _virsh(self, seed: Seed, spec: str) -> Values:
        steps = [seed.virsh_mirror, seed.virsh_pivot, seed.virsh_pull]
        return self._steps(seed, *(lambda step=step: step(self.virsh) for step in steps))

    def _python(self, seed: Seed, wait: Callable[[tuple[int, int]], None]) -> Values:
        dom = seed.guest.dom

        def mirror() -> None:
            dom.snapshotCreateXML(
                seed.snapshot_xml(),
                Seed.SNAPSHOT | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA,
            )
            dom.blockCopy("vda", seed.mirror_xml(), None, Seed.COPY)
            wait(READY)

        def pull() -> None:
            dom.blockRebase("vda", str(seed.base), 0, RELATIVE)
            wait(PULLED)

        return self._steps(seed, mirror, lambda: dom.blockJobAbort("vda", PIVOT), pull)

    def _polls(self, seed: Seed, spec: str) -> Values:
        dom = seed.guest.dom

        def wait(wanted: tuple[int, int]) -> None:
            """Until the job is ready, or gone, as loops of this kind have it."""
            while True:
                job = dom.blockJobInfo("vda")
                if not job or (wanted == READY and 0 < job["end"] == job["cur"]):
                    return
                time.sleep(1)

        return self._python(seed, wait)

    def _events(self, seed: Seed, spec: str) -> Values:
        values = self._python(seed, lambda wanted: self.events.wait(seed.name, wanted))
        return {**values, "calls": 4.0}

    def _virmirror(self, seed: Seed, spec: str) -> Values:
        dom = seed.guest.dom
        mirrors: list[virmirror.MirrorSnapshot] = []

        def mirror() -> None:
            made = virmirror.MirrorSnapshot.create(dom, "migrate", spec, reuse_external=True)
            made.wait_ready(timeout=60)
            mirrors.append(made)

        values = self._steps(
            seed,
            mirror,
            lambda: mirrors[0].pivot(),
            lambda: virmirror.block_pull(dom, "vda", base=seed.base),
        )
        return {**values, "calls": float(len(self.log))}

    def _record(self) -> list[str]:
        """The calls that virmirror makes for all this, in their order."""
        guest = Guest(self.daemon, self.work)
        log = self.work / "calls"
        try:
            seed = Seed(guest)
            spec = seed.prepare()
            run(
                [sys.executable, RECORDER, self.daemon.uri, seed.name, spec, seed.base, log],
                env={"LD_PRELOAD": str(build_call_log())},
            )
        finally:
            guest.end()
        return [line.split()[2] for line in log.read_text().splitlines()]

    def _same_calls(self, seed: Seed, spec: str) -> Values:
        calls = Replay(seed, self.events)
        snapshot = self.log.index("virDomainBlockJobAbort")
        pull = self.log.index("virDomainBlockRebase")
        # where virmirror begins to pivot, or to pull, does not matter to the sum
        parts = [self.log[:snapshot], self.log[snapshot:pull], self.log[pull:]]
        last = len(self.log) - 1 - self.log[::-1].index("virDomainSetMetadata")
        calls.metadata_left = self.log[: last + 1].count("virDomainSetMetadata")
        values = self._steps(seed, *(lambda part=part: calls.make(part) for part in parts))
        return {**values, "calls": float(len(self.log))}

    def targets(self, results: Results) -> list[Target]:
        total = {name: results.median("", name, "total") for name in results.contenders("")}
        return [
            Target("times faster than virsh", total[VIRSH] / total[OURS], 10, at_least=True),
            Target(
                "our own share over the same calls of libvirt", total[OURS] / total[SAME] - 1, 0.1
            ),
        ]


class Replay:
    """libvirt-python making given calls, waiting for events where a job is to end."""

    def __init__(self, seed: Seed, events: JobEvents) -> None:
        self.seed = seed
        self.dom = seed.guest.dom
        self.conn = self.dom.connect()
        self.events = events
        self.metadata_left = 0
        self.snapshot: Any = None
        self.registered: list[int] = []

    def make(self, names: list[str]) -> None:
        for name in names:
            getattr(self, name)()

    def virConnectGetLibVersion(self) -> None:
        self.conn.getLibVersion()

    def virConnectGetVersion(self) -> None:
        self.conn.getVersion()

    def virDomainGetXMLDesc(self) -> None:
        self.dom.XMLDesc()

    def virDomainGetState(self) -> None:
        self.dom.state()

    def virDomainIsPersistent(self) -> None:
        self.dom.isPersistent()

    def virDomainListAllSnapshots(self) -> None:
        self.dom.listAllSnapshots()

    def virDomainSnapshotGetXMLDesc(self) -> None:
        self.snapshot.getXMLDesc()

    def virDomainSnapshotIsCurrent(self) -> None:
        self.snapshot.isCurrent()

    def virDomainGetBlockJobInfo(self) -> None:
        self.dom.blockJobInfo("vda")

    def virDomainBlockJobSetSpeed(self) -> None:
        self.dom.blockJobSetSpeed("vda", 0)

    def virDomainSuspend(self) -> None:
        self.dom.suspend()

    def virDomainResume(self) -> None:
        self.dom.resume()

    def virDomainSetMetadata(self) -> None:
        self.metadata_left -= 1
        self.dom.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            METADATA if self.metadata_left else None,
            "bench",
            "urn:virmirror:bench",
            libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG,
        )

    def virConnectDomainEventRegisterAny(self) -> None:
        # as virmirror does: block jobs and the life of the domain
        kinds = (libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE)
        kind = kinds[len(self.registered) % len(kinds)]
        registered = self.conn.domainEventRegisterAny(self.dom, kind, lambda *_: None, None)
        self.registered.append(registered)

    def virConnectDomainEventDeregisterAny(self) -> None:
        if self.registered:
            self.conn.domainEventDeregisterAny(self.registered.pop())

    def virDomainSnapshotCreateXML(self) -> None:
        self.snapshot = self.dom.snapshotCreateXML(self.seed.snapshot_xml(), Seed.SNAPSHOT)

    def virDomainSnapshotDelete(self) -> None:
        self.snapshot.delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)

    def virDomainBlockCopy(self) -> None:
        self.dom.blockCopy("vda", self.seed.mirror_xml(), None, Seed.COPY)
        self.events.wait(self.seed.name, READY)

    def virDomainBlockJobAbort(self) -> None:
        self.dom.blockJobAbort("vda", PIVOT)

    def virDomainBlockRebase(self) -> None:
        self.dom.blockRebase("vda", str(self.seed.base), 0, RELATIVE)
        self.events.wait(self.seed.name, PULLED)


if __name__ == "__main__":
    sys.exit(main(Control))
