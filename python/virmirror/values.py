# SPDX-License-Identifier: LGPL-2.1-or-later
"""Frozen dataclasses as JSON, both ways; what is read is checked field by field.

A document may come from anybody: a wrong type, a missing or an unknown field is
a `SpecError` that names its place.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from typing import Any, TypeVar

from . import _core

__all__ = ["MAX_SIZE", "from_json", "to_json"]

#: Bytes; a plan of many disks with deep chains has some ten thousand.
MAX_SIZE = 4 * 1024 * 1024

_T = TypeVar("_T")


def to_json(value: Any) -> str:
    """A dataclass, with those in it, as a JSON object."""
    return json.dumps(dataclasses.asdict(value))


def from_json(kind: type[_T], text: str) -> _T:
    """The dataclass ``kind`` from what `to_json` wrote. Raises SpecError."""
    if len(text) > MAX_SIZE:
        raise _core._make_error("invalid-spec", f"the JSON text is longer than {MAX_SIZE} bytes")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _core._make_error("invalid-spec", f"this is no JSON text: {error}") from error
    return typing.cast(_T, _read(kind, data, kind.__name__))


def _read(kind: Any, data: Any, place: str) -> Any:
    """``data`` as a value of the type ``kind``."""
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, data, place)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # only "X | None" is used
        return None if data is None else _read(arguments[0], data, place)
    if origin is tuple and isinstance(data, list):
        return tuple(_read(arguments[0], item, f"{place}[{n}]") for n, item in enumerate(data))
    if origin is typing.Literal and isinstance(data, str) and data in arguments:
        return data
    if kind is float and type(data) is int:
        return float(data)
    if origin is None and type(data) is kind:
        return data
    raise _core._make_error("invalid-spec", f"{place} is not what it must be: {data!r:.80}")


def _read_fields(kind: Any, data: Any, place: str) -> Any:
    if not isinstance(data, dict):
        raise _core._make_error("invalid-spec", f"{place} is no object")
    names = {field.name for field in dataclasses.fields(kind)}
    if data.keys() != names:
        odd = ", ".join(sorted(f"{name!r:.40}" for name in data.keys() ^ names))
        raise _core._make_error(
            "invalid-spec", f"{place} lacks a field, or has one too many: {odd}"
        )
    hints = _hints(kind)
    return kind(**{name: _read(hints[name], data[name], f"{place}.{name}") for name in data})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """The types of the fields of a dataclass, evaluated once: that takes a while."""
    return typing.get_type_hints(kind)
