# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plan for tests that look at it as a value."""

import virmirror

LAYER = virmirror.LayerPlan(
    source="/path1/old.qcow2",
    format="qcow2",
    virtual_size=1 << 30,
    size=1 << 20,
    allocated=1 << 19,
    dev=2049,
    ino=17,
    born=1,
    mtime_ns=1,
    destination="/path2/old.qcow2",
    backing_name=None,
    backing_format=None,
    rebase=False,
    there=False,
)
PLAN = virmirror.Plan(
    id="0" * 32,
    uri="qemu:///system",
    domain="web1",
    uuid="6695eb01-f6a4-8304-79aa-97f2502e193f",
    name="migrate",
    disks=(virmirror.DiskPlan("vda", "/path2", "/path1/o", "/path2/o", (LAYER,)),),
    notes=("note",),
    collapse="auto",
    remove_source=False,
    pace="full",
    bandwidth=0,
    reflink=True,
    verify=False,
    pause_budget=None,
    snapshots="refuse",
    converge="wait",
)
