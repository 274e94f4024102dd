# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine that was measured: figures without it say nothing."""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess

import virmirror


def describe(folder: pathlib.Path) -> dict[str, str]:
    """What the figures depend on; ``folder`` is on the file system in question."""
    mount = _mount(folder)
    return {
        "CPU": _field("/proc/cpuinfo", "model name"),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.1f} GiB",
        "kernel": platform.release(),
        "guests": "by TCG, without KVM",
        "file system": f"{mount['FSTYPE']} ({mount['OPTIONS']})",
        "device": f"{mount['SOURCE']} {_scheduler(mount['MAJ:MIN'])}".strip(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
        "libvirt": _version("virsh", "--version"),
        "QEMU": _version("qemu-system-x86_64", "--version"),
        "Python": platform.python_version(),
        "virmirror": virmirror.__version__,
    }


def device(folder: pathlib.Path) -> tuple[int, int]:
    """The numbers of the device that the file system of ``folder`` is on."""
    major, minor = _mount(folder)["MAJ:MIN"].split(":")
    return int(major), int(minor)


def _mount(folder: pathlib.Path) -> dict[str, str]:
    names = ["SOURCE", "FSTYPE", "OPTIONS", "MAJ:MIN"]
    command = ["findmnt", "--noheadings", "--first-only", "--output"]
    values = [_output(*command, name, "--target", str(folder)) for name in names]
    return dict(zip(names, values, strict=True))


def _field(path: str, name: str) -> str:
    for line in pathlib.Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _scheduler(numbers: str) -> str:
    path = pathlib.Path(f"/sys/dev/block/{numbers}/queue/scheduler")
    if not path.exists():
        return ""
    rotates = (path.parent / "rotational").read_text().strip() == "1"
    return f"({path.read_text().strip()}{', rotational' if rotates else ''})"


def _version(*command: str) -> str:
    words = _output(*command).splitlines()[0].split()
    return next(word for word in words if word[0].isdigit())


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
