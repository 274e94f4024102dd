# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every bench is made of: cases, contenders, shuffled rounds, medians, targets.

A bench is a subclass of :class:`Bench`. In each round every contender is measured
once in every case, in an order that is shuffled anew: what the machine does
besides, and what one contender leaves in the caches, hits all of them alike.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import pathlib
import random
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import ClassVar

import hosts
import machine
import tables
from tools import BUILD
from virmirror.testguest import MIB

Values = Mapping[str, float]
Contender = Callable[[], Values]


@dataclass(frozen=True)
class Column:
    """A value that is measured: its heading, with the unit, and its digits."""

    key: str
    heading: str
    digits: int = 2
    #: whether the ratio to the reference is shown as well
    ratio: bool = False


@dataclass(frozen=True)
class Target:
    """What virmirror is to reach: ``measured`` must not be over, or under, ``limit``."""

    text: str
    measured: float
    limit: float
    at_least: bool = False

    @property
    def reached(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclass
class Results:
    """The runs of each contender in each case."""

    runs: dict[tuple[str, str], list[Values]] = field(default_factory=dict)

    def add(self, case: str, contender: str, values: Values) -> None:
        self.runs.setdefault((case, contender), []).append(values)

    def median(self, case: str, contender: str, key: str) -> float:
        return statistics.median(values[key] for values in self.runs[case, contender])

    def has(self, case: str, contender: str, key: str) -> bool:
        return all(key in values for values in self.runs[case, contender])

    def contenders(self, case: str) -> list[str]:
        return [contender for other, contender in self.runs if other == case]

    def cases(self) -> list[str]:
        return list(dict.fromkeys(case for case, _ in self.runs))

    def best(self, case: str, key: str, contenders: list[str]) -> float:
        """The least median of some contenders."""
        return min(self.median(case, contender, key) for contender in contenders)


@dataclass
class Setting:
    """Where, how long and how often a bench runs."""

    work: pathlib.Path
    quick: bool
    #: how large the images are, of what the bench's title says
    scale: float
    runs: int
    random: random.Random
    #: starts the libvirtd, which all benches of a command share
    daemon: Callable[[], hosts.Daemon]


class Bench:
    """One bench; ``setting`` is there before :meth:`prepare`."""

    name: ClassVar[str]
    title: ClassVar[str]
    #: how it is measured, for whoever reads the table
    notes: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[tuple[Column, ...]]
    #: ratios are those to this contender
    reference: ClassVar[str]

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.work = setting.work
        self.quick = setting.quick

    def amount(self, full: int, quick: int) -> int:
        """How many bytes an image is to hold; full and quick are in MiB."""
        return (quick if self.quick else max(1, round(full * self.setting.scale))) * MIB

    def prepare(self) -> None:
        """Make what all contenders work on."""

    def cases(self) -> list[str]:
        return [""]

    def contenders(self, case: str) -> Mapping[str, Contender]:
        raise NotImplementedError

    def targets(self, results: Results) -> list[Target]:
        raise NotImplementedError

    def close(self) -> None:
        """End what :meth:`prepare` has started."""


def measure(bench: Bench) -> Results:
    """All rounds of a bench, and its results in the order that it lists them."""
    jobs = [(case, name) for case in bench.cases() for name in bench.contenders(case)]
    results = Results({job: [] for job in jobs})
    for number in range(bench.setting.runs):
        order = jobs.copy()
        bench.setting.random.shuffle(order)
        for done, (case, name) in enumerate(order):
            progress(f"{bench.name}: round {number + 1}, {done + 1}/{len(order)}: {case} {name}")
            results.add(case, name, bench.contenders(case)[name]())
    progress("")
    return results


def progress(text: str) -> None:
    """What is going on, on a terminal's last line."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:110]}", end="", file=sys.stderr, flush=True)


def report(bench: Bench, results: Results, seed: int) -> dict[str, object]:
    """All that is known about a run, ready for JSON."""
    return {
        "bench": bench.name,
        "title": bench.title,
        "notes": list(bench.notes),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(bench.work),
        "quick": bench.quick,
        "scale": bench.setting.scale,
        "rounds": bench.setting.runs,
        "seed": seed,
        "reference": bench.reference,
        "columns": [asdict(column) for column in bench.columns],
        "results": [
            {
                "case": case,
                "contender": name,
                "median": {key: results.median(case, name, key) for key in runs[0]},
                "runs": list(runs),
            }
            for (case, name), runs in results.runs.items()
        ],
        "targets": [
            {**asdict(target), "reached": target.reached} for target in bench.targets(results)
        ],
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the commands of all benches have in common."""
    parser.add_argument("--quick", action="store_true", help="small and short: does it work?")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the images (default 1)")
    parser.add_argument("--runs", type=int, help="rounds (default 5, or 1 with --quick)")
    parser.add_argument("--seed", type=int, default=1, help="of the shuffled order")
    parser.add_argument(
        "--dir",
        type=pathlib.Path,
        default=BUILD,
        help="the folder whose file system is measured (default %(default)s)",
    )


@contextlib.contextmanager
def settings(args: argparse.Namespace) -> Iterator[Callable[[], Setting]]:
    """Makes the setting of each bench of one command; they share a daemon."""
    # one that is told to end takes its daemon and its guests along
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    args.dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        daemon = hosts.lazy_daemon(stack)

        def make() -> Setting:
            work = stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=args.dir))
            runs = args.runs or (1 if args.quick else 5)
            folder = pathlib.Path(work).resolve()
            return Setting(folder, args.quick, args.scale, runs, random.Random(args.seed), daemon)

        yield make


def run(kind: type[Bench], setting: Setting, seed: int) -> dict[str, object]:
    """Measure one bench, and return its report."""
    bench = kind(setting)
    try:
        bench.prepare()
        return report(bench, measure(bench), seed)
    finally:
        bench.close()


def main(kind: type[Bench], argv: list[str] | None = None) -> int:
    """The command of one bench."""
    parser = argparse.ArgumentParser(
        prog=f"bench/{kind.name}.py",
        description=kind.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument("--json", type=pathlib.Path, help="write the results to this file, too")
    args = parser.parse_args(argv)
    with settings(args) as make:
        found = run(kind, make(), args.seed)
    print(tables.as_text(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0
