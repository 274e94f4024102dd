# SPDX-License-Identifier: LGPL-2.1-or-later
# The C extension: see ext/binding. Docstrings are there.

import os
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, TypeAlias, final

import libvirt
from _typeshed import structseq

from .errors import MirrorError

VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN: Final = 1
VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY: Final = 2
VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY: Final = 4
VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_ABORT: Final = 8
VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_PIVOT: Final = 16

_error_types: Final[dict[str, type[MirrorError]]]

class _HasCapsule(Protocol):
    _o: Any

class _HasDomain(Protocol):
    @property
    def dom(self) -> _HasCapsule: ...

_Domain: TypeAlias = _HasCapsule | _HasDomain
_Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
_State: TypeAlias = Literal["creating", "mirroring", "pivoting", "aborting", "done"]
_DiskState: TypeAlias = Literal[
    "planned",
    "overlay",
    "mirroring",
    "pivoting",
    "pivoted",
    "aborting",
    "aborted",
    "failed",
]
_Pace: TypeAlias = Literal["auto", "full"]
_Method: TypeAlias = Literal["none", "reflink", "io_uring", "copy_file_range", "threads"]

@final
class MirrorDisk(
    structseq[Any],
    tuple[str, _DiskState, str | None, str | None, str | None],
):
    __match_args__: Final = ("target", "state", "source", "overlay", "mirror")
    @property
    def target(self) -> str: ...
    @property
    def state(self) -> _DiskState: ...
    @property
    def source(self) -> str | None: ...
    @property
    def overlay(self) -> str | None: ...
    @property
    def mirror(self) -> str | None: ...

@final
class DiskProgress(structseq[Any], tuple[str, bool, bool, int, int]):
    __match_args__: Final = ("target", "active", "ready", "current", "end")
    @property
    def target(self) -> str: ...
    @property
    def active(self) -> bool: ...
    @property
    def ready(self) -> bool: ...
    @property
    def current(self) -> int: ...
    @property
    def end(self) -> int: ...

@final
class MirrorFigures(structseq[Any], tuple[int, float, float, int | None]):
    __match_args__: Final = ("left", "written", "mirrored", "limit")
    @property
    def left(self) -> int: ...
    @property
    def written(self) -> float: ...
    @property
    def mirrored(self) -> float: ...
    @property
    def limit(self) -> int | None: ...

@final
class MirrorSnapshot:
    @classmethod
    def create(
        cls,
        dom: _Domain,
        name: str,
        disks: str | Iterable[str],
        *,
        description: str | None = None,
        reuse_external: bool = False,
        quiesce: bool = False,
        timeout: float | None = 60.0,
    ) -> Self: ...
    def wait_ready(
        self,
        timeout: float | None = None,
        *,
        on_progress: Callable[[MirrorFigures], object] | None = None,
    ) -> None: ...
    def progress(self) -> tuple[DiskProgress, ...]: ...
    def pivot(
        self,
        *,
        atomic: bool = True,
        pause_budget: float | None = 2.0,
        converge: Literal["wait", "throttle"] | None = None,
        timeout: float | None = None,
        on_progress: Callable[[MirrorFigures], object] | None = None,
    ) -> float: ...
    def abort(
        self,
        timeout: float | None = 30.0,
        *,
        pause_budget: float | None = 2.0,
        converge: Literal["wait", "throttle"] | None = None,
    ) -> None: ...
    def detach(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Literal[False]: ...
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> _State: ...
    @property
    def disks(self) -> tuple[MirrorDisk, ...]: ...
    @property
    def domain(self) -> Any: ...
    @property
    def leftovers(self) -> tuple[str, ...]: ...
    @property
    def snapshot(self) -> libvirt.virDomainSnapshot: ...

@final
class CopyProgress(structseq[Any], tuple[int, int]):
    __match_args__: Final = ("current", "end")
    @property
    def current(self) -> int: ...
    @property
    def end(self) -> int: ...

@final
class CopyReport(structseq[Any], tuple[str, str, int, int, float, str | None, _Method, bool]):
    __match_args__: Final = (
        "source",
        "destination",
        "size",
        "copied",
        "seconds",
        "checksum",
        "method",
        "verified",
    )
    @property
    def source(self) -> str: ...
    @property
    def destination(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def copied(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def checksum(self) -> str | None: ...
    @property
    def method(self) -> _Method: ...
    @property
    def verified(self) -> bool: ...

@final
class Copy:
    @classmethod
    def start(
        cls,
        source: _Path,
        destination: _Path,
        *,
        pace: _Pace = "auto",
        bandwidth: int = 0,
        reflink: bool = True,
        verify: bool = False,
        overwrite: bool = False,
    ) -> Self: ...
    def progress(self) -> CopyProgress: ...
    def cancel(self) -> None: ...
    def wait(self, timeout: float | None = None) -> CopyReport: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Literal[False]: ...
    @property
    def source(self) -> str: ...
    @property
    def destination(self) -> str: ...
    @property
    def done(self) -> bool: ...
    @property
    def bandwidth(self) -> int: ...
    @bandwidth.setter
    def bandwidth(self, value: int) -> None: ...

def copy(
    source: _Path,
    destination: _Path,
    *,
    pace: _Pace = "auto",
    bandwidth: int = 0,
    reflink: bool = True,
    verify: bool = False,
    overwrite: bool = False,
    timeout: float | None = None,
    on_progress: Callable[[CopyProgress], object] | None = None,
) -> CopyReport: ...
def checksum(path: _Path) -> str: ...
def _copy_by(source: _Path, destination: _Path, method: str) -> CopyReport: ...
def snapshotCreateXML(dom: _Domain, xml: str, flags: int = 0) -> libvirt.virDomainSnapshot: ...
def snapshotDelete(snap: libvirt.virDomainSnapshot, flags: int = 0) -> int: ...
def snapshotGetXMLDesc(snap: libvirt.virDomainSnapshot, flags: int = 0) -> str: ...
def adopt(dom: _Domain, name: str | None = None) -> MirrorSnapshot: ...
def prepare_chain(
    dom: _Domain, disk: str, folder: _Path, *, timeout: float | None = 60.0
) -> list[str]: ...
def block_pull(
    dom: _Domain,
    disk: str,
    base: _Path | None = None,
    *,
    bandwidth: int = 0,
    wait: bool = True,
    timeout: float | None = None,
) -> None: ...
def block_commit(
    dom: _Domain,
    disk: str,
    top: _Path | None = None,
    *,
    timeout: float | None = None,
) -> None: ...
def snapshot_xml(
    name: str | None = None,
    description: str | None = None,
    disks: str | Iterable[str] = (),
) -> str: ...
def start_event_loop() -> None: ...
def _plan_move(
    dom: _Domain,
    disks: list[tuple[str, str]],
    snapshot: str,
    overlay_folder: _Path | None = None,
    keep_snapshots: bool = False,
    remove_source: bool = False,
    timeout: float | None = None,
) -> dict[str, Any]: ...
def _create_image(
    path: _Path,
    format: str,
    size: int,
    backing_name: _Path | None = None,
    backing_format: str | None = None,
    like: _Path | None = None,
) -> None: ...
def _rebase_image(path: _Path, backing_name: _Path, backing_format: str) -> None: ...
def _file_identity(path: _Path) -> tuple[int, int, int]: ...
def _remove_file(path: _Path, dev: int, ino: int, born: int) -> None: ...
def _file_stamp(path: _Path) -> tuple[int, int, int, int, int]: ...
def _copy_state(
    source: _Path, destination: _Path
) -> Literal["fits", "incomplete", "other", "none"]: ...
def _is_rebased_copy(source: _Path, destination: _Path) -> bool: ...
def _note_user(fd: int, path: _Path, domain: str, snapshot: str) -> None: ...
def _has_other_users(fd: int, path: _Path, domain: str, snapshot: str | None = None) -> bool: ...
def _mark_copy(
    destination: _Path,
    source: _Path | None = None,
    checksum: str | None = None,
    unmark: bool = False,
) -> None: ...
def _leave_file(dom: _Domain, path: _Path) -> None: ...
def _disk_chains(dom: _Domain) -> dict[str, list[str]]: ...
def _hold(uuid: str) -> Any: ...
def _release(hold: Any) -> None: ...
def _is_held(hold: Any) -> bool: ...
def _find_holder(uuid: str) -> int | None: ...
def _persistent_sources(dom: _Domain) -> dict[str, tuple[str, str | None]]: ...
def _set_source(dom: _Domain, target: str, path: _Path, format: str) -> None: ...
def _is_written(path: _Path) -> bool: ...
def _disown(dom: _Domain, name: str) -> None: ...
def _image_backing(path: _Path, format: str) -> tuple[str | None, str | None]: ...
def _make_error(reason: str, text: str) -> MirrorError: ...
def _inspect(dom: _Domain, timeout: float | None = None) -> dict[str, Any]: ...
def _recover(dom: _Domain, policy: str, timeout: float | None = None) -> dict[str, Any]: ...
