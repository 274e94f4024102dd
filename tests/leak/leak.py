#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Do everything that allocates very often; see that memory and references stay.

    leak.py [--cycles N]

First the engine, in a C program (cycles.c), then the extension on libvirt's
test driver. Each kind of cycle is warmed up before it is measured. The process
is one of its own, so that nobody else's memory is in the figures.
"""

import argparse
import contextlib
import gc
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import libvirt

import virmirror

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
JOURNAL_URI = "urn:virmirror:journal"
EVERYWHERE = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG

# What may remain, whatever the number of cycles: caches, what threads that are just
# about to end have. The least that can leak in a cycle is malloc's least, 24 bytes.
ALLOWED_BYTES = 16 * 1024
ALLOWED_PER_CYCLE = 8
CANARY_CYCLES = 300  # that leak 64 bytes each
ALLOWED_RESIDENT = 2 * 1024 * 1024

NODE = """<node><domain type='test'><name>guest</name><uuid>{uuid}</uuid><memory>1024</memory>
<os><type>hvm</type></os><devices><disk type='file' device='disk'>
<driver name='qemu' type='qcow2'/><source file='{path}'/><target dev='vda' bus='virtio'/>
</disk></devices></domain></node>"""

RECORD = """<mirror version='1' sequence='1' snapshot='migrate' domain='{uuid}' state='mirroring'>
<disk target='vda' state='mirroring'><source path='/old/base' format='qcow2'/>
<overlay path='{path}' format='qcow2'/><mirror path='/new/disk' format='qcow2'/></disk></mirror>"""


def empty_image():
    """Return an empty qcow2 image of 1 MiB."""
    cluster = 1 << 16
    fields = (b"QFI\xfb", 3, 0, 0, 16, 1 << 20, 0, 1, 3 * cluster, cluster, 1)
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", *fields, 0, 0, 0, 0, 0, 4, 104)
    return header.ljust(4 * cluster, b"\0")


def resident():
    """Return the resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def set_journal(dom, path, text=RECORD):
    """Store a record of a mirrored snapshot, as another process might have left it."""
    xml = text.format(uuid=UUID, path=path)
    element = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    dom.setMetadata(element, xml, "virmirror", JOURNAL_URI, EVERYWHERE)


def cycle_calls(dom, snap):
    """Make calls that work, and calls that fail at different depths."""
    create = virmirror.MirrorSnapshot.create
    calls = [
        lambda: virmirror.snapshot_xml("a", "b", "vda,file=/o,mirror=/m"),
        lambda: virmirror.snapshotGetXMLDesc(snap),
        lambda: virmirror.inspect(dom),
        lambda: virmirror.adopt(dom),
        lambda: create(dom, "name", 3),
        lambda: create(dom, "name", ["vda,mirror=/a", 3]),
        lambda: create(dom, "name", "vda,,"),
        lambda: create(dom, "name", "vda,mirror=/a", timeout=-1),
        lambda: create(dom, "name", "vda,mirror=/a"),
        lambda: virmirror.prepare_chain(dom, "vdz", "/new"),
        lambda: virmirror.block_pull(dom, "vdz", "/base"),
        lambda: virmirror.snapshotCreateXML(dom, "<"),
        lambda: virmirror.snapshotDelete(snap, 8 | 16),
        lambda: virmirror.snapshotGetXMLDesc(snap, 1),
    ]
    for call in calls:
        with contextlib.suppress(TypeError, ValueError, libvirt.libvirtError):
            call()


def cycle_mirror(dom, snap):
    """Use the mirrored snapshot that the journal tells of."""
    with virmirror.adopt(dom) as mirror:
        repr(mirror)
        mirror.disks  # noqa: B018
        with contextlib.suppress(virmirror.MirrorError):
            mirror.progress()
        with contextlib.suppress(virmirror.MirrorError):
            virmirror.inspect(dom)
        mirror.detach()


def cycle_bad_journal(dom, snap):
    """Be refused by a journal that cannot be understood."""
    for call in (virmirror.adopt, virmirror.inspect):
        with contextlib.suppress(virmirror.MirrorError):
            call(dom)


def measure(name, cycle, cycles, dom, snap):
    """Return whether `cycles` cycles leave nothing behind; print the figures."""
    for _ in range(cycles // 10 + 20):
        cycle(dom, snap)
    gc.collect()
    things = (dom, snap, virmirror.MirrorSnapshot, virmirror.MirrorDisk, virmirror.SpecError)
    references = [sys.getrefcount(thing) for thing in things]
    objects = len(gc.get_objects())
    memory = resident()
    for _ in range(cycles):
        cycle(dom, snap)
    gc.collect()
    memory = resident() - memory
    objects = len(gc.get_objects()) - objects
    changed = [sys.getrefcount(thing) for thing in things] != references
    good = not changed and objects < 50 and memory < ALLOWED_RESIDENT
    print(
        f"{name:14} {cycles} cycles: {objects:+} objects, {memory / 1024:+.0f} KiB resident, "
        f"references {'CHANGED' if changed else 'as before'}{'' if good else '  <-- LEAK'}",
        flush=True,
    )
    return good


def check_extension(cycles):
    """Measure the extension; libvirt tells at the end whether anybody holds its objects."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    with tempfile.TemporaryDirectory(prefix="virmirror-leak-") as folder:
        path = Path(folder, "disk.qcow2")
        path.write_bytes(empty_image())
        node = Path(folder, "node.xml")
        node.write_text(NODE.format(uuid=UUID, path=path))
        conn = libvirt.open(f"test://{node}")
        dom = conn.lookupByName("guest")
        snap = dom.snapshotCreateXML("<domainsnapshot><name>plain</name></domainsnapshot>")
        good = measure("calls", cycle_calls, cycles, dom, snap)
        set_journal(dom, path)
        good &= measure("mirror", cycle_mirror, cycles, dom, snap)
        set_journal(dom, path, RECORD.replace("version='1'", "version='2'"))
        good &= measure("bad journal", cycle_bad_journal, cycles, dom, snap)
        del dom, snap
        gc.collect()
        holders = conn.close()
    print(f"libvirt: {holders} references to the connection are left")
    return good and holders == 0


def build_engine():
    """Build the C program, free of what an outer make left in the environment."""
    inherited = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
    environment = {key: value for key, value in os.environ.items() if key not in inherited}
    subprocess.run(["make", "-s", "-j2", "-C", HERE], check=True, env=environment)


def run_engine(cycles, *arguments):
    """Run the C program; return whether it succeeds and nothing grew."""
    # GLib's slices would hide what is in use
    environment = os.environ | {
        "G_SLICE": "always-malloc",
        "G_DEBUG": "fatal-warnings",
        # what a thread keeps of what it freed would count as allocated
        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1",
    }
    command = [ROOT / "build" / "leak" / "cycles", str(cycles), *arguments]
    good = True
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            name, grown, memory = line.split()
            allowed = ALLOWED_BYTES + ALLOWED_PER_CYCLE * cycles
            fine = int(grown) < allowed and int(memory) < ALLOWED_RESIDENT
            good &= fine
            print(
                f"{name:14} {cycles} cycles: {int(grown):+} bytes allocated, "
                f"{int(memory) / 1024:+.0f} KiB resident{'' if fine else '  <-- LEAK'}",
                flush=True,
            )
    return good and process.returncode == 0


def main():
    """Measure both; the exit status tells whether something leaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=10000)
    options = parser.parse_args()
    build_engine()
    # who is at work on a domain is noted there
    os.environ["VIRMIRROR_LOCK_PREFIX"] = str(os.getpid())
    if run_engine(CANARY_CYCLES, "leak"):
        print("the canary's leak was not found")
        return 1
    print("canary: its leak was found, as it must be", flush=True)
    good = run_engine(options.cycles)
    good &= check_extension(options.cycles)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
