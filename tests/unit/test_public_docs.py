# SPDX-License-Identifier: LGPL-2.1-or-later
"""The documents know every public name, and every public name has its docstring."""

import inspect
import pathlib
import re
from typing import get_args

import pytest

import virmirror
from virmirror import _core, embed, recovery, testguest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
REFERENCE = "\n".join(path.read_text() for path in sorted((DOCS / "reference").glob("*.rst")))
MODULES = [virmirror, embed, testguest]


def public_members(thing):
    """The names of a class that are its own and public; a tuple's are not."""
    inherited = {"n_fields", "n_sequence_fields", "n_unnamed_fields"}
    return [name for name in vars(thing) if not name.startswith("_") and name not in inherited]


@pytest.mark.parametrize("module", [embed, testguest], ids=lambda module: module.__name__)
def test_module_and_its_public_names_are_documented(module):
    assert (module.__doc__ or "").strip()
    for name in module.__all__:
        thing = getattr(module, name)
        if not callable(thing):
            continue
        assert (inspect.getdoc(thing) or "").strip(), name
        for member in public_members(thing) if inspect.isclass(thing) else ():
            value = inspect.getattr_static(thing, member)
            if callable(value) or isinstance(value, property):
                assert (inspect.getdoc(value) or "").strip(), f"{name}.{member}"


def is_in_the_reference(module, name):
    """Whether a directive of the reference is for this name."""
    if re.search(rf"^ *\.\. (?:auto\w+|data):: {name}(?:\(\))?$", REFERENCE, re.MULTILINE):
        return True
    automodule = rf"^\.\. automodule:: {re.escape(module.__name__)}\n   :members:(.*)$"
    match = re.search(automodule, REFERENCE, re.MULTILINE)
    # without a list :members: means all that are in __all__
    return match is not None and (not match[1] or name in re.split(r"[ ,]+", match[1]))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_reference_has_every_public_name(module):
    assert [name for name in module.__all__ if not is_in_the_reference(module, name)] == []


def test_reference_has_nothing_that_is_not_there():
    directives = r"^\.\. (?:autoclass|autofunction|autoexception|data):: (\w+)"
    for name in re.findall(directives, REFERENCE, re.MULTILINE):
        assert name in virmirror.__all__, name


@pytest.mark.parametrize(
    "thing",
    [
        virmirror.MirrorSnapshot,
        virmirror.MirrorDisk,
        virmirror.DiskProgress,
        virmirror.MirrorFigures,
        virmirror.Copy,
        virmirror.CopyProgress,
        virmirror.CopyReport,
    ],
    ids=lambda thing: thing.__name__,
)
def test_reference_has_every_member(thing):
    _, _, rest = REFERENCE.partition(f"\n.. autoclass:: {thing.__name__}()\n")
    section = re.split(r"^\S", rest, maxsplit=1, flags=re.MULTILINE)[0]
    listed = re.findall(r"^   \.\. auto(?:method|attribute):: (\w+)$", section, re.MULTILINE)
    assert sorted(listed) == sorted(public_members(thing))


def test_table_of_errors_has_every_reason_beside_its_class():
    rows = re.findall(r"\* - :exc:`(\w+)`.*\n +- ``([\w-]+)``", REFERENCE)
    reasons = {reason: kind.__name__ for reason, kind in _core._error_types.items()}
    assert {reason: name for name, reason in rows} == reasons


def test_table_of_flags_has_their_values():
    pattern = r"^\.\. data:: (VIR_\w+)\n   :value: (\d+)$"
    for name, value in re.findall(pattern, REFERENCE, re.MULTILINE):
        assert getattr(virmirror, name) == int(value)


def test_page_on_states_has_every_state():
    stub = pathlib.Path(virmirror.__file__).with_name("_core.pyi").read_text()
    page = (DOCS / "internals" / "states.rst").read_text()
    literals = re.findall(
        r"^_\w*State: TypeAlias = Literal\[(.*?)\]", stub, re.MULTILINE | re.DOTALL
    )
    states = {state for literal in literals for state in re.findall(r'"([\w-]+)"', literal)}
    assert {"creating", "planned"} <= states
    assert {state for state in states if f"``{state}``" not in page} == set()


def test_table_of_verdicts_has_each_one_once():
    page = (DOCS / "internals" / "states.rst").read_text()
    _, _, table = page.partition(".. list-table:: verdicts\n")
    rows = re.findall(r"^   \* - ``([\w-]+)``$", table, re.MULTILINE)
    assert sorted(rows) == sorted(get_args(recovery.Verdict))
