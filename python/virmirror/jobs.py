# SPDX-License-Identifier: LGPL-2.1-or-later
"""The record of a migration on disk: what was planned, and how far it got.

One file for each plan, in a folder for each domain, which only its user may write
to, in ``$VIRMIRROR_STATE_DIR`` if set; ``/var/lib/virmirror`` for root; else
``virmirror`` in ``$XDG_STATE_HOME`` or ``~/.local/state``. It is written before each step, and
kept when the migration is over, so that its report can be had again. The mirrored
snapshot itself has its own journal, in the domain.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import stat
import time
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from . import _core, values
from .errors import ImageError, JournalError, MirrorError, NotFoundError
from .oserrors import os_errors

if TYPE_CHECKING:
    from .planning import Plan

__all__ = [
    "Created",
    "Job",
    "LayerReport",
    "Phase",
    "PhaseReport",
    "State",
    "libvirt_domain",
    "sync_folder",
    "unfinished",
    "unfinished_of",
]

Phase: TypeAlias = Literal["prepare", "mirror", "copy", "cut-over", "collapse", "clean"]

_WHAT = "cannot keep the record of the migration"

# Records of migrations that ended longer ago than this, in seconds, are dropped, and the
# oldest where there are more of them, over all domains. Those that did not end stay.
_KEEP = 30 * 24 * 3600.0
_KEEP_COUNT = 1000


@dataclasses.dataclass(frozen=True)
class Created:
    """A file that this migration has made.

    Which one is told by its inode, and by ``born``, in ns since 1970 (0: the file
    system does not know): the number of an inode is used again when its file is gone.
    """

    path: str
    dev: int
    ino: int
    born: int

    @classmethod
    def at(cls, path: str) -> Created:
        """The file that is there now. Raises NotFoundError, ImageError, StorageError."""
        return cls(path, *_core._file_identity(path))


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """The copy of one layer.

    ``copied`` are bytes of data, 0 where it was there already; ``checksum`` is the one
    of `checksum`, or None where the data were not read; ``method`` is that of `copy`.
    """

    source: str
    destination: str
    copied: int
    seconds: float
    checksum: str | None
    method: str


@dataclasses.dataclass(frozen=True)
class PhaseReport:
    """What a phase has taken: seconds, over all runs, and bytes copied."""

    name: Phase
    seconds: float
    bytes: int


@dataclasses.dataclass(frozen=True)
class State:
    """What the file holds; the plan and the report are JSON texts of their own."""

    version: int
    plan: str
    phase: Phase
    created: tuple[Created, ...]
    layers: tuple[LayerReport, ...]
    spent: tuple[PhaseReport, ...]
    pause: float | None
    collapse: tuple[str, ...]
    report: str | None


class Job:
    """The job of one plan, held by this process until it is closed."""

    #: What is on disk, or is to be.
    state: State

    def __init__(self, path: pathlib.Path, hold: Any, state: State) -> None:
        self._path = path
        self._hold = hold
        self.state = state

    @classmethod
    def open(cls, plan: Plan) -> Job:
        """Take the job of ``plan``, which is made if there is none yet.

        Raises BusyError, with its pid, if a process is at work on the domain on this
        host, whoever's it is and wherever it keeps its records; JournalError for a
        record that cannot be understood, StorageError.
        """
        path = _home(plan.uuid) / f"{_identifier(plan.id)}.json"
        hold = _core._hold(plan.uuid)
        try:
            with os_errors(_WHAT):
                for made in (path.parent.parent, path.parent):
                    if not made.exists():
                        made.mkdir(mode=0o700, parents=True, exist_ok=True)
                        sync_folder(made.parent)
                    _check_owned(made)
                _drop_old(path.parent)
                _prune()
                state = _load(path) if path.exists() else _new_state(plan)
            if state.plan != plan.to_json():
                raise _core._make_error("journal", f"'{path}' is the record of another plan")
        except BaseException:
            _core._release(hold)
            raise
        return cls(path, hold, state)

    def close(self) -> None:
        """Let others at it."""
        _core._release(self._hold)

    def check_held(self) -> None:
        """Raise BusyError in a forked child: the job is its parent's."""
        if not _core._is_held(self._hold):
            raise _core._make_error(
                "busy", "the migration is the parent's: a forked child cannot go on with it"
            )

    def note(self, **changes: Any) -> None:
        """Change these members, which the next `save` will write."""
        self.state = dataclasses.replace(self.state, **changes)

    def save(self, **changes: Any) -> None:
        """Change these members, and write all of it to disk. Raises StorageError,
        BusyError (in a forked child)."""
        self.check_held()
        state = dataclasses.replace(self.state, **changes)
        with os_errors(_WHAT):
            _store(self._path, values.to_json(state))
        self.state = state

    def spend(self, phase: Phase, seconds: float, copied: int) -> None:
        """Add to what a phase has taken, which the next `save` will write."""
        spent = PhaseReport(phase, seconds, copied)
        others = []
        for one in self.state.spent:
            if one.name == phase:
                spent = PhaseReport(phase, seconds + one.seconds, copied + one.bytes)
            else:
                others.append(one)
        self.note(spent=(*others, spent))

    @property
    def copied(self) -> int:
        """Bytes copied so far."""
        return sum(layer.copied for layer in self.state.layers)

    def is_new(self) -> bool:
        """Whether nothing was ever saved."""
        return not self._path.exists()

    def forget(self) -> None:
        """Remove the record. Raises StorageError."""
        with os_errors(_WHAT):
            self._path.unlink(missing_ok=True)

    def owns(self, path: str) -> bool:
        """Whether the file that is at ``path`` now was made by this migration."""
        try:
            return Created.at(path) in self.state.created
        except (NotFoundError, ImageError):
            return False


def folder() -> pathlib.Path:
    """Where the records of all domains are."""
    if given := os.environ.get("VIRMIRROR_STATE_DIR"):
        return pathlib.Path(given)
    if os.geteuid() == 0:
        return pathlib.Path("/var/lib/virmirror")
    home = os.environ.get("XDG_STATE_HOME")
    return (pathlib.Path(home) if home else pathlib.Path.home() / ".local/state") / "virmirror"


def unfinished(dom: Any) -> Plan | None:
    """The plan of a migration of ``dom`` that was begun and is not over, or None.

    `run` goes on with it, `undo` undoes it. Where there are several, it is the
    one that was touched last. ``dom`` is a libvirt.virDomain. Raises JournalError,
    StorageError. Calls virDomainGetUUIDString.
    """
    from .planning import Plan

    uuid = libvirt_domain(dom).UUIDString()
    with os_errors(_WHAT):
        paths = sorted(_home(uuid).glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in reversed(paths):
            state = _load(path)
            if state.report is None:
                return Plan.from_json(state.plan)
    return None


def unfinished_of(name: str) -> list[Plan]:
    """The plans of unfinished migrations of a domain of this name or UUID, which may be gone;
    the one that was touched last is the last. Raises StorageError."""
    from .planning import Plan

    found = []
    with os_errors(_WHAT):
        for path in sorted(folder().glob("*/*.json"), key=_modified):
            with contextlib.suppress(JournalError, FileNotFoundError):
                state = _load(path)
                plan = Plan.from_json(state.plan)
                if state.report is None and name in (plan.domain, plan.uuid):
                    found.append(plan)
    return found


def libvirt_domain(dom: Any) -> Any:
    """The libvirt.virDomain that ``dom`` is, or has as its attribute ``dom``."""
    return dom if getattr(dom, "_o", None) is not None else dom.dom


def _new_state(plan: Plan) -> State:
    return State(
        version=1,
        plan=plan.to_json(),
        phase="prepare",
        created=(),
        layers=(),
        spent=(),
        pause=None,
        collapse=(),
        report=None,
    )


def _home(uuid: str) -> pathlib.Path:
    """Where the records of a domain are."""
    return folder() / _identifier(uuid)


def _identifier(text: str) -> str:
    """``text`` as part of a file name."""
    if not re.fullmatch("[0-9a-f-]{1,64}", text):
        raise _core._make_error("journal", f"this is no identifier: {text!r:.80}")
    return text


def _check_owned(home: pathlib.Path) -> None:
    status = home.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _core._make_error("io", f"others can write to '{home}', which is to keep records")


def _load(path: pathlib.Path) -> State:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, encoding="utf-8", errors="replace") as file:
        if os.fstat(fd).st_uid != os.geteuid():
            raise _core._make_error("journal", f"'{path}' belongs to another user")
        text = file.read(values.MAX_SIZE + 1)
    try:
        state = values.from_json(State, text)
    except ValueError as error:
        raise _core._make_error("journal", f"'{path}' cannot be understood: {error}") from error
    if state.version != 1:
        raise _core._make_error("journal", f"'{path}' was written by a newer virmirror")
    return state


def _store(path: pathlib.Path, text: str) -> None:
    """Replace the file as a whole, and have it on disk.

    When the host loses power a moment later, it may be the one that was there
    before; then no guest runs any more that it could be wrong about.
    """
    is_new = not path.exists()
    temporary = path.with_suffix(".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if is_new:
        sync_folder(path.parent)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Have the names of new files in a folder on disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _drop_old(home: pathlib.Path) -> None:
    for path in home.glob("*.new"):
        path.unlink()  # of a process that died while it wrote


def _prune() -> None:
    """Drop the records of migrations that ended long ago, also those of domains that are
    gone; and folders of domains that are empty."""
    records = sorted(folder().glob("*/*.json"), key=_modified)
    too_many = len(records) - _KEEP_COUNT
    for n, path in enumerate(records):
        if n >= too_many and _modified(path) >= time.time() - _KEEP:
            break
        with contextlib.suppress(MirrorError, OSError):  # another one's, or gone by now
            if _load(path).report is not None:
                path.unlink()
    for home in folder().iterdir():
        with contextlib.suppress(OSError):  # not empty
            if _modified(home) < time.time() - _KEEP:
                home.rmdir()


def _modified(path: pathlib.Path) -> float:
    """When a file was last changed; 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
