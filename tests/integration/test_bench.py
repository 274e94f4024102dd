# SPDX-License-Identifier: LGPL-2.1-or-later
"""The benches run, and do not report the time of a contender that did wrong.

Nothing is said about any time.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.qemu

ROOT = pathlib.Path(__file__).parents[2]
BENCH = ROOT / "bench"
DOCUMENT = ROOT / "docs" / "explanation" / "performance.rst"
NAMES = {"copying", "guest", "control", "fleet", "supervise", "pause", "proof", "collapse"}


def run(
    program: str, *arguments: object, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / program), *map(str, arguments)],
        env={**os.environ, **({"PATH": path} if path else {})},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_all_benches_run_and_their_figures_fit_the_document(tmp_path: pathlib.Path) -> None:
    result = run("all.py", "--quick", "--json", tmp_path / "json")
    assert (result.returncode, result.stderr) == (0, "")
    reports = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("json/*")}
    assert set(reports) == NAMES
    for report in reports.values():
        assert any("virmirror" in entry["contender"] for entry in report["results"])
        assert report["reference"] in {entry["contender"] for entry in report["results"]}
        assert report["targets"]
    document = tmp_path / "performance.rst"
    document.write_text(DOCUMENT.read_text())
    put = run("tables.py", "--into", document, *tmp_path.glob("json/*"))
    assert (put.returncode, put.stderr) == (0, "")
    assert document.read_text().count(".. list-table::") == 2 * len(NAMES)
    assert "Not measured yet." not in document.read_text()


def test_bench_of_a_rival_that_copies_wrongly_fails(tmp_path: pathlib.Path) -> None:
    rsync = tmp_path / "rsync"
    rsync.write_text('#!/bin/sh\nfor last; do :; done\necho wrong >"$last"\n')
    rsync.chmod(0o755)
    result = run("copying.py", "--quick", path=f"{tmp_path}:{os.environ['PATH']}")
    assert result.returncode == 1
    assert "Wrong: cmp " in result.stderr
    assert result.stdout == ""


def test_bench_without_a_rival_says_what_to_install(tmp_path: pathlib.Path) -> None:
    result = run("copying.py", "--quick", path=str(tmp_path))
    assert result.returncode == 1
    assert "tools/setup-system.sh --bench" in result.stderr
