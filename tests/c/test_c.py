# SPDX-License-Identifier: LGPL-2.1-or-later
"""The C unit tests, each GTest case as a test of its own.

All programs are built once, when pytest collects this file. A program runs
once, in TAP mode; cases that an earlier crash left without a report then run
alone, so that every case has a result of its own. CC and SANITIZE in the
environment choose another compiler and other sanitizers (see Makefile here).
"""

import functools
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAM_TIMEOUT = 900  # seconds, for all the cases of a program
BUILD_TIMEOUT = 600

TAP_LINE = re.compile(r"^\s*(?P<bad>not )?ok \d+ (?:- )?(?P<case>/\S*)(?P<rest>.*)$")


@dataclass
class Run:
    """One run of a program: its exit status, its output, and the report of each case."""

    status: int
    output: str
    reports: dict[str, str] = field(default_factory=dict)  # case -> "ok", "not ok", "skip"


def make(*arguments, timeout=BUILD_TIMEOUT):
    """Run make in this folder, free of what an outer make left in the environment."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
    }
    return subprocess.run(
        ["make", "-s", "-C", str(HERE), "--no-print-directory", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


@functools.cache
def build():
    """Build all the programs; return make's status and output."""
    result = make("-j2", "-k", "all")
    return result.returncode, result.stdout


@functools.cache
def programs():
    """Return the paths of the programs."""
    return [Path(line) for line in make("list").stdout.split()]


@functools.cache
def program_environment():
    """Return the environment that the programs run in."""
    settings = dict(line.split("=", 1) for line in make("environment").stdout.split())
    return os.environ | settings


def execute(program, *arguments):
    """Run a program; return its status (None when it took too long) and its output."""
    try:
        result = subprocess.run(
            [str(program), *arguments],
            env=program_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PROGRAM_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        return None, f"{output}\nstopped after {PROGRAM_TIMEOUT} s"
    return result.returncode, result.stdout.decode(errors="replace")


@functools.cache
def listed_cases(program):
    """Return the cases that a program lists; none when it cannot even do that."""
    if not program.exists():
        return []
    status, output = execute(program, "-l")
    if status != 0:
        return []
    # "/x/subprocess" are the halves of g_test_trap_subprocess(), not cases
    return [line for line in output.split() if line[:1] == "/" and "/subprocess" not in line]


def parse_tap(output):
    """Return the report of each case in a TAP output."""
    reports = {}
    for line in output.splitlines():
        if match := TAP_LINE.match(line):
            if match["bad"]:
                report = "not ok"
            elif "# SKIP" in match["rest"]:
                report = "skip"
            else:
                report = "ok"
            reports[match["case"]] = report
    return reports


@functools.cache
def run(program, case=None):
    """Run a program, or one of its cases alone."""
    selection = ["-p", case] if case else []
    status, output = execute(program, "--tap", *selection)
    return Run(status, output, parse_tap(output))


def pytest_generate_tests(metafunc):
    """Build, then make one parameter per program and one per case."""
    if metafunc.definition.originalname == "test_programs_build":
        return
    build()
    if "case" in metafunc.fixturenames:
        pairs = [(program, case) for program in programs() for case in listed_cases(program)]
        names = [f"{program.name}:{case}" for program, case in pairs]
        metafunc.parametrize(("program", "case"), pairs, ids=names)
    elif "program" in metafunc.fixturenames:
        metafunc.parametrize("program", programs(), ids=lambda program: program.name)


def test_programs_build():
    status, output = build()
    if status != 0:
        pytest.fail(f"the C tests do not build:\n{output}", pytrace=False)
    assert programs(), "there is no tests/c/test_*.c"


def test_c(program, case):
    result = run(program)
    if case not in result.reports:
        result = run(program, case)
    report = result.reports.get(case)
    if report == "skip":
        pytest.skip(next(line for line in result.output.splitlines() if f"{case} # SKIP" in line))
    if report is None:
        problem = f"{case} did not report; {program.name} ended with status {result.status}"
        pytest.fail(f"{problem}:\n{result.output}", pytrace=False)
    if report != "ok":
        pytest.fail(f"{case} failed:\n{result.output}", pytrace=False)


def test_program_ends_cleanly(program):
    """Crashes and timeouts, and what a sanitizer finds at the end of a program."""
    if not program.exists():
        pytest.fail(f"{program.name} was not built", pytrace=False)
    if not listed_cases(program):
        status, output = execute(program, "-l")
        pytest.fail(f"{program.name} lists no case (status {status}):\n{output}", pytrace=False)
    result = run(program)
    silent = [case for case in listed_cases(program) if case not in result.reports]
    if result.status != 0 or silent:
        problem = f"{program.name} ended with status {result.status}"
        if silent:
            problem += f", without a report of {', '.join(silent)}"
        pytest.fail(f"{problem}:\n{result.output}", pytrace=False)
