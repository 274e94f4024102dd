# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command ``virmirror copy``."""

import os

import pytest

import virmirror
from virmirror.cli import main

KIB = 1024


@pytest.fixture
def run(capsys):
    """Run a command in this process; return its status, stdout and stderr."""

    def run(*argv):
        try:
            status = main([str(arg) for arg in argv])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(os.urandom(300 * KIB))
    return path


def test_copy_copies_and_tells_the_checksum(run, source, tmp_path):
    destination = tmp_path / "destination"
    status, out, err = run("copy", source, destination, "--no-reflink", "--verify")
    assert (status, err) == (0, "")
    assert destination.read_bytes() == source.read_bytes()
    assert out.startswith(f"{300 * KIB} of {300 * KIB} bytes copied in ")
    assert "verified" in out
    assert out.endswith(f"checksum {virmirror.checksum(source)}\n")


def test_copy_again_says_that_it_is_there(run, source, tmp_path):
    destination = tmp_path / "destination"
    run("copy", source, destination)
    status, out, err = run("copy", source, destination, "--overwrite")
    assert (status, out, err) == (0, f"{destination} is a complete copy already\n", "")


def test_copy_verbose_shows_progress_to_the_end(run, source, tmp_path):
    status, _, err = run("copy", "--verbose", source, tmp_path / "destination")
    assert status == 0
    assert err.endswith("\rCopy: [100 %]\n")


def test_copy_onto_existing_file_fails_in_one_line(run, source, tmp_path):
    destination = tmp_path / "destination"
    destination.write_bytes(b"mine")
    status, out, err = run("copy", source, destination)
    assert (status, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert destination.read_bytes() == b"mine"


def test_copy_that_takes_too_long_fails(run, source, tmp_path):
    arguments = ("--bandwidth", 64 * KIB, "--bytes", "--timeout", 1)
    status, _, err = run("copy", source, tmp_path / "destination", *arguments)
    assert status == 1
    assert "time" in err
    assert not (tmp_path / "destination").exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["copy", "only-one"],
        ["copy", "a", "b", "c"],
        ["copy", "a", "b", "--pace", "fast"],
        ["copy", "a", "b", "--bandwidth", "-1"],
        ["copy", "a", "b", "--timeout", "0"],
    ],
)
def test_copy_with_wrong_usage_ends_with_2(run, argv):
    assert run(*argv)[0] == 2
