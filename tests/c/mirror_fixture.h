/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * mirror_fixture: mirrored snapshots on the fake hypervisor, and what has to
 * hold of both whatever happened.
 */

#include "error.h"
#include "fake_hv.h"
#include "mirror.h"

/* A mirrored snapshot of the first @n_disks disks; a failure ends the test. */
VmrMirror *fixture_create(FakeHv *fake, guint n_disks, gboolean reuse);

/* A deadline that no test should reach. */
VmrWait fixture_patience(void);

/* Wait until it is ready; pivot it. A failure ends the test. */
void fixture_wait_ready(VmrMirror *mirror);
void fixture_pivot(VmrMirror *mirror);

/* Open the mirrored snapshot in the journal and abort it, in good time; where
 * there is no journal nothing is done. A failure ends the test. */
void fixture_clean_up(FakeHv *fake);

/* Check that no journal, job, snapshot or listener is left, that live and
 * persistent source are the same, and that of the files made for the mirrored
 * snapshot only those are left that the guest runs on. */
void fixture_check_ended(FakeHv *fake, const FakeFiles *files);

/* Whether disk number @index runs on the mirror that fake_hv_spec() names. */
gboolean fixture_is_pivoted(FakeHv *fake, guint index);

/* The record in the live metadata; NULL: there is none. */
VmrRecord *fixture_load(FakeHv *fake);
