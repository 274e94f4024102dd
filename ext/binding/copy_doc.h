/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * copy_doc: the docstrings of Copy; for copy_type.c only.
 */

#include "module.h"

PyDoc_STRVAR(
    copy_start_doc,
    "start($type, /, source, destination, *, pace='auto', bandwidth=0,\n"
    "      reflink=True, verify=False, overwrite=False)\n"
    "--\n\n"
    "Open and check both files, and start to copy; `copy` explains the rest.\n"
    "\n"
    "Returns the Copy, which goes on by itself. Raises SpecError, NotFoundError,\n"
    "ExistsError, ImageError, BusyError, StorageError.");

PyDoc_STRVAR(
    copy_progress_doc,
    "progress($self, /)\n"
    "--\n\n"
    "How far the copy is: a `CopyProgress`. From any thread, at any time.");

PyDoc_STRVAR(
    copy_cancel_doc,
    "cancel($self, /)\n"
    "--\n\n"
    "Tell the copy to end, within about 0.1 s; does not wait for that.\n"
    "\n"
    "From any thread. `wait` raises CancelledError then, unless the copy had\n"
    "come to its end.");

PyDoc_STRVAR(
    copy_wait_doc,
    "wait($self, /, timeout=None)\n"
    "--\n\n"
    "Wait for the end, and return the `CopyReport`.\n"
    "\n"
    "*timeout*: seconds, or None; the copy goes on after it. Ctrl-C ends the\n"
    "copy, too. Raises MirrorTimeoutError, CancelledError, and what went wrong:\n"
    "StorageError, DivergedError (the source has changed meanwhile),\n"
    "NotSupportedError; `copy` tells what is left then. BusyError: another\n"
    "thread waits.");

PyDoc_STRVAR(copy_enter_doc, "__enter__($self, /)\n"
                             "--\n\n"
                             "The object itself.");

PyDoc_STRVAR(
    copy_exit_doc,
    "__exit__($self, exc_type, exc_value, traceback, /)\n"
    "--\n\n"
    "Cancel the copy if it still runs, and wait for its end.\n"
    "\n"
    "An exception goes on in any case. One that nobody was told of by `wait`,\n"
    "but for the CancelledError, is its context then, or is raised.");

PyDoc_STRVAR(
    copy_doc,
    "A copy that goes on in threads of its own, which Python does not stop.\n"
    "\n"
    "Made by `Copy.start`. Used in a ``with`` statement it is cancelled at the\n"
    "end if it still runs. One thread at a time may `wait`.");
