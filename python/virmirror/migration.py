# SPDX-License-Identifier: LGPL-2.1-or-later
"""The whole migration: prepare, mirror, copy, cut over, collapse, clean.

What has to be known to go on after a death is in the job's record and in the
domain's journal; what is done next is decided by what is, as libvirt, the locks
and the files show it, never by the record alone. Until the cut-over is over,
whatever goes wrong is undone; after it the way is forward only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import libvirt

from . import _core, recovery, values
from .errors import MirrorError, StateError
from .jobs import Created, Job, LayerReport, Phase, PhaseReport
from .layers import Store
from .planning import Collapse, DiskPlan, Pace, Plan, plan

__all__ = ["DiskReport", "Progress", "Report", "migrate", "run", "undo"]

_BLOCK = 512  # bytes, of st_blocks

# A pull writes less where the guest has written more than its old top holds; but then
# the disk gets another name. So many bytes more may be written to avoid that.
_NAMES_ARE_WORTH = 64 * 1024 * 1024

# Sides of a disk whose cut-over was made.
_NEW = ("mirror", "collapsed")


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a migration is: the ``phase``; while a layer is copied the ``path`` of
    the copy, else None, and the bytes done (``current``) and to be done (``end``)."""

    phase: Phase
    path: str | None
    current: int
    end: int


OnProgress: TypeAlias = Callable[[Progress], object]


@dataclasses.dataclass(frozen=True)
class DiskReport:
    """One disk: its chain before and after (paths, top first), and how it got
    short again."""

    target: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    collapse: str


@dataclasses.dataclass(frozen=True)
class Report:
    """What a migration has done.

    ``pause`` is how long, in seconds, the guest was suspended for the cut-over, or
    None where a run died before it could note it down. ``phases`` have seconds and
    bytes copied, ``layers`` the copies with their checksums. ``removed`` are the files
    that were removed in the end, ``left`` those that were not needed and could not
    be.
    """

    plan: str
    domain: str
    uuid: str
    name: str
    pause: float | None
    phases: tuple[PhaseReport, ...]
    disks: tuple[DiskReport, ...]
    layers: tuple[LayerReport, ...]
    removed: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Seconds that all phases have taken."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def copied(self) -> int:
        """Bytes of data that were copied."""
        return sum(layer.copied for layer in self.layers)

    def to_json(self) -> str:
        """The report as a JSON object."""
        return values.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote. Raises SpecError."""
        return values.from_json(cls, text)


def migrate(
    dom: Any,
    disks: Mapping[str, str | os.PathLike[str]],
    *,
    name: str | None = None,
    collapse: Collapse = "auto",
    remove_source: bool = False,
    pace: Pace = "auto",
    bandwidth: int = 0,
    reflink: bool = True,
    verify: bool = False,
    pause_budget: float | None = 2.0,
    on_progress: OnProgress | None = None,
    timeout: float | None = None,
) -> Report:
    """Move disks of a running domain into other folders, all of it or nothing.

    `plan` and `run` in one, on the connection of ``dom``: the parameters are
    theirs, and so are the errors.
    """
    planned = plan(
        dom,
        disks,
        name=name,
        collapse=collapse,
        remove_source=remove_source,
        pace=pace,
        bandwidth=bandwidth,
        reflink=reflink,
        verify=verify,
        pause_budget=pause_budget,
    )
    with contextlib.closing(Job.open(planned)) as job:
        return _Migration(planned, job, dom, on_progress, timeout).run()


def run(
    plan: Plan,
    *,
    conn: libvirt.virConnect | None = None,
    on_progress: OnProgress | None = None,
    timeout: float | None = None,
) -> Report:
    """Carry out a plan, or go on with it where an earlier run died.

    Without ``conn`` a connection to the plan's URI is opened, and the event loop
    started (`start_event_loop`); if it is that of an `embed.Host` of this process, the
    host's is used. ``on_progress`` is called with a `Progress` in this thread, at the
    start of each phase and some times a second while a layer is copied; an exception of
    it ends the migration. ``timeout`` is how long, in seconds, the mirrors may take to
    get ready, and the cut-over to be made; None: any time.

    Returns the `Report`; that of a plan which was carried out before, without
    doing anything again. What goes wrong before the cut-over is over, Ctrl-C too, is
    undone: the guest is where it was, and nothing is left; a note of the exception
    says so. After that the guest is on the new storage, and running the plan again
    finishes what is left to be done.

    Raises BusyError (another process is at it), NotFoundError (the domain),
    StateError (it does not run), DivergedError (a disk is where neither the old
    nor the new side is), ExistsError (another file is at the place of a copy),
    JournalError, StorageError, JobFailedError, MirrorTimeoutError, and what `copy`,
    `MirrorSnapshot.create`, `MirrorSnapshot.pivot` and `block_commit` raise.
    """
    with contextlib.closing(Job.open(plan)) as job:
        if job.state.report is not None:
            return Report.from_json(job.state.report)
        with _domain_of(plan, conn) as dom:
            return _Migration(plan, job, dom, on_progress, timeout).run()


def undo(plan: Plan, *, conn: libvirt.virConnect | None = None) -> None:
    """Undo a migration whose run died before the cut-over was over.

    Mirrors are aborted, what the guest wrote since is committed back, and files that
    were made are removed. Raises StateError where the guest is on the new storage
    already: `run` finishes it then; and what `run` does.
    """
    with contextlib.closing(Job.open(plan)) as job, _domain_of(plan, conn) as dom:
        if job.state.report is None:
            _Migration(plan, job, dom, None, None).undo()
            return
    raise _core._make_error(
        "invalid-state", "the migration is over: plan another one back to the old storage"
    )


@contextlib.contextmanager
def _domain_of(plan: Plan, conn: libvirt.virConnect | None) -> Iterator[libvirt.virDomain]:
    """The domain of the plan, on this connection, an embedded host's, or one of its own."""
    opened = None
    if conn is None and plan.uri.startswith("qemu:///embed?"):
        from . import embed  # few need it

        conn = embed.connection(plan.uri)
    if conn is None:
        _core.start_event_loop()
        conn = opened = libvirt.open(plan.uri)
    try:
        try:
            dom = conn.lookupByUUIDString(plan.uuid)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            raise _core._make_error(
                "not-found", f"domain '{plan.domain}' is not at '{plan.uri}'"
            ) from error
        yield dom
    finally:
        if opened is not None:
            opened.close()


class _Migration:
    """One run of a plan."""

    def __init__(
        self,
        plan: Plan,
        job: Job,
        dom: Any,
        on_progress: OnProgress | None,
        timeout: float | None,
    ) -> None:
        self._plan = plan
        self._job = job
        self._dom = dom
        self._on_progress = on_progress
        self._timeout = timeout
        self._mirror: _core.MirrorSnapshot | None = None
        self._phase: Phase = "prepare"
        self._store = Store(plan, job, self._on_copy)

    def run(self) -> Report:
        with contextlib.closing(self._store):
            if not self._is_over():
                try:
                    self._move()
                except BaseException as error:
                    self._give_up(error)
                    raise
            with self._spending("collapse"):
                for disk in self._plan.disks:
                    self._collapse(disk)
            with self._spending("clean"):
                removed, left = self._clean()
            return self._finish(removed, left)

    def undo(self) -> None:
        with contextlib.closing(self._store):
            if self._is_over():
                raise _core._make_error(
                    "invalid-state",
                    f"domain '{self._plan.domain}' is on the new storage already: run the plan "
                    "again, which finishes it",
                )
            self._undo()

    # ---- until the guest is on the new storage ----

    def _move(self) -> None:
        with self._spending("prepare"):
            for disk in self._plan.disks:
                for layer in reversed(disk.layers[1:]):
                    self._store.fill(layer)
            for disk in self._plan.disks:
                self._store.make_skeleton(disk.layers[0])
        with self._spending("mirror"):
            self._start_mirror()
        with self._spending("copy"):
            for disk in self._plan.disks:
                self._store.fill(disk.layers[0])
        with self._spending("cut-over"):
            assert self._mirror is not None
            self._mirror.wait_ready(self._timeout)
            pause = self._mirror.pivot(pause_budget=self._plan.pause_budget, timeout=self._timeout)
            self._job.save(phase="collapse", pause=pause)

    def _start_mirror(self) -> None:
        if self._mirror is None:
            specs = [
                f"{_escape(disk.target)},file={_escape(disk.overlay)},mirror={_escape(disk.mirror)}"
                for disk in self._plan.disks
            ]
            self._mirror = _core.MirrorSnapshot.create(self._dom, self._plan.name, specs)
        self._note_tops()

    def _note_tops(self) -> None:
        """Note the new tops down: the snapshot of the plan's name has made them."""
        self._note_made([path for disk in self._plan.disks for path in (disk.overlay, disk.mirror)])

    def _note_made(self, paths: list[str]) -> None:
        made = {path: Created.at(path) for path in paths if os.path.lexists(path)}
        kept = (one for one in self._job.state.created if one.path not in made)
        self._job.save(created=(*kept, *made.values()))

    def _is_over(self) -> bool:
        """Settle what an earlier run has left; whether the cut-over was made."""
        if self._job.is_new():
            return False
        found = recovery.inspect(self._dom)
        if found.snapshot is not None:
            self._settle(found)
        if self._mirror is not None:
            return False
        sides = {disk.target: self._side(disk) for disk in self._plan.disks}
        moved = self._job.state.phase in ("collapse", "clean")
        if all(side in _NEW or (moved and side == "gone") for side in sides.values()):
            return True
        if any(side not in ("source", "overlay") for side in sides.values()):
            told = ", ".join(f"'{target}': {side}" for target, side in sides.items())
            raise _core._make_error(
                "diverged",
                f"the disks of domain '{self._plan.domain}' are not all on the same side of the "
                f"migration ({told}): look at them with inspect()",
            )
        for disk in self._plan.disks:
            self._take_back(disk)
        return False

    def _settle(self, found: recovery.Inspection) -> None:
        """Bring a mirrored snapshot that somebody left to where it can be gone on with."""
        if found.snapshot != self._plan.name:
            raise _core._make_error(
                "busy",
                f"the domain has the mirrored snapshot '{found.snapshot}' of somebody else: pivot "
                "or abort it first",
            )
        if found.meant != "creating":
            self._note_tops()
        if found.verdict in ("ready", "mirroring"):
            recovery.recover(self._dom)  # a guest that we had suspended goes on
            self._mirror = _core.adopt(self._dom, self._plan.name)
            return
        forward = found.verdict in ("pivoted", "cut-over")
        done = recovery.recover(self._dom, "pivot" if forward else "abort")
        if done.verdict == "nothing":
            if found.verdict != "off":
                return
            raise _core._make_error(
                "invalid-state",
                f"domain '{self._plan.domain}' does not run: start it, and run the plan again",
            )
        raise _core._make_error("diverged", "; ".join((found.advice, *done.left)))

    def _side(self, disk: DiskPlan) -> str:
        """Which of the plan's files the disk runs on, with the layers below that are
        meant to be there."""
        chains = _core._disk_chains(self._dom)
        if disk.target not in chains:
            return "gone"
        chain = tuple(chains[disk.target])
        old = tuple(layer.source for layer in disk.layers)
        new = tuple(layer.destination for layer in disk.layers)
        sides = {
            old: "source",
            (disk.overlay, *old): "overlay",
            (disk.mirror, *new): "mirror",
            (disk.mirror, *new[1:]): "collapsed",
            new: "collapsed",
        }
        return sides.get(chain, "elsewhere")

    def _give_up(self, error: BaseException) -> None:
        """Undo all of it after ``error``, which is told of that."""
        try:
            if all(self._side(disk) == "mirror" for disk in self._plan.disks):
                error.add_note("the guest is on the new storage: run the plan again to finish")
                return
            self._undo()
        except (MirrorError, OSError) as failure:
            error.add_note(
                f"undoing the migration failed, too: {failure}; run the plan again, or undo it"
            )
        else:
            error.add_note("the migration was undone: the guest is where it was before")

    def _undo(self) -> None:
        if self._mirror is not None and self._mirror.state != "done":
            self._mirror.abort()
        elif (found := recovery.inspect(self._dom)).snapshot == self._plan.name:
            if found.meant != "creating":
                self._note_tops()
            recovery.recover(self._dom, "abort")
        for disk in self._plan.disks:
            self._take_back(disk)
        for disk in self._plan.disks:
            for layer in disk.layers:
                self._store.sweep(layer.destination)
        for created in reversed(self._job.state.created):
            self._drop(created)
        self._job.forget()

    def _take_back(self, disk: DiskPlan) -> None:
        """Have the disk on its source again, with all that was written since."""
        if self._side(disk) == "overlay":
            # whoever has taken the snapshot may have died before it was noted
            self._note_made([disk.overlay])
            _core.block_commit(self._dom, disk.target, disk.overlay)
        if self._side(disk) != "source":
            raise _core._make_error(
                "diverged", f"disk '{disk.target}' does not run on '{disk.layers[0].source}'"
            )
        for created in self._job.state.created:
            if created.path == disk.overlay:
                self._drop(created)

    def _drop(self, created: Created) -> bool:
        """Remove a file that was made, which the next start must not want; whether it
        is gone."""
        if not os.path.lexists(created.path):
            return True
        try:
            _core._leave_file(self._dom, created.path)
        except StateError:
            return False
        return self._store.drop(created)

    # ---- from then on ----

    def _collapse(self, disk: DiskPlan) -> None:
        if self._side(disk) != "mirror":
            return
        how = self._choose(disk)
        if how == "commit":
            # it is written to from here on, and no copy of anything any more
            _core._mark_copy(disk.layers[0].destination, unmark=True)
            _core.block_commit(self._dom, disk.target, disk.mirror)
        elif how == "pull":
            below = disk.layers[1].destination if len(disk.layers) > 1 else None
            _core.block_pull(self._dom, disk.target, below)

    def _choose(self, disk: DiskPlan) -> str:
        """How the chain is to get short; what was begun stays."""
        chosen = self._chosen()
        if disk.target not in chosen:
            how: str = self._plan.collapse
            if how == "auto":
                top, below = _allocated(disk.mirror), _allocated(disk.layers[0].destination)
                how = "commit" if top <= below + _NAMES_ARE_WORTH else "pull"
            chosen[disk.target] = how
            self._job.save(collapse=tuple(f"{target}={how}" for target, how in chosen.items()))
        return chosen[disk.target]

    def _chosen(self) -> dict[str, str]:
        """What was chosen so far, by target name."""
        return dict(one.split("=", 1) for one in self._job.state.collapse)

    def _clean(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Remove what is not needed any more; what was, and what could not be."""
        chains = _core._disk_chains(self._dom)
        used = {path for chain in chains.values() for path in chain}
        unused = [one for one in self._job.state.created if one.path not in used]
        if self._plan.remove_source:
            tops = (disk.layers[0] for disk in self._plan.disks)
            unused += [Created(top.source, top.dev, top.ino, 0) for top in tops if top.ino]
        # what a disk that somebody has taken away was on may be all that there is of it
        kept = {path for disk in self._plan.disks for path in self._files_of_lost(disk)}
        left = tuple(one.path for one in unused if one.path in kept)
        unused = [one for one in unused if one.path not in kept and os.path.lexists(one.path)]
        gone = {one.path: self._drop(one) for one in unused}
        return (
            tuple(path for path, is_gone in gone.items() if is_gone),
            left + tuple(path for path, is_gone in gone.items() if not is_gone),
        )

    def _files_of_lost(self, disk: DiskPlan) -> tuple[str, ...]:
        """All files of a disk that does not run on the new side, () if it does."""
        if self._side(disk) in _NEW:
            return ()
        layers = (path for layer in disk.layers for path in (layer.source, layer.destination))
        return (disk.overlay, disk.mirror, *layers)

    def _finish(self, removed: tuple[str, ...], left: tuple[str, ...]) -> Report:
        chains = _core._disk_chains(self._dom)
        chosen = self._chosen()
        report = Report(
            plan=self._plan.id,
            domain=self._plan.domain,
            uuid=self._plan.uuid,
            name=self._plan.name,
            pause=self._job.state.pause,
            phases=self._job.state.spent,
            disks=tuple(
                DiskReport(
                    target=disk.target,
                    before=tuple(layer.source for layer in disk.layers),
                    after=tuple(chains.get(disk.target, ())),
                    collapse=chosen.get(disk.target, "none"),  # somebody else did
                )
                for disk in self._plan.disks
            ),
            layers=self._job.state.layers,
            removed=removed,
            left=left,
        )
        self._job.save(report=report.to_json())
        return report

    # ---- telling ----

    @contextlib.contextmanager
    def _spending(self, phase: Phase) -> Iterator[None]:
        """A phase: told, noted down, and measured."""
        self._phase = phase
        self._tell(Progress(phase, None, 0, 0))
        self._job.save(phase=phase)
        copied = sum(layer.copied for layer in self._job.state.layers)
        start = time.monotonic()
        yield
        spent = PhaseReport(
            phase,
            time.monotonic() - start,
            sum(layer.copied for layer in self._job.state.layers) - copied,
        )
        before = [one for one in self._job.state.spent if one.name == phase]
        others = [one for one in self._job.state.spent if one.name != phase]
        for one in before:
            spent = PhaseReport(phase, spent.seconds + one.seconds, spent.bytes + one.bytes)
        self._job.note(spent=(*others, spent))

    def _tell(self, progress: Progress) -> None:
        if self._on_progress is not None:
            self._on_progress(progress)

    def _on_copy(self, path: str, current: int, end: int) -> None:
        self._tell(Progress(self._phase, path, current, end))


def _escape(text: str) -> str:
    """``text`` as part of a diskspec."""
    return text.replace(",", ",,")


def _allocated(path: str) -> int:
    return os.stat(path).st_blocks * _BLOCK
