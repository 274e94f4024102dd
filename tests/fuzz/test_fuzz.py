# SPDX-License-Identifier: LGPL-2.1-or-later
"""The fuzz targets, each for a moment: all seeds, and some of what comes of them.

``make fuzz SECONDS=60`` looks longer. A target with a bug in it shows that
this one would be found.
"""

import functools
import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.c"))
SEEDS = HERE.parent / "data" / "fuzz"
RUNS = 3000


def make(*arguments, timeout=600):
    """Run make in this folder, free of what an outer make left in the environment."""
    inherited = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "SECONDS", "CC", "SANITIZE")
    return subprocess.run(
        ["make", "-s", "-C", str(HERE), "--no-print-directory", *arguments],
        env={key: value for key, value in os.environ.items() if key not in inherited},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )


@functools.cache
def build():
    """Build all the programs; return make's status and output."""
    result = make("-j2", "-k", "all")
    return result.returncode, result.stdout


def build_or_fail():
    status, output = build()
    if status != 0:
        pytest.fail(f"the fuzz targets do not build:\n{output}", pytrace=False)


def test_canary_is_found():
    build_or_fail()
    result = make("canary", timeout=120)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_target_finds_nothing(target):
    build_or_fail()
    assert any((SEEDS / target).iterdir())
    # from a fixed seed: what is new is for `make fuzz` to find, not for a test run
    options = f"-runs={RUNS} -seed=1 -timeout=30 -print_final_stats=1"
    result = make(f"run-{target}", f"OPTIONS={options}", timeout=120)
    if result.returncode != 0:
        pytest.fail(result.stdout, pytrace=False)


def test_seeds_are_small():
    files = [path for path in SEEDS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(TARGETS)
    assert sum(path.stat().st_size for path in files) < 200 * 1024
