# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is public is complete, documented and described by the stub."""

import ast
import inspect
import tomllib
from pathlib import Path

import pytest

import virmirror
from virmirror import _core

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(virmirror.__file__).with_name("_core.pyi")


def public_objects():
    """Return (name, object) of every function, class, method and property that is public."""
    found = []
    for name in virmirror.__all__:
        thing = getattr(virmirror, name)
        if not callable(thing):
            continue
        found.append((name, thing))
        if inspect.isclass(thing) and thing.__module__.startswith("virmirror"):
            found += [
                (f"{name}.{member}", value)
                for member, value in vars(thing).items()
                if not member.startswith("_")
            ]
    return found


@pytest.mark.parametrize(
    ("name", "thing"), public_objects(), ids=[name for name, _ in public_objects()]
)
def test_public_object_is_documented(name, thing):
    assert (inspect.getdoc(thing) or "").strip()


def test_all_lists_every_name_of_the_extension():
    names = {name for name in vars(_core) if not name.startswith("_")}
    assert names <= set(virmirror.__all__)


def test_all_lists_nothing_twice_and_everything_exists():
    assert len(set(virmirror.__all__)) == len(virmirror.__all__)
    for name in virmirror.__all__:
        assert hasattr(virmirror, name)


def test_star_import_brings_just_that():
    names = {}
    exec("from virmirror import *", names)
    assert set(names) - {"__builtins__"} == set(virmirror.__all__)


@pytest.mark.parametrize(
    "function", [f for f in vars(_core).values() if inspect.isbuiltin(f)], ids=lambda f: f.__name__
)
def test_function_names_its_errors_and_parameters(function):
    doc = inspect.getdoc(function)
    assert "Raises" in doc or "errors" in doc
    for parameter in inspect.signature(function).parameters:
        # those that mean the same everywhere are explained where they are special
        assert parameter in ("name", "description") or f"*{parameter}*" in doc


def test_stub_has_every_name_of_the_extension():
    body = ast.parse(STUB.read_text()).body
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.target.id for node in body if isinstance(node, ast.AnnAssign)}
    assert {name for name in vars(_core) if not name.startswith("__")} <= names


def test_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert virmirror.__version__ == project["version"]
