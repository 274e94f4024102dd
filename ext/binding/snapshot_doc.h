/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * snapshot_doc: the docstrings of MirrorSnapshot; for snapshot_type.c only.
 */

#include "module.h"

PyDoc_STRVAR(
    snapshot_create_doc,
    "create($type, /, dom, name, disks, *, description=None,\n"
    "       reuse_external=False, quiesce=False, timeout=60.0)\n"
    "--\n\n"
    "Take a mirrored snapshot of a running domain: all of the disks or none.\n"
    "\n"
    "*dom* is a libvirt.virDomain; *name* the snapshot's; *disks* a diskspec\n"
    "(``vda,file=/path1/old.migrate,mirror=/path2/new.qcow2``) or an iterable of\n"
    "them. With *reuse_external* both files exist and are checked; without it\n"
    "they are created. *quiesce* freezes the guest's file systems, which takes\n"
    "its agent. *timeout*: seconds for all of it, or None.\n"
    "\n"
    "When a later step fails, or Ctrl-C is pressed, everything is as it was\n"
    "before; if not, the error's *partial* is true and its text says what is\n"
    "left.\n"
    "\n"
    "Raises SpecError, StateError, NotFoundError, ExistsError, BusyError,\n"
    "NotSupportedError, ImageError, StorageError, MirrorTimeoutError, and\n"
    "MirrorError with libvirt's own code. Calls virDomainSnapshotCreateXML and\n"
    "virDomainBlockCopy.");

PyDoc_STRVAR(
    snapshot_wait_ready_doc,
    "wait_ready($self, /, timeout=None, *, on_progress=None)\n"
    "--\n\n"
    "Wait until all disks are ready to be pivoted.\n"
    "\n"
    "QEMU calls a mirror ready when it has found nothing left to be mirrored,\n"
    "which it may never do of a guest that writes without a break, or faster\n"
    "than is mirrored: `pivot` with a pause budget need not wait for it.\n"
    "\n"
    "*timeout*: seconds, or None. *on_progress* is called with a `MirrorFigures`\n"
    "about once a second, in this thread; what it raises ends the wait. Raises\n"
    "JobFailedError, which names the disk, MirrorTimeoutError (with the figures),\n"
    "DivergedError, StateError, BusyError.");

PyDoc_STRVAR(
    snapshot_pivot_doc,
    "pivot($self, /, *, atomic=True, pause_budget=2.0, converge=None,\n"
    "      timeout=None, on_progress=None)\n"
    "--\n\n"
    "Let the guest go on with the mirrors, and prove that it does.\n"
    "\n"
    "The guest is suspended meanwhile, for *pause_budget* seconds at most before\n"
    "the disks are pivoted, so that a crash at any moment leaves both sides with\n"
    "the same content. That is done when what is left to be mirrored fits into\n"
    "the budget; the mirrors need not be ready before. None: it is not suspended,\n"
    "and the mirrors must be ready. With *atomic* all disks are pivoted or none:\n"
    "after a failure those that had been are brought back, and `abort` ends the\n"
    "rest. Without, `disks` tells which ones are on the mirror, and another\n"
    "`pivot` or an `abort` goes on with the rest. libvirt's record of the\n"
    "snapshot is removed in the end.\n"
    "\n"
    "*converge* says what is done about a guest that writes faster than is\n"
    "mirrored: 'wait' (or None) for better times, or 'throttle' its disks: what\n"
    "may be written to them is lowered step by step, and put back in the end as\n"
    "it was. *timeout*: seconds to wait for that, or None, which gives up when\n"
    "nothing has got better for 120 seconds. *on_progress* is called with a\n"
    "`MirrorFigures` about once a second, in this thread; what it raises ends the\n"
    "wait.\n"
    "\n"
    "Returns for how long, in seconds, the guest was suspended. Raises\n"
    "NotReadyError, which names the disk, ImageError, DivergedError,\n"
    "JobFailedError, StateError, BusyError, MirrorTimeoutError (also, with the\n"
    "figures, for mirrors that the guest outruns). Calls virDomainSuspend,\n"
    "virDomainBlockJobAbort with its PIVOT flag, virDomainResume and\n"
    "virDomainSetBlockIoTune.");

PyDoc_STRVAR(
    snapshot_abort_doc,
    "abort($self, /, timeout=30.0, *, pause_budget=2.0, converge=None)\n"
    "--\n\n"
    "Drop the mirrors, and prove that the guest goes on with the overlays.\n"
    "\n"
    "Mirror files that were created by `create` are removed; the overlays stay\n"
    "in use. Disks that were pivoted before stay so. Nothing happens if the\n"
    "snapshot was pivoted or aborted already.\n"
    "\n"
    "QEMU ends a mirror that was ready once only when both sides are the same.\n"
    "Where the guest writes faster than is mirrored it is suspended for that, or\n"
    "throttled, as for `pivot`; with a *pause_budget* of None it is neither.\n"
    "\n"
    "*timeout*: seconds, or None. Raises DivergedError, StateError, BusyError,\n"
    "MirrorTimeoutError (with the figures, and the mirror goes on). Calls\n"
    "virDomainBlockJobAbort, virDomainSuspend, virDomainResume and\n"
    "virDomainSetBlockIoTune.");

PyDoc_STRVAR(
    snapshot_progress_doc,
    "progress($self, /)\n"
    "--\n\n"
    "How far the copy of each disk is: a tuple of `DiskProgress`.\n"
    "\n"
    "Raises StateError, BusyError, MirrorError. Calls virDomainGetBlockJobInfo.");

PyDoc_STRVAR(
    snapshot_detach_doc,
    "detach($self, /)\n"
    "--\n\n"
    "Give the object up without ending the mirrored snapshot, which goes on.\n"
    "\n"
    "`adopt` makes another object of it, in this process or another one.\n"
    "Raises BusyError.");

PyDoc_STRVAR(snapshot_enter_doc, "__enter__($self, /)\n"
                                 "--\n\n"
                                 "The object itself.");

PyDoc_STRVAR(
    snapshot_exit_doc,
    "__exit__($self, exc_type, exc_value, traceback, /)\n"
    "--\n\n"
    "Abort, unless the snapshot was pivoted, aborted or detached.\n"
    "\n"
    "An exception goes on in any case. An abort that fails within 30 seconds is\n"
    "its context then and is told in a note; without an exception it is raised.");

PyDoc_STRVAR(
    snapshot_doc,
    "A mirrored snapshot of a running domain.\n"
    "\n"
    "Made by `MirrorSnapshot.create` or `adopt`. Used in a ``with`` statement it\n"
    "is aborted at the end, by an exception or not, unless it was pivoted,\n"
    "aborted or detached before. One thread at a time may call its methods, the\n"
    "others get BusyError; the attributes can be read at any time.");
