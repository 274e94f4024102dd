# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tools that look for errors in memory are live, and find nothing, in short.

``make asan``, ``make tsan`` and ``make leak`` look longer.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
CYCLES = 200


def run(*command, timeout=500):
    """Run a command, free of what an outer make left; its output is the failure."""
    inherited = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "CC", "SANITIZE")
    result = subprocess.run(
        [str(part) for part in command],
        env={key: value for key, value in os.environ.items() if key not in inherited},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    if result.returncode != 0:
        pytest.fail(result.stdout, pytrace=False)
    return result.stdout


def test_thread_sanitizer_finds_a_race():
    run("make", "-s", "-C", TESTS / "sanitize", "race")


def test_address_sanitizer_finds_bugs_and_none_in_the_extension():
    tests = ["tests/unit/test_args.py", "tests/unit/test_functions.py"]
    output = run(sys.executable, TESTS / "sanitize" / "asan.py", *tests)
    assert output.count("as expected") == 5
    assert "nothing reported" in output


def test_memory_and_references_do_not_grow():
    output = run(sys.executable, TESTS / "leak" / "leak.py", "--cycles", CYCLES)
    assert "its leak was found" in output
    assert "create-abort" in output
    assert "0 references to the connection" in output
