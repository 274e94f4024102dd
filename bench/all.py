# SPDX-License-Identifier: LGPL-2.1-or-later
"""All benches, one after another; they share a libvirtd."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

import harness
import tables
from collapse import Collapse
from control import Control
from copying import Copying
from fleet import Fleet
from guest import Guest
from pause import Pause
from proof import Proof
from supervise import Supervise

BENCHES = (Copying, Guest, Control, Fleet, Supervise, Pause, Proof, Collapse)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench/all.py", description=__doc__)
    harness.add_arguments(parser)
    parser.add_argument("--json", type=pathlib.Path, help="the folder for one file of each bench")
    args = parser.parse_args(argv)
    if args.json:
        args.json.mkdir(parents=True, exist_ok=True)
    with harness.settings(args) as make:
        for kind in BENCHES:
            found = harness.run(kind, make(), args.seed)
            print(tables.as_text(found), flush=True)
            if args.json:
                path = args.json / f"{kind.name}.json"
                path.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
