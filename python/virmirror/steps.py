# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is done next with a migration, decided from what was found, and nothing else.

`next_step` is pure: it looks at a `Situation` and names a step, or says why there is
none. Each step brings the situation nearer to an end, so a run, an undo or a forget is:
look, take the step, look again. ``tests/unit/test_steps.py`` holds that from every
situation at least one of the three gets to its end.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Literal, TypeAlias

from .jobs import Phase

__all__ = [
    "Domain",
    "MOVED",
    "NOT_MOVED",
    "Refusal",
    "Side",
    "Situation",
    "Snapshot",
    "Step",
    "Wish",
    "next_step",
    "ways",
]

#: What the caller wants: to carry the plan out, to have the guest where it was before, or
#: to leave everything as it is and drop the record.
Wish: TypeAlias = Literal["run", "undo", "forget"]

#: What the domain does; "gone": it is not defined any more.
Domain: TypeAlias = Literal["running", "off", "gone"]

#: Which of the plan's files a disk is on. "source", "overlay" and "mirror" are the chains
#: that this migration makes, "collapsed" the one that it ends with. Where somebody else has
#: changed the chain since: "old" has files of the old side, "new" of the new one, "mixed"
#: of both, "elsewhere" of none; "gone": the domain has no such disk.
Side: TypeAlias = Literal[
    "source", "overlay", "old", "mirror", "collapsed", "new", "mixed", "elsewhere", "gone"
]

#: The mirrored snapshot that the domain's journal tells of. "mirroring": its mirrors run;
#: "ended": they have ended, or it was never complete; "cut-over": a pivot was begun; "off":
#: the domain has ended with it; "changed": somebody else has changed its disks; "unclear":
#: libvirt and QEMU do not agree; "foreign": it is another migration's.
Snapshot: TypeAlias = Literal[
    "none", "mirroring", "ended", "cut-over", "off", "changed", "unclear", "foreign"
]

#: Sides of a disk whose cut-over was made, and of one whose cut-over was not.
MOVED = frozenset[Side]({"mirror", "collapsed", "new"})
NOT_MOVED = frozenset[Side]({"source", "overlay"})

_AFTER: tuple[Phase, ...] = ("collapse", "clean")  # the cut-over was made
_BEFORE: tuple[Phase | None, ...] = (None, "prepare", "mirror", "copy")  # it was not begun


class Step(enum.Enum):
    """What to do."""

    #: Prepare, mirror, copy and cut over all disks that are not on the new side.
    MOVE = "move"
    #: The same with mirrors that run already.
    GO_ON = "go on"
    #: End the mirrored snapshot: the guest stays where it is, as a rule on the overlays.
    ABORT = "abort"
    #: Finish the cut-over that was begun.
    PIVOT = "pivot"
    #: Commit the overlays back.
    TAKE_BACK = "take back"
    #: Collapse the chains, remove what is not needed, and report.
    FINISH = "finish"
    #: Remove the files that were made and are not in use, and the record.
    REMOVE = "remove"
    #: Remove the record, and the journal of a mirrored snapshot that is no more.
    FORGET = "forget"


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why there is no next step: the ``reason`` of the error, and a ``text``."""

    reason: Literal["not-found", "invalid-state", "busy", "diverged"]
    text: str


@dataclasses.dataclass(frozen=True)
class Situation:
    """What was found: the ``phase`` in the record (None: there is no record yet), the
    ``domain``, its mirrored ``snapshot``, which ``sides`` its disks are on, and whether
    one of the plan's files is open for writing (``written``) though the domain is not."""

    phase: Phase | None
    domain: Domain
    snapshot: Snapshot
    sides: frozenset[Side]
    written: bool = False


def next_step(wish: Wish, found: Situation) -> Step | Refusal:
    """The next step towards what is wanted, or why there is none."""
    if wish == "forget":
        return _next_to_forget(found)
    if found.written:
        return Refusal(
            "busy",
            "the domain does not run, but a QEMU has one of its files open for writing: "
            "end that first",
        )
    if found.domain == "gone":
        return _next_without_domain(wish, found)
    if found.snapshot != "none":
        return _next_with_snapshot(wish, found)
    return _next_to_run(found) if wish == "run" else _next_to_undo(found)


def ways(found: Situation) -> tuple[Wish, ...]:
    """What can be done in a situation."""
    wishes: tuple[Wish, ...] = ("run", "undo", "forget")
    return tuple(wish for wish in wishes if isinstance(next_step(wish, found), Step))


def _next_without_domain(wish: Wish, found: Situation) -> Step | Refusal:
    if wish == "run":
        return Refusal("not-found", "the domain is gone")
    if found.phase not in _BEFORE:
        return Refusal(
            "not-found",
            "the domain is gone, and nothing tells which side it was on: look at the files",
        )
    return Step.REMOVE


def _next_with_snapshot(wish: Wish, found: Situation) -> Step | Refusal:
    if found.snapshot == "foreign":
        return Refusal(
            "busy", "the domain has a mirrored snapshot of somebody else: pivot or abort it first"
        )
    if found.snapshot == "mirroring" and wish == "run":
        return Step.GO_ON
    return Step.PIVOT if found.snapshot == "cut-over" else Step.ABORT


def _next_to_run(found: Situation) -> Step | Refusal:
    moved = MOVED | {"gone"} if found.phase in _AFTER else MOVED
    if found.phase is not None and found.sides <= moved:
        if found.domain == "off":
            return Refusal(
                "invalid-state",
                "the domain does not run, and is on the new storage already: start it to have "
                "the rest done",
            )
        return Step.FINISH
    if found.domain == "off":
        return Refusal("invalid-state", "the domain does not run: start it first")
    if found.phase is None and found.sides != {"source"}:
        return Refusal("diverged", "its disks are not where they were when it was planned")
    if found.phase in _AFTER or not found.sides <= MOVED | NOT_MOVED:
        return Refusal("diverged", "somebody else has moved its disks, or changed their chains")
    return Step.TAKE_BACK if "overlay" in found.sides else Step.MOVE


def _next_to_undo(found: Situation) -> Step | Refusal:
    if found.sides & (MOVED | {"mixed"}):
        return Refusal("invalid-state", "the domain is on the new storage already")
    if found.phase in _AFTER:
        return Refusal(
            "diverged", "the domain was moved onto the new storage, and is not there any more"
        )
    return Step.TAKE_BACK if "overlay" in found.sides else Step.REMOVE


def _next_to_forget(found: Situation) -> Step | Refusal:
    if found.phase is None:
        return Refusal("not-found", "there is no record of this migration")
    if found.domain != "gone" and found.snapshot not in ("none", "changed", "foreign"):
        return Refusal(
            "invalid-state",
            "its mirrored snapshot is still there, so the domain is on both sides",
        )
    if found.written and found.domain == "off":
        return Refusal(
            "busy",
            "the domain does not run, but a QEMU has one of its files open for writing: "
            "end that first",
        )
    return Step.FORGET
