# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real libvirt objects without QEMU: a test driver of its own for each test.

libvirt's test driver keeps domains, snapshots and metadata like any other, and
has no block jobs: good for what happens before and after them.
"""

import os
import struct

import libvirt
import pytest

import virmirror

UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"

DOMAIN = f"""
<domain type='test'>
  <name>guest</name>
  <uuid>{UUID}</uuid>
  <memory>1024</memory>
  <os><type>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='%s'/>
      <target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""

JOURNAL_URI = "urn:virmirror:journal"
EVERYWHERE = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG


def qcow2_image(virtual_size):
    """Return an empty qcow2 image, version 3, as its bytes."""
    cluster = 1 << 16
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 0, 0),  # magic, version, no backing file
        *(16, virtual_size, 0),  # bits of a cluster, not encrypted
        *(1, 3 * cluster, cluster, 1),  # L1 table, refcount table
        *(0, 0, 0, 0, 0),  # no snapshots, no features
        *(4, 104),  # refcounts of 16 bits, length of this header
    )
    return header.ljust(4 * cluster, b"\0")


@pytest.fixture
def disk_path(tmp_path):
    """Return the path of the guest's disk."""
    path = tmp_path / "disk.qcow2"
    path.write_bytes(qcow2_image(1 << 20))
    return path


@pytest.fixture
def uri(tmp_path, disk_path):
    """Return the URI of a test driver that has one running guest, 'guest'."""
    node = tmp_path / "node.xml"
    node.write_text(f"<node>{DOMAIN % disk_path}</node>")
    return f"test://{node}"


@pytest.fixture
def conn(uri):
    return libvirt.open(uri)


@pytest.fixture
def dom(conn):
    return conn.lookupByName("guest")


@pytest.fixture
def snap(dom):
    """Return a snapshot that is not mirrored."""
    return dom.snapshotCreateXML("<domainsnapshot><name>plain</name></domainsnapshot>")


@pytest.fixture
def journalled(dom, disk_path):
    """Return the guest with the record of a mirrored snapshot whose copy has ended."""
    record = f"""
    <mirror version='1' sequence='1' snapshot='migrate' domain='{UUID}' state='mirroring'>
      <disk target='vda' state='mirroring'>
        <source path='/old/base.qcow2' format='qcow2'/>
        <overlay path='{disk_path}' format='qcow2'/>
        <mirror path='/new/disk.qcow2' format='qcow2'/>
      </disk>
    </mirror>"""
    element = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    dom.setMetadata(element, record, "virmirror", JOURNAL_URI, EVERYWHERE)
    return dom


@pytest.fixture
def mirror(journalled):
    """Return the MirrorSnapshot of `journalled`; detached at the end of the test."""
    mirror = virmirror.adopt(journalled)
    yield mirror
    mirror.detach()


@pytest.fixture
def slow_qemu_img(tmp_path, monkeypatch):
    """Put a qemu-img that takes very long in front of the real one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "qemu-img"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
