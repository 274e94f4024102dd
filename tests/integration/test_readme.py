# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every example of the README and the documentation does what it says.

A comment ``.. example: NAME [KEY=VALUE ...]`` begins an example, which goes on to
the next such comment: its code blocks run in order, in one namespace, on a new
guest whose chain is as the documents say. The values are those of the guest:
``disks=2``. An example named ``pytest`` is a test file, and one named ``none`` is not
run. /path1, /path2, the guest's name web1 and the connection's URI stand for
what the test has made.
"""

from __future__ import annotations

import contextlib
import io
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import NamedTuple

import libvirt
import pytest

import virmirror
from support.guest import Guest
from virmirror import cli, embed

pytestmark = pytest.mark.qemu

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst"))]
URI = "qemu:///system"


class Block(NamedTuple):
    """A code block, and the number of its first line."""

    language: str
    text: str
    line: int


class Example(NamedTuple):
    document: str
    name: str
    options: dict[str, int]
    blocks: list[Block]


def parse_block(lines: list[str], start: int) -> str:
    """The text of the block whose directive is in line ``start`` (from 0)."""
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith("   ")):
        end += 1
    return textwrap.dedent("\n".join(lines[start + 1 : end])).strip() + "\n"


def examples_of(path: pathlib.Path) -> Iterator[Example]:
    lines = path.read_text().splitlines()
    document = str(path.relative_to(ROOT))
    example = Example(document, "unnamed", {}, [])
    for number, line in enumerate(lines):
        if match := re.fullmatch(r"\.\. example: (\S+)((?: \w+=\d+)*)", line):
            yield example
            options = dict(option.split("=") for option in match[2].split())
            numbers = {key: int(value) for key, value in options.items()}
            example = Example(document, match[1], numbers, [])
        elif match := re.fullmatch(r"\.\. code-block:: (python|console)", line):
            example.blocks.append(Block(match[1], parse_block(lines, number), number + 3))
    yield example


EXAMPLES = [
    example
    for path in DOCUMENTS
    for example in examples_of(path)
    if example.blocks and example.name != "none"
]


def name_of(example: Example) -> str:
    return f"{example.document}:{example.name}"


@pytest.fixture
def substitute(host: embed.Host) -> Callable[[str, Guest], str]:
    """Put the real places into an example."""

    def put(text: str, guest: Guest) -> str:
        values = {
            "/path1": str(guest.path1),
            "/path2": str(guest.path2),
            "web1": guest.dom.name(),
            URI: host.conn.getURI(),
        }
        return re.sub("|".join(map(re.escape, values)), lambda match: values[match[0]], text)

    return put


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_example_runs(
    example: Example,
    make_guest: Callable[..., Guest],
    substitute: Callable[[str, Guest], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    host: embed.Host,
) -> None:
    if example.name == "pytest":
        run_as_test_file(example, tmp_path, host)
        return
    guest = make_guest(**example.options)
    monkeypatch.setenv("VIRSH_DEFAULT_CONNECT_URI", host.conn.getURI())
    names = {"dom": guest.dom, "libvirt": libvirt, "shutil": shutil, "virmirror": virmirror}
    for block in example.blocks:
        text = substitute(block.text, guest)
        if block.language == "python":
            # the line numbers of a traceback are those of the document
            code = compile("\n" * (block.line - 1) + text, example.document, "exec")
            exec(code, names)
        else:
            run_console(text, guest)
    guest.wait_for_writes()
    guest.check()


def run_as_test_file(example: Example, folder: pathlib.Path, host: embed.Host) -> None:
    known = folder / "capabilities"  # what is known about QEMU need not be found out again
    shutil.copytree(host.root / "cache" / "qemu" / "capabilities", known)
    known.chmod(0o700)
    (block,) = example.blocks
    assert "embed.Host()" in block.text
    text = block.text.replace("embed.Host()", f"embed.Host(capabilities_cache={str(known)!r})")
    path = folder / "test_example.py"
    path.write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def run_console(text: str, guest: Guest) -> None:
    """Run the commands of a console block; each must print what it says."""
    for part in re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        assert run_command(shlex.split(command), guest) == expected, command


def run_command(command: list[str], guest: Guest) -> str:
    if command[0] != "virmirror":
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
        return result.stdout
    if "--mirror-pivot" in command:
        mirror = virmirror.adopt(guest.dom)
        mirror.wait_ready(timeout=60)
        mirror.detach()
    # in this process: libvirt lets only one have the host of the tests
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        status = cli.main(command[1:])
    assert status == 0
    return "\n".join(filter(None, output.getvalue().splitlines())) + "\n"


def test_every_code_block_belongs_to_an_example() -> None:
    unnamed = [name_of(example) for example in EXAMPLES if example.name == "unnamed"]
    assert unnamed == []


def test_there_are_examples_for_each_kind_of_user() -> None:
    names = {example.name for example in EXAMPLES if example.document == "README.rst"}
    assert names == {"script", "steps", "manager", "commands", "pytest"}
