# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bench's own small programs, and commands that are measured."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import machine

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "bench"
KILLSHIM = HERE.parent / "tests" / "support" / "killshim.c"

Argument = str | pathlib.Path


class Wrong(Exception):
    """A contender did not do its work, or did it wrong: its time means nothing."""


@dataclass(frozen=True)
class Usage:
    """What a command took; memory is its peak, in bytes."""

    seconds: float
    cpu: float
    memory: int


def build(name: str) -> pathlib.Path:
    """The program of bench/NAME.c; built where its source is newer."""
    return _compile(HERE / f"{name}.c", BUILD / name, [])


def build_call_log() -> pathlib.Path:
    """The library that, preloaded, logs the calls of libvirt."""
    flags = ["-shared", "-fPIC", "-Wl,--no-as-needed", "-lvirt"]
    return _compile(KILLSHIM, BUILD / "calllog.so", flags)


def _compile(source: pathlib.Path, target: pathlib.Path, flags: list[str]) -> pathlib.Path:
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([*command, "-o", target, source, *flags], check=True)
    return target


def need(*programs: str) -> None:
    """The rivals must be there: a table without them is no comparison."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise Wrong(f"missing: {', '.join(missing)}; install them: tools/setup-system.sh --bench")


def metered(command: Sequence[Argument], scratch: pathlib.Path) -> Usage:
    """Run a command to its end; its failure is an error, with what it said."""
    result = scratch / "usage"
    run([build("meter"), result, *command])
    seconds, user, system, memory, status = result.read_text().split()
    result.unlink()
    if int(status) != 0:
        raise Wrong(f"{command[0]} ended with status {status}: {' '.join(map(str, command))}")
    return Usage(float(seconds), float(user) + float(system), int(memory) * 1024)


def run(command: Sequence[Argument], **options: object) -> str:
    """Run a command, and return what it prints; its failure is an error, with its text."""
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    if result.returncode != 0:
        raise Wrong(f"{' '.join(map(str, command))}:\n{result.stdout}")
    return str(result.stdout)


def drop_caches(*files: pathlib.Path) -> None:
    """Make the caches cold: of the files, and of all there is where one may."""
    os.sync()
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with contextlib.suppress(PermissionError):
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def warm(path: pathlib.Path) -> None:
    """Have all of a file in the page cache."""
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(1024 * 1024)
        while file.readinto(buffer):
            pass


def allocated(*paths: pathlib.Path) -> int:
    """How many bytes the files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in paths)


def written_to_device(folder: pathlib.Path) -> int | None:
    """Bytes written so far to the device below a folder; None where there is none."""
    os.sync()
    wanted = machine.device(folder)
    for line in pathlib.Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if (int(fields[0]), int(fields[1])) == wanted:
            return int(fields[9]) * 512
    return None


@contextlib.contextmanager
def clock() -> Iterator[list[float]]:
    """Seconds from here to the end of the context, as the list's one item."""
    took: list[float] = []
    start = time.monotonic()
    yield took
    took.append(time.monotonic() - start)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far, its threads with it, to 1/100."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
