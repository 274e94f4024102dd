# SPDX-License-Identifier: LGPL-2.1-or-later
"""What only QEMU's own monitor can do; for tests, it taints the domain."""

from __future__ import annotations

import json
from typing import Any

import libvirt
import libvirt_qemu


def monitor(dom: libvirt.virDomain, command: str, **arguments: object) -> Any:
    """Run a QMP command and return what it returned."""
    request = {
        "execute": command,
        "arguments": {k.replace("_", "-"): v for k, v in arguments.items()},
    }
    reply = json.loads(libvirt_qemu.qemuMonitorCommand(dom, json.dumps(request), 0))
    if "error" in reply:
        raise RuntimeError(reply["error"]["desc"])
    return reply["return"]


def write(
    dom: libvirt.virDomain, offset: str, length: str, *, byte: int = 0x33, disk: int = 0
) -> None:
    """Write to a disk as its guest would, with qemu-io inside QEMU."""
    device = f"/machine/peripheral/virtio-disk{disk}/virtio-backend"
    command = f'qemu-io -d {device} "write -P {byte} {offset} {length}"'
    monitor(dom, "human-monitor-command", command_line=command)


def throttle(dom: libvirt.virDomain, target: str, bytes_per_second: int) -> None:
    """Slow down the block job of a disk; 0 lets it run."""
    dom.blockJobSetSpeed(
        target, bytes_per_second, libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES
    )
