# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that does nothing but write, and the proof that no write was lost.

For trying out what moves the disks of running guests: a boot sector writes
numbered blocks to a ring on each disk, as fast as it can, and reports each round
on its serial port. Once the guest is stopped, :func:`check` finds on the disk
whether a round that was reported is missing, and whether each layer of the
backing chain is still there.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import pathlib
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO
from xml.sax.saxutils import escape, quoteattr

__all__ = ["MIB", "Writes", "WritesLost", "check", "domain_xml", "make_chain", "wait_for_writes"]

MIB = 1024 * 1024

# The code of tests/data/writer.S, in a sector that ends with the boot signature.
_CODE = base64.b64decode(
    "+jHAjtiO0LwAfLgAEI7A+/yKPnUEoPx9hMB0BjjHdgKIx2Yx7WZFswAx/2aJ6GarZrhWTVIAZqsm"
    "iF3/Mfa5/gcmZvOlZonoZkhmJf8AAABmweAEZgUACAAAZqOofMcGonwQALgAQ4jagMqAvqB8U2ZV"
    "Bs0TB2ZdW7FFcg3+wzj7cqaxLugHAOub6AIA65i6/QPsqCB0+7r4A4jI7sMAABAAEAAAAAAQ"
)
BOOT_SECTOR = _CODE.ljust(510, b"\0") + b"\x55\xaa"

_RING = 1 * MIB  # offset
_SLOTS = 256
_BLOCK = 8192  # bytes a slot
_BLANK = 4 * MIB  # of which the guest uses up to 3 MiB
_STAMP = 64 * 1024  # bytes a layer leaves its mark on

# What the base says of its random data: a magic, offset, length and SHA-256.
_LABEL_OFFSET = 7 * MIB
_LABEL = struct.Struct("<16sQQ32s")
_MAGIC = b"virmirror data 1"


class WritesLost(AssertionError):
    """What is on the disk is not what the guest has written."""


@dataclass(frozen=True)
class Writes:
    """What :func:`check` found: ``reported`` rounds on the serial port, and the
    ``highest`` one on the disk, which may be one ahead."""

    reported: int
    highest: int


def _run(*args: str) -> None:
    subprocess.run(args, check=True, stdin=subprocess.DEVNULL)


def _stamp_offset(layer: int) -> int:
    return (8 + layer) * MIB


def _stamp_byte(layer: int) -> int:
    return 0x41 + layer


def make_chain(
    folder: str | os.PathLike[str],
    names: Sequence[str] = ("common", "old.qcow2"),
    *,
    size: int = 64 * MIB,
    base_format: str = "qcow2",
    data: int = 0,
) -> list[pathlib.Path]:
    """Make a backing chain in ``folder`` that boots into the writer.

    ``names`` are those of its layers, the base first; each one has a mark of
    its own, so that :func:`check` can tell whether it is lost. ``size`` is the
    virtual size, ``data`` how many random bytes the base has besides, both in
    bytes; :func:`check` knows them again. Backing names are relative, qcow2
    layers are of version 3. Returns the paths, the base first. Raises
    :exc:`ValueError` if ``size`` is too small for all that, and
    :exc:`subprocess.CalledProcessError`.
    """
    if size < _stamp_offset(len(names)) + data:
        raise ValueError(f"{len(names)} layers with {data} bytes of data do not fit into {size}")
    folder = pathlib.Path(folder)
    paths = [folder / name for name in names]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        raw = pathlib.Path(temporary) / "raw"
        with raw.open("wb") as file:
            file.write(BOOT_SECTOR)
            _write_data(file, _stamp_offset(len(names)), data)
            file.truncate(size)
        _run("qemu-img", "convert", "-f", "raw", "-O", base_format, str(raw), str(paths[0]))
    below = base_format
    for backing, path in itertools.pairwise(paths):
        _run(
            *("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=1.1"),
            *("-b", backing.name, "-F", below, str(path)),
        )
        below = "qcow2"
    for layer, path in enumerate(paths):
        write = f"write -q -P {_stamp_byte(layer)} {_stamp_offset(layer)} {_STAMP}"
        _run("qemu-io", "-f", base_format if layer == 0 else "qcow2", "-c", write, str(path))
    return paths


def _write_data(file: BinaryIO, offset: int, length: int) -> None:
    content = os.urandom(length)
    file.seek(_LABEL_OFFSET)
    file.write(_LABEL.pack(_MAGIC, offset, length, hashlib.sha256(content).digest()))
    file.seek(offset)
    file.write(content)


def _has_its_data(file: BinaryIO) -> bool:
    file.seek(_LABEL_OFFSET)
    magic, offset, length, digest = _LABEL.unpack(file.read(_LABEL.size))
    if magic != _MAGIC:
        return False
    file.seek(offset)
    return bool(hashlib.sha256(file.read(length)).digest() == digest)


def domain_xml(
    name: str,
    disks: Iterable[str | os.PathLike[str]],
    serial: str | os.PathLike[str],
    *,
    memory: int = 32 * MIB,
    disk_format: str = "qcow2",
) -> str:
    """The domain XML of a guest with the top layers ``disks`` as vda, vdb, ...

    It boots from the first one, writes to all, and reports to the file
    ``serial``. ``memory`` is in bytes. It runs without KVM.
    """
    devices = [
        f"<disk type='file' device='disk'><driver name='qemu' type={quoteattr(disk_format)}/>"
        f"<source file={quoteattr(os.fspath(disk))}/><target dev='vd{letter}' bus='virtio'/>"
        f"<boot order='{order}'/></disk>"
        for order, (letter, disk) in enumerate(zip("abcdefgh", disks, strict=False), start=1)
    ]
    return (
        f"<domain type='qemu'><name>{escape(name)}</name><memory unit='b'>{memory}</memory>"
        "<vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>"
        "<features><acpi/></features><on_reboot>destroy</on_reboot>"
        f"<devices>{''.join(devices)}<controller type='usb' model='none'/>"
        f"<serial type='file'><source path={quoteattr(os.fspath(serial))}/></serial>"
        "<memballoon model='none'/></devices></domain>"
    )


def _reported(serial: str | os.PathLike[str]) -> int:
    try:
        return pathlib.Path(serial).read_bytes().count(b".")
    except FileNotFoundError:
        return 0


def wait_for_writes(serial: str | os.PathLike[str], more: int = 1, *, timeout: float = 30.0) -> int:
    """Wait until the guest has reported ``more`` rounds than now.

    Returns the number reported by then. Raises :exc:`TimeoutError` after
    ``timeout`` seconds.
    """
    wanted = _reported(serial) + more
    end = time.monotonic() + timeout
    while (now := _reported(serial)) < wanted:
        if time.monotonic() > end:
            raise TimeoutError(f"the guest reported {now} rounds, not {wanted}, in {timeout} s")
        time.sleep(0.02)
    return now


def check(
    top: str | os.PathLike[str],
    serial: str | os.PathLike[str],
    *,
    layers: int = 2,
    drive: int = 0,
    image_format: str = "qcow2",
) -> Writes:
    """Check the disk whose top layer is ``top``, of a guest that is stopped.

    ``drive`` is 0 for vda, 1 for vdb, ...; ``layers`` is how many
    :func:`make_chain` made. Raises :exc:`WritesLost` with what is wrong.
    """
    reported = _reported(serial)
    with tempfile.TemporaryDirectory() as temporary:
        raw = pathlib.Path(temporary) / "raw"
        _run("qemu-img", "convert", "-f", image_format, "-O", "raw", os.fspath(top), str(raw))
        with raw.open("rb") as file:
            for layer in range(layers):
                file.seek(_stamp_offset(layer))
                if file.read(_STAMP) != bytes([_stamp_byte(layer)]) * _STAMP:
                    raise WritesLost(f"{top}: layer {layer} of the backing chain is lost")
            if not _has_its_data(file):
                raise WritesLost(f"{top}: the data of the base is lost or changed")
            file.seek(_RING)
            ring = file.read(_SLOTS * _BLOCK)
    rounds = [_round_in(ring, slot, drive, top) for slot in range(_SLOTS)]
    highest = max(rounds)
    if not reported <= highest <= reported + 1:
        raise WritesLost(f"{top}: round {reported} was reported, {highest} is the highest there")
    for slot, found in enumerate(rounds):
        expected = highest - (highest - 1 - slot) % _SLOTS
        if found != max(expected, 0):
            raise WritesLost(f"{top}: slot {slot} holds round {found}, not {expected}")
    return Writes(reported, highest)


def _round_in(ring: bytes, slot: int, drive: int, top: str | os.PathLike[str]) -> int:
    block = ring[slot * _BLOCK : (slot + 1) * _BLOCK]
    cell = block[:8]
    if block != cell * (_BLOCK // 8):
        raise WritesLost(f"{top}: slot {slot} is torn")
    if cell == bytes(8):
        return 0
    if cell[4:] != b"VMR" + bytes([drive]):
        raise WritesLost(f"{top}: slot {slot} holds {cell.hex()}, which drive {drive} never wrote")
    return int.from_bytes(cell[:4], "little")
