# SPDX-License-Identifier: LGPL-2.1-or-later
"""Move the disks of a running libvirt guest by mirrored snapshots.

Two levels on one engine. libvirt's shape, for programs that speak libvirt:

>>> snap = virmirror.snapshotCreateXML(dom, xml)  # doctest: +SKIP
>>> virmirror.snapshotDelete(
...     snap, virmirror.VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_PIVOT
... )  # doctest: +SKIP

and Python's:

>>> with virmirror.MirrorSnapshot.create(
...     dom,
...     "migrate",
...     "vda,file=/path1/old.migrate,mirror=/path2/new.qcow2",
... ) as mirror:  # doctest: +SKIP
...     mirror.wait_ready(timeout=60)
...     mirror.pivot()

*dom* is a ``libvirt.virDomain`` of the caller's, or what stands in for one: an
object that has libvirt-python's capsule ``_o``, or whose attribute ``dom``
has. Errors are `MirrorError` and its subclasses, each a
``libvirt.libvirtError``. Sizes are in bytes, times in seconds. Every wait can be
ended by Ctrl-C.
"""

from ._core import (
    VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN,
    VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY,
    VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY,
    VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_ABORT,
    VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_PIVOT,
    Copy,
    CopyProgress,
    CopyReport,
    DiskProgress,
    MirrorDisk,
    MirrorFigures,
    MirrorSnapshot,
    adopt,
    block_commit,
    block_pull,
    checksum,
    copy,
    prepare_chain,
    snapshot_xml,
    snapshotCreateXML,
    snapshotDelete,
    snapshotGetXMLDesc,
    start_event_loop,
)
from .errors import (
    BusyError,
    CancelledError,
    DivergedError,
    ExistsError,
    ImageError,
    JobFailedError,
    JournalError,
    MirrorError,
    MirrorTimeoutError,
    NotFoundError,
    NotReadyError,
    NotSupportedError,
    SpecError,
    StateError,
    StorageError,
)
from .jobs import LayerReport, PhaseReport, unfinished
from .migration import forget, migrate, run, undo
from .planning import DiskPlan, LayerPlan, Plan, plan
from .recovery import DiskInspection, Inspection, Recovery, inspect, recover
from .reports import DiskReport, DiskSide, Forgotten, Progress, Report

__version__ = "0.1.0"

__all__ = [
    "VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN",
    "VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY",
    "VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY",
    "VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_ABORT",
    "VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_PIVOT",
    "BusyError",
    "CancelledError",
    "Copy",
    "CopyProgress",
    "CopyReport",
    "DiskInspection",
    "DiskPlan",
    "DiskProgress",
    "DiskReport",
    "DiskSide",
    "DivergedError",
    "ExistsError",
    "Forgotten",
    "ImageError",
    "Inspection",
    "JobFailedError",
    "JournalError",
    "LayerReport",
    "LayerPlan",
    "MirrorDisk",
    "MirrorFigures",
    "MirrorError",
    "MirrorSnapshot",
    "MirrorTimeoutError",
    "NotFoundError",
    "NotReadyError",
    "NotSupportedError",
    "Plan",
    "Progress",
    "Recovery",
    "Report",
    "SpecError",
    "PhaseReport",
    "StateError",
    "StorageError",
    "__version__",
    "adopt",
    "block_commit",
    "block_pull",
    "checksum",
    "copy",
    "forget",
    "inspect",
    "migrate",
    "plan",
    "prepare_chain",
    "recover",
    "run",
    "snapshotCreateXML",
    "snapshotDelete",
    "snapshotGetXMLDesc",
    "snapshot_xml",
    "start_event_loop",
    "undo",
    "unfinished",
]
