# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a migration tells: while it runs, and in the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

from . import _core, values
from .jobs import LayerReport, Phase, PhaseReport
from .steps import Side

__all__ = ["DiskReport", "DiskSide", "Forgotten", "OnProgress", "Progress", "Report"]


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a migration is: the ``phase``; while a layer is copied the ``path`` of
    the copy, else None, and the bytes done (``current``) and to be done (``end``); while
    the mirrors come level with the guest, ``figures`` tells how, else None."""

    phase: Phase
    path: str | None
    current: int
    end: int
    figures: _core.MirrorFigures | None


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


@dataclasses.dataclass(frozen=True)
class DiskSide:
    """Where a disk was when its migration was forgotten: by its target name, its chain
    (paths, top first), and the ``side`` of the migration that this is: 'source', 'overlay' or
    'old' (the old one), 'mirror', 'collapsed' or 'new' (the new one), 'mixed', 'elsewhere', or
    'gone'."""

    target: str
    side: Side
    chain: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Forgotten:
    """What a migration that was forgotten has left.

    ``disks`` tells where they are, ``used`` the files made by the migration that the domain
    is on, and ``left`` those that it is not on: they can be removed when nothing else needs
    them. Where the domain is gone nothing tells what is needed: all are in ``left``.
    """

    plan: str
    domain: str
    uuid: str
    disks: tuple[DiskSide, ...]
    used: tuple[str, ...]
    left: tuple[str, ...]

    def to_json(self) -> str:
        """The same as a JSON object."""
        return values.to_json(self)
