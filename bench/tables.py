# SPDX-License-Identifier: LGPL-2.1-or-later
"""Results as tables: as text, and in the documentation.

    bench/tables.py build/bench/*.json                     text
    bench/tables.py --rst build/bench/*.json               reStructuredText
    bench/tables.py --into docs/explanation/performance.rst build/bench/*.json

The last one replaces what stands between ``.. figures: NAME`` and
``.. figures end`` by the figures of the bench of that name.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

Report = dict[str, Any]
Row = list[str]

END = ".. figures end"


def number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def head(report: Report) -> Row:
    headings = ["case"] if has_cases(report) else []
    headings.append("contender")
    for column in report["columns"]:
        headings.append(column["heading"])
        if column["ratio"]:
            headings.append(f"x {report['reference']}")
    return headings


def has_cases(report: Report) -> bool:
    return any(result["case"] for result in report["results"])


def rows(report: Report) -> Iterator[Row]:
    """The medians; a value that a contender does not have is a dash."""
    medians = {(r["case"], r["contender"]): r["median"] for r in report["results"]}
    for (case, contender), median in medians.items():
        row = [case] if has_cases(report) else []
        row.append(contender)
        base = medians.get((case, report["reference"]), {})
        for column in report["columns"]:
            value, other = median.get(column["key"]), base.get(column["key"])
            row.append("-" if value is None else number(value, column["digits"]))
            if column["ratio"]:
                row.append(number(value / other, 2) if value is not None and other else "-")
        yield row


def target_rows(report: Report) -> Iterator[Row]:
    for target in report["targets"]:
        word = "at least" if target["at_least"] else "at most"
        yield [
            target["text"],
            f"{word} {target['limit']:.4g}",
            f"{target['measured']:.4g}",
            "yes" if target["reached"] else "NO",
        ]


TARGET_HEAD = ["to reach", "limit", "measured", "reached"]


def conditions(report: Report) -> list[str]:
    """What a reader has to know besides the figures."""
    rounds = report["rounds"]
    how = f"medians of {rounds} rounds" if rounds > 1 else "one round"
    quick = "; a quick run, whose figures say nothing" if report["quick"] else ""
    scale = "" if report["scale"] == 1 else f", images of {report['scale']:g} of the size"
    machine = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    return [
        *report["notes"],
        f"{report['when']}, {how} in shuffled order (seed {report['seed']}){scale}{quick}",
        machine,
    ]


def text_table(heading: Row, body: list[Row]) -> str:
    """Columns of text; the first ones to the left, figures to the right."""
    widths = [max(len(row[i]) for row in [heading, *body]) for i in range(len(heading))]
    lines = []
    for row in [heading, *body]:
        cells = [
            cell.rjust(width) if _is_figure(body, i) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _is_figure(body: list[Row], column: int) -> bool:
    return all(re.fullmatch(r"[-\d.,]+", row[column]) for row in body)


def as_text(report: Report) -> str:
    parts = [
        f"{report['bench']}: {report['title']}",
        "\n".join(f"  {line}" for line in conditions(report)),
        text_table(head(report), list(rows(report))),
        text_table(TARGET_HEAD, list(target_rows(report))),
    ]
    return "\n\n".join(parts) + "\n"


def rst_table(heading: Row, body: list[Row]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [heading, *body]:
        for i, cell in enumerate(row):
            lines.append(f"   {'* -' if i == 0 else '  -'} {cell}".rstrip())
    return "\n".join(lines)


def as_rst(report: Report) -> str:
    parts = [
        rst_table(head(report), list(rows(report))),
        rst_table(TARGET_HEAD, list(target_rows(report))),
        "\n".join(f"- {line}" for line in conditions(report)),
    ]
    return "\n\n".join(parts) + "\n"


def replace_figures(document: str, reports: list[Report]) -> str:
    """The document with the figures of these reports; each must have its place there."""
    for report in reports:
        start = f".. figures: {report['bench']}"
        pattern = rf"(?ms)^{re.escape(start)}\n.*?^{re.escape(END)}$"
        if len(re.findall(pattern, document)) != 1:
            raise ValueError(f"there must be one '{start}' ... '{END}'")
        block = f"{start}\n\n{as_rst(report)}\n{END}"
        document = re.sub(pattern, block.replace("\\", r"\\"), document)
    return document


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench/tables.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reports", nargs="+", type=pathlib.Path, metavar="JSON")
    parser.add_argument("--rst", action="store_true", help="reStructuredText instead of text")
    parser.add_argument("--into", type=pathlib.Path, metavar="DOCUMENT", help="see above")
    args = parser.parse_args(argv)
    reports = [json.loads(path.read_text()) for path in args.reports]
    if args.into:
        args.into.write_text(replace_figures(args.into.read_text(), reports))
        return 0
    for report in reports:
        print(as_rst(report) if args.rst else as_text(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
