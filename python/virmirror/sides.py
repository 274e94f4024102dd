# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a domain and its disks are, seen from a plan: what `steps` decides from.

Files are told by their names, and where these say nothing by their identity, since
libvirt spells some names in ways of its own.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import libvirt

from . import _core, recovery
from .errors import ImageError, MirrorError, NotFoundError, StorageError
from .jobs import Phase
from .planning import DiskPlan, Plan
from .reports import DiskSide
from .steps import Domain, Refusal, Side, Situation, Snapshot, Wish, ways

__all__ = ["Found", "files_in", "is_gone", "look", "plain", "refused", "side_of"]

# libvirt hears of a job's end after QEMU, and QEMU drops its locks after that: what
# looks bad counts when it is still the same after so many looks.
_BAD_LOOKS = 10
_LOOK_STEP = 0.1  # seconds

_SNAPSHOTS: dict[str, Snapshot] = {
    "nothing": "none",
    "ready": "mirroring",
    "mirroring": "mirroring",
    "aborted": "ended",
    "creating": "ended",
    "leaked": "ended",
    "hidden": "ended",
    "orphaned": "ended",
    "pivoted": "cut-over",
    "cut-over": "cut-over",
    "off": "off",
    "stuck": "unclear",
    "lying": "unclear",
    "lost": "unclear",
    "foreign": "changed",
}

_WAYS: dict[Wish, str] = {"run": "run it again", "undo": "undo it", "forget": "forget it"}


@dataclasses.dataclass(frozen=True)
class Found:
    """What a look has found: the ``situation``, the ``inspection`` it comes from (None: the
    domain is gone), and of each disk, by its target, its ``sides`` and ``chains`` (paths, top
    first)."""

    situation: Situation
    inspection: recovery.Inspection | None
    sides: Mapping[str, Side]
    chains: Mapping[str, tuple[str, ...]]

    @property
    def disks(self) -> tuple[DiskSide, ...]:
        """The same, disk by disk."""
        return tuple(
            DiskSide(target, side, self.chains.get(target, ()))
            for target, side in self.sides.items()
        )


def look(plan: Plan, phase: Phase | None, dom: Any) -> Found:
    """Look at the domain of a plan; ``dom`` is None where it is gone."""
    inspection = None if dom is None else _inspect(dom)
    if inspection is None:
        gone: dict[str, Side] = {disk.target: "gone" for disk in plan.disks}
        situation = Situation(phase, "gone", "none", frozenset(gone.values()), _is_written(plan))
        return Found(situation, None, gone, {})
    domain: Domain = "running" if inspection.running else "off"
    chains = _chains(dom, domain)
    sides = {disk.target: side_of(disk, chains.get(disk.target)) for disk in plan.disks}
    # a commit that libvirt does not show may go on without one: collapsing finishes it
    snapshot = "none" if inspection.snapshot is None else _SNAPSHOTS[inspection.verdict]
    # a commit that libvirt does not show may go on without any mirrored snapshot
    if inspection.snapshot is not None and (phase is None or inspection.snapshot != plan.name):
        snapshot = "foreign"
    situation = Situation(
        phase,
        domain,
        snapshot,
        frozenset(sides.values()),
        domain == "off" and _is_written(plan),
    )
    return Found(situation, inspection, sides, chains)


def refused(plan: Plan, wish: Wish, refusal: Refusal, found: Found) -> MirrorError:
    """The error that says why there is no next step, and what else can be done."""
    others = [_WAYS[way] for way in ways(found.situation) if way != wish]
    told = [f"domain '{plan.domain}': {refusal.text}"]
    if refusal.reason == "diverged":
        told += [f"disk '{target}' is at '{side}'" for target, side in found.sides.items()]
    if others:
        told.append(f"you can {' or '.join(others)}")
    return _core._make_error(refusal.reason, "; ".join(told))


def is_gone(error: libvirt.libvirtError) -> bool:
    """Whether libvirt says that there is no such domain."""
    return bool(error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN)


def _inspect(dom: Any) -> recovery.Inspection | None:
    """What `inspect` says when it says the same for a while; None: the domain is gone."""
    for _ in range(_BAD_LOOKS):
        try:
            found = recovery.inspect_held(dom)
        except MirrorError as error:
            if is_gone(error):
                return None
            raise
        if _SNAPSHOTS[found.verdict] not in ("unclear", "changed"):
            break
        time.sleep(_LOOK_STEP)
    return found


def _is_written(plan: Plan) -> bool:
    tops = ((disk.overlay, disk.mirror, disk.layers[0].source) for disk in plan.disks)
    return any(_core._is_written(path) for paths in tops for path in paths)


def _chains(dom: Any, domain: Domain) -> dict[str, tuple[str, ...]]:
    if domain == "running":
        live = _core._disk_chains(dom)
        return {target: tuple(map(plain, chain)) for target, chain in live.items()}
    tops = _core._persistent_sources(dom)
    return {target: _read_chain(path, kind) for target, (path, kind) in tops.items()}


def _read_chain(path: str, kind: str | None) -> tuple[str, ...]:
    """The chain from a file on, as the headers have it, as far as it can be read."""
    chain = [plain(path)]
    while kind is not None:
        try:
            name, kind = _core._image_backing(chain[-1], kind)
        except (ImageError, NotFoundError, StorageError):
            break
        if name is None:
            break
        chain.append(plain(os.path.join(os.path.dirname(chain[-1]), name)))
    return tuple(chain)


def side_of(disk: DiskPlan, chain: Sequence[str] | None) -> Side:
    """Which side a disk with this chain (None: there is no such disk) is on."""
    if chain is None:
        return "gone"
    files = _files(disk)
    roles = _roles(files, chain)
    old = [files[plain(layer.source)] for layer in disk.layers]
    new = [files[plain(layer.destination)] for layer in disk.layers]
    if roles == old:
        return "source"
    if roles == ["overlay", *old]:
        return "overlay"
    if roles == ["mirror", *new]:
        return "mirror"
    if roles in (new, ["mirror", *new[1:]]):
        return "collapsed"
    return _side_of_changed(
        [role or _role_of_other(disk, path) for role, path in zip(roles, chain, strict=True)]
    )


def _role_of_other(disk: DiskPlan, path: str) -> str:
    """The role of a file that is none of the plan's, "" where its folder tells nothing."""
    folder = os.path.dirname(plain(path))
    new = {os.path.dirname(plain(one)) for one in (disk.mirror, disk.layers[0].destination)}
    old = {os.path.dirname(plain(one)) for one in (disk.overlay, disk.layers[0].source)}
    return "source of others" if folder in old - new else ""


def _side_of_changed(roles: list[str]) -> Side:
    """The side of a chain that this migration does not make."""
    is_old = any(role in ("overlay", "source 0") for role in roles)
    is_new = any(role in ("mirror", "copy 0") for role in roles)
    if not is_old and not is_new:
        return "elsewhere"
    strange = "copy" if is_old else "source"
    if (is_old and is_new) or any(role.startswith(strange) for role in roles):
        return "mixed"
    return "old" if is_old else "new"


def _files(disk: DiskPlan) -> dict[str, str]:
    """The role of each file of a plan, by its path."""
    files = {plain(disk.overlay): "overlay", plain(disk.mirror): "mirror"}
    for n, layer in enumerate(disk.layers):
        source, destination = plain(layer.source), plain(layer.destination)
        files |= {source: f"source {n}", destination: f"copy {n}"}
        if source == destination:  # it is on both sides
            files[source] = f"shared {n}"
    return files


def _roles(files: Mapping[str, str], chain: Sequence[str]) -> list[str]:
    """The role of each file of a chain, "" for what is none of the plan's."""
    roles = [files.get(plain(path), "") for path in chain]
    if "" in roles:
        identities = {_identity(path): role for path, role in files.items()}
        roles = [
            role or identities.get(_identity(path), "")
            for role, path in zip(roles, chain, strict=True)
        ]
    return roles


def files_in(paths: Iterable[str], chains: Iterable[Sequence[str]]) -> set[str]:
    """Those of the ``paths`` whose files are in one of the chains, by whatever name."""
    used = [path for chain in chains for path in chain]
    names = {plain(path) for path in used}
    identities = {_identity(path) for path in used}
    return {path for path in paths if plain(path) in names or _identity(path) in identities}


def plain(path: str) -> str:
    """``path`` without what means nothing: libvirt writes '/b/./ubuntu:22.04.img'."""
    return re.sub("/(?:[.]?/)+", "/", path)


def _identity(path: str) -> tuple[object, ...]:
    """What tells a file from another one, whatever it is called."""
    try:
        status = os.stat(path)
    except OSError:
        return (path,)  # which is not there, or cannot be looked at
    if stat.S_ISBLK(status.st_mode):
        return (status.st_rdev,)
    return (status.st_dev, status.st_ino)
