# SPDX-License-Identifier: LGPL-2.1-or-later
"""virsh's syntax on argparse."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import libvirt


class CommandParser(argparse.ArgumentParser):
    """The parser of one command, which takes its arguments as virsh does.

    Options and words may be mixed. A word stands for the first of the options
    made by `add_word` that did not occur yet. An option is ``--`` and a letter;
    its value may begin with a dash, and so may all that follows a lone ``--``.
    """

    def __init__(self, **options: Any) -> None:
        self._words: list[str] = []
        self._many: set[str] = set()
        self._with_value: set[str] = set()
        super().__init__(allow_abbrev=False, **options)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        action = super().add_argument(*names, **options)
        if action.nargs != 0:
            self._with_value.update(action.option_strings)
        return action

    def add_word(self, name: str, help: str, *, many: bool = False, **options: Any) -> None:
        """Add the option ``--name``, which may also be given without its name."""
        self._words.append(f"--{name}")
        if many:
            self._many.add(f"--{name}")
        self.add_argument(
            f"--{name}",
            action="append" if many else _StoreOnce,
            metavar=options.pop("metavar", name.upper()),
            type=options.pop("type", not_empty),
            help=help,
            **options,
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        options = list(self._as_options(sys.argv[1:] if args is None else args))
        result, unknown = super().parse_known_args(options, namespace)
        if unknown:
            self.error(f"unrecognized option: {unknown[0]}")
        return result, unknown

    def _as_options(self, args: Sequence[str]) -> Iterator[str]:
        """Put its name to each word and, with ``=``, to each value."""
        unseen = list(self._words)
        rest = iter(args)
        options_end = False
        for arg in rest:
            if arg == "--" and not options_end:
                options_end = True
                continue
            value: str | None
            if options_end or not re.match(r"--[a-zA-Z]|-h$", arg):
                if not unseen:
                    self.error(f"unexpected argument: {arg!r}")
                option, value = unseen[0], arg
            else:
                option, equals, value = arg.partition("=")
                if not equals:
                    value = next(rest, None) if option in self._with_value else None
            if option in unseen and option not in self._many:
                unseen.remove(option)
            if value == "--":  # argparse would drop it, and then fail
                self.error(f"argument {option}: unexpected value: '--'")
            yield option if value is None else f"{option}={value}"


class _StoreOnce(argparse.Action):
    """Store a value; like virsh, refuse another one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) != self.default:
            raise argparse.ArgumentError(self, "given twice")
        setattr(namespace, self.dest, values)


class Command(NamedTuple):
    """A command: how it is described, parsed and run.

    ``usage`` is what comes after the name, in lines; ``check`` may end the program
    with a usage error before anything is opened. A command has either ``run``, which
    is given the domain, or ``run_local``, which needs no hypervisor. ``run_gone`` is tried
    where there is no such domain, with what the user calls it; it returns whether that was
    enough.
    """

    name: str
    usage: tuple[str, ...]
    help: str
    add: Callable[[CommandParser], None]
    run: Callable[[libvirt.virDomain, argparse.Namespace], None] | None
    check: Callable[[CommandParser, argparse.Namespace], None] | None = None
    run_local: Callable[[argparse.Namespace], None] | None = None
    run_gone: Callable[[libvirt.virConnect, argparse.Namespace], bool] | None = None


class Failure(Exception):
    """A command failed for a reason of its own; the text is all there is to say."""


def not_empty(text: str) -> str:
    """Convert the value of an option that must have one."""
    if not text:
        raise argparse.ArgumentTypeError("the value is empty")
    return text


def natural(text: str) -> int:
    """Convert a whole number, which may be 0."""
    if not re.fullmatch("[0-9]+", text):
        raise argparse.ArgumentTypeError(f"not a whole number: {text!r}")
    return int(text)


def positive(text: str) -> int:
    """Convert a whole number that is not 0."""
    if natural(text) == 0:
        raise argparse.ArgumentTypeError("must not be 0")
    return int(text)
