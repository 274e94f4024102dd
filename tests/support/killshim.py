# SPDX-License-Identifier: LGPL-2.1-or-later
"""Building ``killshim.c``, which is preloaded into a process that is to be killed."""

from __future__ import annotations

import pathlib
import subprocess


def build_killshim(folder: pathlib.Path) -> pathlib.Path:
    """Build the shared object in ``folder``, and return its path."""
    path = folder / "killshim.so"
    flags = subprocess.check_output(["pkg-config", "--cflags", "libvirt"], text=True).split()
    source = pathlib.Path(__file__).with_name("killshim.c")
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", path, source, *flags]
    subprocess.run(command, check=True)
    return path
