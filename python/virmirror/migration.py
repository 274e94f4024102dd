# SPDX-License-Identifier: LGPL-2.1-or-later
"""The whole migration: prepare, mirror, copy, cut over, collapse, clean.

What has to be known to go on after a death is in the job's record and in the
domain's journal; what is done next is decided by what is, as libvirt, the locks
and the files show it, never by the record alone. Until the cut-over is over,
whatever goes wrong is undone; after it the way is forward only.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import libvirt

from . import _core, offline, recovery
from .connecting import domain_of
from .deadline import Deadline
from .errors import MirrorError, StateError
from .jobs import Created, Job, Phase, libvirt_domain
from .layers import Store
from .oserrors import os_errors
from .planning import Collapse, Converge, DiskPlan, Pace, Plan, Snapshots, plan
from .reports import DiskReport, Forgotten, OnProgress, Progress, Report
from .sides import Found, files_in, look, plain, refused, side_of
from .snapshots import check_followers, follow
from .steps import MOVED, Domain, Refusal, Side, Step, Wish, next_step

__all__ = ["forget", "migrate", "run", "undo"]

_BLOCK = 512  # bytes, of st_blocks

# A pull writes less where the guest has written more than its old top holds; but then
# the disk gets another name. So many bytes more may be written to avoid that.
_NAMES_ARE_WORTH = 64 * 1024 * 1024

# Seconds that mirrors have, when a migration is undone, to come level with the guest.
_UNDO_TIMEOUT = 120.0

# Where these are the next step, it is left to the caller.
_LAST = (Step.FINISH, Step.REMOVE, Step.FORGET)


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
    converge: Converge = "wait",
    overlay_folder: str | os.PathLike[str] | None = None,
    snapshots: Snapshots = "refuse",
    on_progress: OnProgress | None = None,
    timeout: float | None = None,
) -> Report:
    """Move disks of a running domain into other folders, all of it or nothing.

    `plan` and `run` in one, on the connection of ``dom``: the parameters are
    theirs, and so are the errors.
    """
    deadline = Deadline(timeout)
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
        converge=converge,
        overlay_folder=overlay_folder,
        snapshots=snapshots,
    )
    with contextlib.closing(Job.open(planned)) as job:
        return _Migration(planned, job, dom, on_progress, deadline).run()


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
    start of each phase, some times a second while a layer is copied, and once a second
    while the mirrors come level with the guest; an exception of it ends the migration.
    ``timeout`` (seconds; None: any time) bounds the run until the cut-over is made, with all
    the waiting for other processes that fill a layer; then MirrorTimeoutError is raised, and
    what was done is undone, which is not bounded. What follows the cut-over is not bounded,
    either: it goes on.

    Returns the `Report`; that of a plan which was carried out before, without
    doing anything again. What goes wrong before the cut-over is over, Ctrl-C too, is
    undone: the guest is where it was, and nothing is left; a note of the exception
    says so. (A mirror that was ready once can be ended only when it is level with the
    guest: where neither the plan's pause budget nor its ``converge`` brings it there in two
    minutes, the note says that undoing has failed.) After that the guest is on the new
    storage, and running the plan again finishes what is left to be done.

    Raises BusyError (names the process that is at work on the domain; or another one
    that fills a layer has stopped to), NotFoundError (the domain), StateError (it does
    not run), DivergedError (a disk is where neither the old nor the new side is),
    ExistsError (another file is at the place of a copy), JournalError, StorageError,
    JobFailedError, MirrorTimeoutError, and what `copy`, `MirrorSnapshot.create`,
    `MirrorSnapshot.pivot` and `block_commit` raise.
    """
    deadline = Deadline(timeout)
    with contextlib.closing(Job.open(plan)) as job:
        if job.state.report is not None:
            return Report.from_json(job.state.report)
        with domain_of(plan, conn) as dom:
            return _Migration(plan, job, dom, on_progress, deadline).run()


def undo(plan: Plan, *, conn: libvirt.virConnect | None = None) -> tuple[str, ...]:
    """Undo a migration whose run died before the cut-over was over.

    Mirrors are aborted, what the guest wrote since is committed back, and files that
    were made are removed. The domain need not run: then its overlays are committed by
    qemu-img, and its definition is set back. Where it is gone only the copies are removed.

    Returns the files that were made and are left: they are in use, or hold what the
    guest has written. Raises StateError where the guest is on the new storage already:
    `run` finishes it then; and what `run` does.
    """
    with contextlib.closing(Job.open(plan)) as job, domain_of(plan, conn) as dom:
        if job.state.report is None:
            return _Migration(plan, job, dom).undo()
    raise _core._make_error(
        "invalid-state", "the migration is over: plan another one back to the old storage"
    )


def forget(plan: Plan, *, conn: libvirt.virConnect | None = None) -> Forgotten:
    """Drop the record of a migration, and leave everything else as it is.

    It is the way out where neither `run` nor `undo` is one: somebody else has moved the
    disks meanwhile, or the domain is gone. Returns what is left where: that is the last time
    that it is known which files the migration has made. A mirrored snapshot of it whose
    disks somebody else has changed loses its journal, too.

    Raises StateError as long as its mirrored snapshot is there (then `run`, `undo` or
    `recover` ends it), NotFoundError where there is no record, BusyError, and what `run`
    does.
    """
    with contextlib.closing(Job.open(plan)) as job, domain_of(plan, conn) as dom:
        return _Migration(plan, job, dom).forget()


class _Migration:
    """One run of a plan."""

    def __init__(
        self,
        plan: Plan,
        job: Job,
        dom: Any,
        on_progress: OnProgress | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        self._plan = plan
        self._job = job
        self._dom = dom
        self._on_progress = on_progress
        self._deadline = deadline or Deadline(None)  # until the cut-over is made
        self._mirror: _core.MirrorSnapshot | None = None
        self._callers: OSError | None = None  # raised by on_progress
        self._phase: Phase = "prepare"
        self._store = Store(plan, job, self._on_copy, self._deadline)

    def run(self) -> Report:
        with contextlib.closing(self._store), self._os_errors():
            self._advance("run")
            with self._spending("collapse"):
                for disk in self._plan.disks:
                    self._collapse(disk)
                self._check_still_moved()
            with self._spending("clean"):
                removed, left = self._clean()
            return self._finish(removed, left)

    def _check_still_moved(self) -> None:
        """That no disk runs on a chain that leads back to the old storage."""
        found = self._look()
        if not found.situation.sides <= MOVED | {"gone"}:
            text = "somebody else has changed the chain of a disk since the cut-over"
            raise refused(self._plan, "run", Refusal("diverged", text), found)

    def undo(self) -> tuple[str, ...]:
        with contextlib.closing(self._store), self._os_errors():
            return self._remove(self._advance("undo"))

    def forget(self) -> Forgotten:
        with self._os_errors():
            return self._leave(self._advance("forget"))

    # ---- one step after the other ----

    def _advance(self, wish: Wish) -> Found:
        """Take steps until the last one is the next, and return what was found then."""
        before = None
        while True:
            found = self._look()
            step = next_step(wish, found.situation)
            if isinstance(step, Refusal):
                raise refused(self._plan, wish, step, found)
            if step in _LAST:
                return found
            if (step, found.situation) == before:
                raise refused(
                    self._plan, wish, Refusal("diverged", f"'{step.value}' had no effect"), found
                )
            before = (step, found.situation)
            self._job.check_held()
            self._deadline.left(f"the next step was '{step.value}'")
            self._take(step, found)

    def _at_most(self, seconds: float) -> float:
        """How long one call may take."""
        left = self._deadline.left("the mirrored snapshot was to be changed")
        return seconds if left is None else min(left, seconds)

    def _look(self) -> Found:
        return look(self._plan, None if self._job.is_new() else self._job.state.phase, self._dom)

    def _take(self, step: Step, found: Found) -> None:
        if step in (Step.ABORT, Step.PIVOT):
            self._end_mirror(found, "pivot" if step is Step.PIVOT else "abort")
        elif step is Step.TAKE_BACK:
            for disk in self._on(found, {"overlay"}):
                self._take_back(disk, found.situation.domain)
        else:
            disks = [disk for disk in self._plan.disks if found.sides[disk.target] not in MOVED]
            if step is Step.GO_ON:
                self._adopt(found)
            try:
                self._move(disks)
            except BaseException as error:
                self._give_up(error)
                raise

    def _on(self, found: Found, sides: set[Side]) -> list[DiskPlan]:
        return [disk for disk in self._plan.disks if found.sides[disk.target] in sides]

    # ---- until the guest is on the new storage ----

    def _move(self, disks: Sequence[DiskPlan]) -> None:
        self._check_sources(disks, is_new=self._job.is_new())
        self._check_snapshots()
        with self._spending("prepare"):
            if self._mirror is None:
                self._drop_tops(disks)
            for disk in disks:
                for layer in reversed(disk.layers[1:]):
                    self._store.fill(layer)
            for disk in disks:
                self._store.make_skeleton(disk.layers[0])
        with self._spending("mirror"):
            self._start_mirror(disks)
            self._check_on_overlays(disks)
            self._check_snapshots()
        with self._spending("copy"):
            for disk in disks:
                for layer in reversed(disk.layers):
                    self._store.renew(layer)
        with self._spending("cut-over"):
            self._job.save(phase="collapse", pause=self._cut_over())

    def _cut_over(self) -> float:
        """Pivot to the mirrors; for how long the guest was suspended."""
        assert self._mirror is not None
        waiting = "waiting for the mirrors to come level with the guest"
        if self._plan.pause_budget is None:
            self._mirror.wait_ready(self._deadline.left(waiting), on_progress=self._on_figures)
        return self._mirror.pivot(
            pause_budget=self._plan.pause_budget,
            converge=self._plan.converge,
            timeout=self._deadline.left(waiting),
            on_progress=self._on_figures,
        )

    def _check_sources(self, disks: Sequence[DiskPlan], *, is_new: bool = False) -> None:
        """That the layers are the very files that were planned.

        When the plan is new, nobody may have written to those below the tops, either.
        """
        for disk in disks:
            for layer in disk.layers:
                self._store.check_source(layer, is_frozen=is_new and layer is not disk.layers[0])

    def _check_snapshots(self) -> None:
        """That none was taken since the plan was made: it would lead back."""
        dom = libvirt_domain(self._dom)
        if self._plan.snapshots == "follow":
            check_followers(dom, self._plan.disks, self._plan.name)
        names = dom.snapshotListNames()
        others = ", ".join(repr(name) for name in names if name != self._plan.name)
        if others and self._plan.snapshots == "refuse":
            raise _core._make_error(
                "invalid-state",
                f"the domain has snapshots now ({others}), and a revert to one would lead back "
                "to the old storage: delete them, or plan with snapshots='keep'",
            )

    def _check_on_overlays(self, disks: Sequence[DiskPlan]) -> None:
        """That what is frozen now, below the overlays, is what was planned."""
        for disk in disks:
            side = self._side(disk)
            if side != "overlay":
                raise _core._make_error(
                    "diverged",
                    f"the backing chain of disk '{disk.target}' was changed while the migration "
                    f"ran (it is at '{side}')",
                )
        self._check_sources(disks)

    def _drop_tops(self, disks: Sequence[DiskPlan]) -> None:
        """Remove what an earlier run has made of the tops: the guest has written since."""
        tops = {path for disk in disks for path in _tops(disk)}
        for created in self._job.state.created:
            if created.path in tops:
                self._drop(created)

    def _start_mirror(self, disks: Sequence[DiskPlan]) -> None:
        if self._mirror is None:
            specs = [
                f"{_escape(disk.target)},file={_escape(disk.overlay)},mirror={_escape(disk.mirror)}"
                for disk in disks
            ]
            self._mirror = _core.MirrorSnapshot.create(
                self._dom, self._plan.name, specs, timeout=self._at_most(60.0)
            )
        self._note_tops()

    def _note_tops(self) -> None:
        """Note the new tops down: the snapshot of the plan's name has made them."""
        self._note_made([path for disk in self._plan.disks for path in (disk.overlay, disk.mirror)])

    def _note_made(self, paths: list[str]) -> None:
        made = {path: Created.at(path) for path in paths if os.path.lexists(path)}
        kept = (one for one in self._job.state.created if one.path not in made)
        self._job.save(created=(*kept, *made.values()))

    def _adopt(self, found: Found) -> None:
        """Take over the mirrors that an earlier run has left running."""
        self._note_tops_of(found)
        recovery.recover_held(
            self._dom, "resume", self._at_most(300.0)
        )  # a guest that we had suspended goes on
        self._mirror = _core.adopt(self._dom, self._plan.name)

    def _note_tops_of(self, found: Found) -> None:
        assert found.inspection is not None
        if found.inspection.meant != "creating":  # else they may be another one's
            self._note_tops()

    def _end_mirror(self, found: Found, how: Literal["abort", "pivot"]) -> None:
        """End the mirrored snapshot, whatever state it is in."""
        self._note_tops_of(found)
        mirror, self._mirror = self._mirror, None
        if mirror is not None and mirror.state != "done":
            if how == "abort" and found.situation.domain == "running":
                mirror.abort(
                    _UNDO_TIMEOUT,
                    pause_budget=self._plan.pause_budget,
                    converge=self._plan.converge,
                )
                return
            mirror.detach()
        done = recovery.recover_held(self._dom, how, self._at_most(300.0))
        if done.verdict != "nothing":
            assert found.inspection is not None
            raise _core._make_error("diverged", "; ".join((found.inspection.advice, *done.left)))

    def _side(self, disk: DiskPlan) -> Side:
        """Which side the disk is on now."""
        return side_of(disk, _core._disk_chains(self._dom).get(disk.target))

    def _give_up(self, error: BaseException) -> None:
        """Undo all of it after ``error``, to which the outcome is added."""
        self._deadline.lift()
        try:
            self._job.check_held()
            found = self._look()
            if not self._job.is_new() and found.situation.sides <= MOVED:
                error.add_note("the guest is on the new storage: run the plan again to finish")
                return
            left = () if self._job.is_new() else self._remove(self._advance("undo"))
        except (MirrorError, OSError) as failure:
            error.add_note(
                f"undoing the migration failed, too: {failure}; run the plan again, or undo it"
            )
        else:
            error.add_note("the migration was undone: the guest is where it was before")
            if left:
                error.add_note(f"left: {', '.join(left)}")

    def _take_back(self, disk: DiskPlan, domain: Domain) -> None:
        """Have the disk on its source again, with all that was written since."""
        # whoever has taken the snapshot may have died before it was noted
        self._note_made([disk.overlay])
        if domain == "running":
            left = self._deadline.left(f"'{disk.overlay}' was to be committed back")
            _core.block_commit(self._dom, disk.target, disk.overlay, timeout=left)
        else:
            top = disk.layers[0]
            offline.commit(disk.overlay, top.source)
            _core._set_source(self._dom, disk.target, top.source, top.format)
        for created in self._job.state.created:
            if created.path == disk.overlay:
                self._drop(created)

    def _remove(self, found: Found) -> tuple[str, ...]:
        """Remove the files that were made, and the record; which files are left."""
        for disk in self._plan.disks:
            for layer in disk.layers:
                self._store.sweep(layer.destination)
        kept = set()
        if found.situation.phase != "prepare":
            # what a disk was on that is elsewhere now may be all that there is of it
            kept = {disk.overlay for disk in self._on(found, {"elsewhere", "gone"})}
        kept |= self._used(found)
        left = [
            created.path
            for created in reversed(self._job.state.created)
            if created.path in kept or not self._drop(created)
        ]
        self._job.forget()
        return tuple(path for path in left if os.path.lexists(path))

    def _used(self, found: Found) -> set[str]:
        """Which of the files that were made are in a chain of the domain."""
        created = [one.path for one in self._job.state.created]
        return files_in(created, found.chains.values())

    def _leave(self, found: Found) -> Forgotten:
        """Remove the record; what is left."""
        if found.situation.snapshot == "changed":
            _core._disown(self._dom, self._plan.name)
        made = [one.path for one in self._job.state.created if self._job.owns(one.path)]
        used = self._used(found)
        self._job.forget()
        return Forgotten(
            plan=self._plan.id,
            domain=self._plan.domain,
            uuid=self._plan.uuid,
            disks=found.disks,
            used=tuple(path for path in made if path in used),
            left=tuple(path for path in made if path not in used),
        )

    def _drop(self, created: Created) -> bool:
        """Remove a file that was made, which the next start must not want; whether it
        is gone."""
        if not os.path.lexists(created.path):
            return True
        try:
            if self._dom is not None:
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
        if self._plan.snapshots == "follow":
            moved = [
                disk
                for disk in self._plan.disks
                if chains.get(disk.target, ())[:1] == [disk.layers[0].destination]
            ]
            follow(libvirt_domain(self._dom), moved)
        used = files_in([one.path for one in self._job.state.created], chains.values())
        unused = [one for one in self._job.state.created if one.path not in used]
        # what a disk that somebody has taken away was on may be all that there is of it
        kept = {path for disk in self._plan.disks for path in self._files_of_lost(disk)}
        if self._plan.remove_source:
            tops = [disk.layers[0] for disk in self._plan.disks]
            unused += [Created(top.source, top.dev, top.ino, 0) for top in tops if top.ino]
            # those that were kept, or taken meanwhile, need them
            if self._plan.snapshots != "follow" and libvirt_domain(self._dom).snapshotNum():
                kept |= {top.source for top in tops}
        left = tuple(one.path for one in unused if one.path in kept)
        unused = [one for one in unused if one.path not in kept and os.path.lexists(one.path)]
        gone = {one.path: self._drop(one) for one in unused}
        return (
            tuple(path for path, is_gone in gone.items() if is_gone),
            left + tuple(path for path, is_gone in gone.items() if not is_gone),
        )

    def _files_of_lost(self, disk: DiskPlan) -> tuple[str, ...]:
        """All files of a disk that does not run on the new side, () if it does."""
        if self._side(disk) in MOVED:
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
                    before=tuple(plain(layer.source) for layer in disk.layers),
                    after=tuple(map(plain, chains.get(disk.target, ()))),
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
        self._tell(Progress(phase, None, 0, 0, None))
        self._job.save(phase=phase)
        copied, start = self._job.copied, time.monotonic()
        yield
        self._job.spend(phase, time.monotonic() - start, self._job.copied - copied)

    def _tell(self, progress: Progress) -> None:
        if self._on_progress is not None:
            try:
                self._on_progress(progress)
            except OSError as error:
                self._callers = error
                raise

    def _os_errors(self) -> contextlib.AbstractContextManager[None]:
        """Have errors of the operating system as this package's, but for the caller's own."""
        return os_errors(is_others=lambda error: error is self._callers)

    def _on_figures(self, figures: _core.MirrorFigures) -> None:
        self._tell(Progress(self._phase, None, 0, 0, figures))

    def _on_copy(self, path: str, current: int, end: int) -> None:
        self._deadline.left(f"'{path}' was copied")
        self._tell(Progress(self._phase, path, current, end, None))


def _tops(disk: DiskPlan) -> tuple[str, ...]:
    """The files that hold what the guest writes, or wrote until it got a new top."""
    return (disk.overlay, disk.mirror, disk.layers[0].destination)


def _escape(text: str) -> str:
    """``text`` as part of a diskspec."""
    return text.replace(",", ",,")


def _allocated(path: str) -> int:
    return os.stat(path).st_blocks * _BLOCK
