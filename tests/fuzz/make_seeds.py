#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write the seeds of the fuzz targets, tests/data/fuzz, anew.

They are the golden files, what qemu-img writes, and the forms of the two texts
that have no golden files. Needed only when one of those changes.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "data"
SEEDS = DATA / "fuzz"

DISKSPECS = [
    "vda",
    "vda,mirror=/new/a",
    "vda,snapshot=external,driver=qcow2,file=/old/a,mirror=/new/a",
    "vda,snapshot=no",
    "/disks/a,,b,file=/a,,b,mirror=/c,,",
    "vda,file=/sch\u00f6n \u2713 'x' \"y\"",
    "vda,,",
    "vda,file=",
    "vda,unknown=x",
]

FILES = """<source path='/old/s' format='qcow2' dev='64769' ino='17'/>\
<overlay path='/old/o' format='qcow2' created='yes'/>\
<mirror path='/new/m' format='qcow2' dev='64770' ino='18446744073709551615'/>"""
COPIES = "<copy path='/new/1' format='qcow2'/><copy path='/new/2' format='raw' dev='1' ino='2'/>"


def record(version="1", state="mirroring", more="", disks=None):
    """Return a record; `disks` are (target, state, what is in it)."""
    disks = [("vda", "mirroring", FILES)] if disks is None else disks
    inner = "".join(f"<disk target='{t}' state='{s}'>{x}</disk>" for t, s, x in disks)
    head = f"version='{version}' sequence='3' snapshot='s' domain='u' state='{state}'"
    return f"<mirror {head}{more}>{inner}</mirror>"


RECORDS = {
    "one": record(),
    "copies": record(disks=[("vda", "planned", FILES + COPIES)]),
    "two": record(state="pivoting", disks=[("vda", "pivoted", FILES), ("vdb", "pivoting", FILES)]),
    "paused": record(state="pivoting", more=" paused='yes'"),
    "aborting": record(state="aborting", disks=[("vda", "aborted", FILES)]),
    "newer": record(version="2"),
    "no-disks": record(disks=[]),
    "twice": record(disks=[("vda", "failed", FILES)] * 2),
    "foreign": "<other/>",
    "escaped": record(more=" paused='&#10;'"),
}

DOMAIN = """<domain type='kvm' id='1'><name>a</name><uuid>u</uuid><metadata>{}</metadata>\
<devices><disk type='file'><driver type='qcow2'/><source file='/a'/>{}<target dev='vda'/></disk>\
</devices></domain>"""
JOURNAL = RECORDS["one"].replace("mirror ", "v:mirror xmlns:v='urn:virmirror:journal' ", 1)
JOURNAL = JOURNAL.removesuffix("</mirror>") + "</v:mirror>"
STORE = "<backingStore type='file'><format type='raw'/><source file='/b'/></backingStore>"

DOMAINS = {
    "journal": DOMAIN.format(JOURNAL, ""),
    # both were findings once
    "journal-namespaces": DOMAIN.format(JOURNAL.replace(" domain=", " v:domain="), ""),
    "two-chains": DOMAIN.format("", STORE * 2),
}

CHECKSUM = "0123456789abcdef" * 2
MARKS = [
    "1 incomplete",
    f"2 complete 64769 17 1690000000000000000 4711 1700000000123456789 "
    f"1700000000123456790 4711 1700000001000000000 {CHECKSUM}",
    "2 complete 64769 17 0 0 -1 -1 0 0 -",
    "3 complete 64769 17 0 0 -1 -1 0 0 - more",
]

# name -> options of qemu-img create; small clusters make small seeds
HEADERS = {
    "v2": "compat=0.10",
    "v3": "compat=1.1",
    "v2-backing": "compat=0.10,backing_file=base.raw,backing_fmt=raw",
    "v3-backing": "compat=1.1,backing_file=../dir/base.qcow2,backing_fmt=qcow2",
    "v3-protocol": "compat=1.1,backing_file=json:{},backing_fmt=raw",
    "v3-data-file": "compat=1.1,data_file=data.raw",
    "v3-lazy": "compat=1.1,lazy_refcounts=on",
    "v3-refcount": "compat=1.1,refcount_bits=64",
}


def fresh(target):
    """Return the empty folder of a target's seeds."""
    folder = SEEDS / target
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_headers(folder):
    """Let qemu-img write images; keep their first cluster."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, options in HEADERS.items():
            command = ["qemu-img", "create", "-q", "-u", "-f", "qcow2"]
            image = f"{name}.qcow2"
            subprocess.run(
                [*command, "-o", f"cluster_size=512,{options}", image, "1M"],
                cwd=scratch,
                check=True,
            )
            (folder / name).write_bytes((Path(scratch) / image).read_bytes()[:512])


def main():
    """Write all of them."""
    folder = fresh("diskspec")
    for number, text in enumerate(DISKSPECS):
        (folder / f"{number:02}").write_text(text)
    folder = fresh("copymark")
    for number, text in enumerate(MARKS):
        (folder / f"{number:02}").write_text(text)
    folder = fresh("record")
    for name, text in RECORDS.items():
        (folder / name).write_text(text)
    for target in ("snapxml", "domxml"):
        folder = fresh(target)
        for source in sorted((DATA / target).glob("*.xml")):
            (folder / source.stem).write_bytes(source.read_bytes())
    for name, text in DOMAINS.items():
        (folder / name).write_text(text)
    write_headers(fresh("qcow2"))


if __name__ == "__main__":
    main()
