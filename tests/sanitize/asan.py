#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run Python tests with an extension that has AddressSanitizer and UBSan in it.

    asan.py                  the canaries, then tests/unit
    asan.py --canary         only the canaries: bugs that must be reported
    asan.py -- ARGUMENT...   the canaries, then pytest with these arguments

The sanitized build is in build/asan, apart from the one in place. The
sanitizers write their reports to files, for tests may keep what is written to
stderr; afterwards there must be none. Leaks of CPython itself do not count: with
each version it frees less at its end.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "asan"
LIBRARY = BUILD / "lib"
REPORTS = BUILD / "reports"
SANITIZE = "address,undefined"
# Left out are the tests that run programs of others (qemu-img, as), which would
# inherit the sanitizers and cannot live with them; the extension is not used there.
TESTS = ["tests/unit", "--ignore=tests/unit/test_testguest.py"]
TIMEOUT = 1200  # seconds, for all the tests

# call -> what the report must say
CANARIES = {
    "overflow('canary')": "heap-buffer-overflow",
    "use_after_free()": "heap-use-after-free",
    "undefined(2**31 - 1)": "signed integer overflow",
    "leak()": "Direct leak of 4321 byte(s)",
}

LEAK = re.compile(r"^(?:Direct|Indirect) leak of .*(?:\n *#\d+ .*)*\n?", re.MULTILINE)
# CPython has allocated it: the frame next to malloc is one of the interpreter
PYTHONS = re.compile(
    r"^ *[#]1 .*(?:/(?:lib)?python3[\w.]*(?:\+0x|\))"
    r"| (?:Objects|Python|Parser|Modules)/[\w/]+\.[ch]:)",
    re.MULTILINE,
)
# a frame of the extension, or of that of bugs, by its source or by its file. Of a stack
# through a library without frame pointers, as GLib is, the one next to that is lost.
OURS = re.compile(
    r"^ *#\d+ .*(?:\bext/(?:core|binding)/[\w/]+\.c:|/canary\.c:"
    r"|/_core\.[\w.-]*so|/vmr_canary\.so)",
    re.MULTILINE,
)


def run(*command, **options):
    """Run a command that must succeed."""
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, timeout=600, **options)


def sources():
    """Return what the extension is built from."""
    return [*ROOT.glob("ext/*/*.[ch]"), ROOT / "setup.py"]


def build_extension():
    """Build virmirror, sanitized, into a copy of the package."""
    shutil.copytree(
        ROOT / "python" / "virmirror",
        LIBRARY / "virmirror",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
        dirs_exist_ok=True,
    )
    built = list((LIBRARY / "virmirror").glob("_core*.so"))
    newest = max(path.stat().st_mtime for path in sources())
    if built and built[0].stat().st_mtime > newest:
        return
    folders = ["--build-lib", LIBRARY, "--build-temp", BUILD / "temp"]
    environment = os.environ | {"VIRMIRROR_SANITIZE": SANITIZE}
    setup = [sys.executable, "setup.py", "-q", "build_ext", "--force", *folders]
    run(*setup, "-j2", env=environment)


def build_canary():
    """Build the extension of bugs in the same way."""
    flags = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Wno-missing-field-initializers"]
    glib = subprocess.check_output(["pkg-config", "--cflags", "--libs", "glib-2.0"], text=True)
    include = f"-I{sysconfig.get_path('include')}"
    target = LIBRARY / "vmr_canary.so"
    source = HERE / "canary.c"
    shared = ["-shared", "-fPIC", f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer"]
    run("gcc", *flags, *shared, include, "-o", target, source, *glib.split())


def environment(reports):
    """Return the environment that loads the sanitizers into a Python without them."""
    asan = subprocess.check_output(["gcc", "-print-file-name=libasan.so"], text=True).strip()
    common = f"log_path={reports}/report:abort_on_error=0"
    return os.environ | {
        # libvirt too, so that its thread-local variables, and those of what it uses, lie
        # in the static block: LeakSanitizer guesses where dynamic ones are, by their
        # place in a page, and crashes where they chance to lie at its 16th byte
        "LD_PRELOAD": f"{Path(asan).resolve()} libvirt.so.0",
        "PYTHONPATH": str(LIBRARY),
        # Python's and GLib's own allocators would hide who used what
        "PYTHONMALLOC": "malloc",
        "G_SLICE": "always-malloc",
        "G_DEBUG": "fatal-warnings",
        "ASAN_OPTIONS": f"detect_leaks=1:detect_stack_use_after_return=1:exitcode=99:{common}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:halt_on_error=1:exitcode=99:{common}",
        # leaks are judged afterwards
        "LSAN_OPTIONS": f"exitcode=0:print_suppressions=0:suppressions={HERE / 'lsan.supp'}",
    }


def fresh_reports():
    """Return the folder of the reports, empty."""
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    return REPORTS


def without_pythons_leaks(report):
    """Return the report without what CPython leaks where we have no part in it."""
    if "LeakSanitizer" not in report:
        return report
    ours = [leak for leak in LEAK.findall(report) if OURS.search(leak) or not PYTHONS.search(leak)]
    rest = "".join(LEAK.split(report))
    # another error may stand beside the leaks
    errors = [line for line in rest.splitlines() if "ERROR: " in line]
    return "\n".join(ours + [line for line in errors if "LeakSanitizer: detected" not in line])


def read_reports():
    """Return what the sanitizers have reported of our code."""
    reports = (path.read_text(errors="replace") for path in sorted(REPORTS.iterdir()))
    return "\n".join(filter(None, map(without_pythons_leaks, reports)))


def check_canaries():
    """Return whether each bug is reported, and none where there is none."""
    good = True
    calls = {"__name__": ""} | CANARIES
    for call, expected in calls.items():
        program = f"import vmr_canary, virmirror; vmr_canary.{call}"
        reports = fresh_reports()
        command = [sys.executable, "-c", program]
        result = subprocess.run(
            command, env=environment(reports), capture_output=True, text=True, timeout=120
        )
        # UBSan writes to stderr, whatever it is told
        text = read_reports() + result.stderr
        found = (expected in text) if expected else (text == "" and result.returncode == 0)
        good = good and found
        print(f"canary {call}: {'as expected' if found else 'NOT as expected'}", flush=True)
        if not found:
            print(f"status {result.returncode}\n{result.stdout}{text}")
    return good


def check_tests(arguments):
    """Return whether the tests pass and nothing was reported."""
    reports = fresh_reports()
    # what UBSan writes to stderr must come through
    options = ["-q", "-p", "no:cacheprovider", "--capture=sys"]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment(reports), timeout=TIMEOUT)
    text = read_reports()
    if text:
        print(text)
    print(f"sanitizers: {'something' if text else 'nothing'} reported", flush=True)
    return result.returncode == 0 and not text


def main():
    """Build, check that the sanitizers work, use them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--canary", action="store_true", help="only the canaries")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="for pytest")
    options = parser.parse_args()
    LIBRARY.mkdir(parents=True, exist_ok=True)
    build_extension()
    build_canary()
    if not check_canaries():
        return 1
    if options.canary:
        return 0
    return 0 if check_tests(options.arguments or TESTS) else 1


if __name__ == "__main__":
    sys.exit(main())
