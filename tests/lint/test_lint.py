# SPDX-License-Identifier: LGPL-2.1-or-later
"""The project's rules, checked over the whole tree.

A rule is a function that takes a path (relative to the root) and the file's
text and yields the complaints. Each stands in a table together with the files
it is for, a sample that it must complain about and one that it must not.
"""

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
THIS_FILE = "tests/lint/test_lint.py"
MAX_LINES = 600  # the aim is 500

# ---- what is in the tree ---------------------------------------------------


def tracked_or_new_files():
    """Return the files that git knows or would add, or None outside of a checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return [name for name in output.split("\0") if name]


def walked_files():
    """Return all files below the root, but for what is built."""
    skipped = {".git", ".venv", "build", "dist", "__pycache__", ".hypothesis"}
    names = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name not in skipped and not name.endswith(("_cache", ".egg-info"))
        ]
        names += [str((Path(folder) / name).relative_to(ROOT)) for name in files]
    return [name for name in names if not name.endswith((".so", ".pyc"))]


def tree_files():
    """Return the paths of all files of the project, relative to its root."""
    names = tracked_or_new_files()
    if names is None:
        names = walked_files()
    return sorted(name for name in set(names) if (ROOT / name).is_file())


FILES = tree_files()
TEXTS: dict[str, str] = {}


def text_of(name):
    """Return a file's text; bytes that are not UTF-8 do no harm."""
    if name not in TEXTS:
        TEXTS[name] = (ROOT / name).read_bytes().decode(errors="replace")
    return TEXTS[name]


# ---- reading C -------------------------------------------------------------

C_COMMENT_OR_STRING = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL
)


def blank(match):
    """Return only the newlines of what was matched, and a string's quotes."""
    found = match[0]
    if found[0] in "\"'":
        return found[0] * 2
    return "\n" * found.count("\n") or " "


def code_only(text):
    """Return C text without comments and string contents; line numbers stay."""
    return C_COMMENT_OR_STRING.sub(blank, text)


def find_in_code(pattern, text):
    """Yield line number and match of a pattern in C code."""
    for number, line in enumerate(code_only(text).split("\n"), 1):
        for match in re.finditer(pattern, line):
            yield number, match[0].strip().rstrip("(").rstrip()


# ---- the rules -------------------------------------------------------------


def no_python_in_core(path, text):
    """The engine knows nothing of Python."""
    includes = r'^\s*#\s*include\s*[<"]Python\.h'
    for number, line in enumerate(text.split("\n"), 1):
        if re.search(includes, line):
            yield number, "Python.h"
    for number, name in find_in_code(r"\b_?Py(?:_[A-Za-z]\w*|[A-Z]\w*_\w+|Object)\b", text):
        yield number, name


def last_error_only_in_error_c(path, text):
    """libvirt's thread-local error is read in one place."""
    if path != "ext/core/error.c":
        names = r"\bvir(?:ConnGetLast|ConnCopyLast|Get|Save|Reset|Copy|SetLast)\w*Error\w*\b"
        for number, name in find_in_code(names, text):
            if "Last" in name:
                yield number, name


def jobs_are_ended_in_blockjob_c(path, text):
    """Some ways to end a block job crash libvirt: one place knows which."""
    if not path.startswith(("ext/core/blockjob.", "ext/core/hv.")):
        yield from find_in_code(r"\bvmr_hv_block_job_abort\b", text)


def no_process_level_calls(path, text):
    """A library neither ends the process, nor prints, nor runs a shell."""
    names = (
        "exit _exit _Exit quick_exit abort printf vprintf fprintf vfprintf dprintf puts fputs "
        "perror system popen g_print g_printerr g_error"
    )
    pattern = rf"(?<![\w.>])(?:{'|'.join(names.split())})\s*\("
    yield from find_in_code(pattern, text)


def libvirt_calls_in_their_files(path, text):
    """libvirt is called through the ops table, so that a test can take its place."""
    if path in ("ext/core/hv_libvirt.c", "ext/core/evloop.c", "ext/core/error.c"):
        return
    # "virDomainPtr (*lookup)(...)" declares a pointer and calls nothing
    yield from find_in_code(r"\bvir[A-Z]\w*(?<!Ptr)\s*\((?!\s*\*)", text)


def libvirt_references_in_one_file(path, text):
    """References to libvirt's objects are counted behind the ops table, too."""
    if path != "ext/core/hv_libvirt.c":
        yield from find_in_code(r"\bvir(?:[A-Z][a-z]+)+?(?:Ref|Free)\b", text)


def has_spdx_line(path, text):
    """Every file says its licence near the top."""
    if not any("SPDX-License-Identifier:" in line for line in text.split("\n")[:5]):
        yield 1, "no SPDX-License-Identifier line among the first five"


def has_pragma_once(path, text):
    """Headers have no hand-made guards."""
    if not re.search(r"^#pragma once$", text, re.MULTILINE):
        yield 1, "no #pragma once"


def no_leftover_notes(path, text):
    """What is left to do stands in the tracker."""
    for number, line in enumerate(text.split("\n"), 1):
        if match := re.search(r"\b(TOD[O]|FIXM[E]|XX[X])\b", line):
            yield number, match[0]


def not_too_long(path, text):
    """A file has one subject."""
    lines = text.count("\n")
    if lines > MAX_LINES:
        yield lines, f"longer than {MAX_LINES} lines"


def header_functions_have_comments(path, text):
    """A comment directly above says what a function does and who owns what."""
    comment_ends = comment_end_lines(text)
    for number, statement in header_statements(text):
        is_function = re.match(r"(?!typedef|static|struct|enum|union)[^=(]*?(\w+)\s*\(", statement)
        # g_autoptr clean-ups and the like: macros, in upper case
        if is_function and not is_function[1].isupper() and number - 1 not in comment_ends:
            yield number, f"no comment directly above {is_function[1]}()"


def comment_end_lines(text):
    """Return the numbers of the lines where a comment ends."""
    return {
        text.count("\n", 0, match.end()) + 1
        for match in C_COMMENT_OR_STRING.finditer(text)
        if match[0].startswith("/")
    }


def header_statements(text):
    """Yield the first line's number and the text of each statement at file level."""
    code = re.sub(r"^[ \t]*#(?:.*\\\n)*.*$", keep_newlines, code_only(text), flags=re.MULTILINE)
    code = re.sub(r"^\s*G_(?:BEGIN|END)_DECLS\s*$", keep_newlines, code, flags=re.MULTILINE)
    depth, start, current = 0, 1, ""
    line = 1
    for char in code:
        if not current.strip():
            current, start = "", line
        current += char
        line += char == "\n"
        depth += (char == "{") - (char == "}")
        ends = char == ";" or (char == "}" and "(" in current.split("{")[0])
        if depth == 0 and ends:
            yield start, current.strip()
            current = ""


def keep_newlines(match):
    """Return only the newlines of what was matched."""
    return "\n" * match[0].count("\n")


def stands_alone(path, text):
    """Nothing refers to what is beside the checkout or to a tracker that others cannot see."""
    outside = re.compile(r"\.\./shar[e]d\b")
    # of #123 and the like only what cannot be a colour
    reference = re.compile(r"\b(?:issue|ticket)s? #?\d+\b|(?<![\w&])#\d\d?\b", re.IGNORECASE)
    for number, line in enumerate(text.split("\n"), 1):
        for pattern in (outside, reference):
            if match := pattern.search(line):
                yield number, match[0]


def leaves_the_package_index_to_the_user(path, text):
    """Which index or mirror serves the packages is the user's setting."""
    options = r"--(?:extra-)?index-ur[l]|--find-link[s]|\bPIP_\w*(?:INDEX_UR[L]|FIND_LINK[S])"
    for number, line in enumerate(text.split("\n"), 1):
        if match := re.search(options, line):
            yield number, match[0]


# ---- which rule is for which files -----------------------------------------

WITHOUT_COMMENTS = {".json", ".ipynb", ".png", ".svg", ".xml", ".qcow2", ".raw", ".typed", ".txt"}


def is_c_of_core(path):
    return path.startswith("ext/core/") and path.endswith((".c", ".h"))


def is_c_of_extension(path):
    return path.startswith("ext/") and path.endswith((".c", ".h"))


def is_core_header(path):
    return path.startswith("ext/core/") and path.endswith(".h")


def is_header(path):
    return path.endswith(".h")


def is_project_text(path):
    return path != "LICENSE" and PurePosixPath(path).suffix not in {".png", ".qcow2", ".raw"}


def can_have_spdx(path):
    """Test data is compared byte by byte, and some formats have no comments."""
    has_comments = PurePosixPath(path).suffix not in WITHOUT_COMMENTS
    return is_project_text(path) and has_comments and not path.startswith("tests/data/")


class Rule(NamedTuple):
    """A rule, the files it is for, and for each sample whether it is wrong."""

    check: Callable[[str, str], Iterator[tuple[int, str]]]
    applies: Callable[[str], bool]
    bad: list[str]
    good: list[str]
    sample_path: str = "ext/core/sample.c"


PROTOTYPE = (
    "GString *\nvmr_thing_format(const VmrThing *thing,\n                 GError **error);\n"
)
RULES = [
    Rule(
        no_python_in_core,
        is_c_of_core,
        ["#include <Python.h>\n", "PyObject *o;\n", "Py_INCREF(o);\n", "PyErr_SetNone(e);\n"],
        ["/* PyObject */\n", "int Pyramid;\n", '"Py_None"\n'],
    ),
    Rule(
        last_error_only_in_error_c,
        is_c_of_extension,
        [
            "e = virGetLastError();\n",
            "e = virSaveLastError();\n",
            "virResetLastError();\n",
            "virGetLastErrorMessage();\n",
        ],
        ["virErrorPtr e;\n", "// virGetLastError()\n", "virFreeError(e);\n"],
    ),
    Rule(
        jobs_are_ended_in_blockjob_c,
        is_c_of_extension,
        ["vmr_hv_block_job_abort(dom, disk, 0, wait, error);\n"],
        ["vmr_blockjob_end(dom, disk, 0, wait, error);\n"],
    ),
    Rule(
        no_process_level_calls,
        is_c_of_core,
        [
            "exit(1);\n",
            "  abort ();\n",
            'printf("x");\n',
            'fprintf(stderr, "x");\n',
            'system("x");\n',
            'f = popen("x", "r");\n',
            "(void)abort();\n",
            'g_error("x");\n',
        ],
        [
            "vmr_mirror_abort(mirror);\n",
            'g_strdup_printf("x");\n',
            "g_string_append_printf(s);\n",
            "g_error_free(error);\n",
            "self->ops->abort(self);\n",
            "ops.system(x);\n",
            "gboolean (*abort)(int);\n",
            "/* exit(1) */\n",
        ],
    ),
    Rule(
        libvirt_calls_in_their_files,
        is_c_of_core,
        ["virDomainGetInfo(dom, &info);\n", "x = virDomainGetXMLDesc (dom, 0);\n"],
        [
            "flags = VIR_DOMAIN_BLOCK_COPY_SHALLOW;\n",
            "virDomainPtr dom;\n",
            "virDomainPtr (*lookup)(int);\n",
            "g_autoptr(virDomain) dom = NULL;\n",
            "hv->domain_get_info(dom);\n",
        ],
    ),
    Rule(
        libvirt_references_in_one_file,
        is_c_of_core,
        [
            "virDomainRef(dom);\n",
            "G_DEFINE_AUTOPTR_CLEANUP_FUNC(virDomain, virDomainFree)\n",
            "g_clear_pointer(&s, virDomainSnapshotFree);\n",
        ],
        ["virFreeCallback opaque;\n", "hv->domain_free(dom);\n"],
    ),
    Rule(
        has_spdx_line,
        can_have_spdx,
        ["int x;\n"],
        ["/* SPDX-License-Identifier: LGPL-2.1-or-later */\n"],
    ),
    Rule(has_pragma_once, is_header, ["#ifndef A_H\n"], ["/* x */\n#pragma once\n"]),
    Rule(
        no_leftover_notes,
        is_project_text,
        ["/* TO" + "DO: x */\n", "# FIX" + "ME\n", "XX" + "X\n"],
        ["mkstemp(nameXXXXXX)\n"],
    ),
    Rule(not_too_long, is_c_of_extension, ["\n" * 601], ["\n" * 600]),
    Rule(
        header_functions_have_comments,
        is_core_header,
        [PROTOTYPE, "/* Formats. */\n\n" + PROTOTYPE, "/* A. */\nint a(void);\nint b(void);\n"],
        [
            "/* Formats. */\n" + PROTOTYPE,
            "// Formats.\n" + PROTOTYPE,
            "#define A(x) \\\n  f(x)\nG_BEGIN_DECLS\n\n/* A. */\nint a(void);\nG_END_DECLS\n",
            "typedef gboolean (*VmrFunc)(int a);\n",
            "struct VmrHv {\n    int (*lookup)(int);\n};\n",
            "static inline int\nf(int a)\n{\n    return a;\n}\n",
            "G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrThing, vmr_thing_free)\n/* A. */\nint a(void);\n",
        ],
    ),
    Rule(
        stands_alone,
        is_project_text,
        ["see .." + "/shared/notes\n", "issue" + " 12\n", "see " + "#" + "7\n"],
        [
            "mirror=../shareable/x\n",
            "#define X 1\n",
            "&#10;\n",
            "color: #00ff00\n",
            "color: #333\n",
        ],
    ),
    Rule(
        leaves_the_package_index_to_the_user,
        is_project_text,
        ["pip install --index-" + "url=x\n", "PIP_INDEX_" + "URL=x\n"],
        ["pip install x\n"],
    ),
]


def rule_name(rule):
    return rule.check.__name__


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_rule_holds_in_the_tree(rule):
    complaints = [
        f"{name}:{number}: {complaint}"
        for name in filter(rule.applies, FILES)
        for number, complaint in rule.check(name, text_of(name))
    ]
    if complaints:
        reason = (rule.check.__doc__ or "").strip()
        pytest.fail("\n".join([reason, *complaints]), pytrace=False)


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_rule_complains_about_bad_samples_only(rule):
    for sample in rule.bad:
        assert list(rule.check(rule.sample_path, sample)), f"accepted: {sample!r}"
    for sample in rule.good:
        assert not list(rule.check(rule.sample_path, sample)), f"refused: {sample!r}"


# ---- tools -----------------------------------------------------------------


def run_tool(*command):
    """Run a tool at the root; its output is the failure."""
    result = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    if result.returncode != 0:
        pytest.fail(f"{' '.join(command[:6])} ...:\n{result.stdout}", pytrace=False)


def test_ruff_check():
    run_tool(sys.executable, "-m", "ruff", "check", "--quiet", ".")


def test_ruff_format():
    run_tool(sys.executable, "-m", "ruff", "format", "--check", "--quiet", "--diff", ".")


def test_mypy():
    run_tool(sys.executable, "-m", "mypy")


def test_stubs_match_the_extension(tmp_path):
    """By the Python that runs, whose classes have more than those of the oldest one."""
    config = tmp_path / "mypy.ini"
    config.write_text(
        "[mypy]\nmypy_path = python\n[mypy-libvirt.*]\nignore_missing_imports = True\n"
    )
    modules = ["virmirror._core", "virmirror.errors"]
    run_tool(sys.executable, "-m", "mypy.stubtest", *modules, "--mypy-config-file", str(config))


def pkg_config_cflags():
    command = ["pkg-config", "--cflags", "libvirt", "glib-2.0", "libxml-2.0"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_clang_has_no_complaint():
    """A second compiler sees other things than gcc does."""
    folders = ("ext/core/", "ext/binding/", "tests/c/", "bench/")
    sources = [name for name in FILES if name.endswith(".c") and name.startswith(folders)]
    warnings = "all extra error shadow strict-prototypes missing-prototypes"
    run_tool(
        "clang",
        "-fsyntax-only",
        "-std=gnu11",
        *(f"-W{name}" for name in warnings.split()),
        # {NULL} ends CPython's and GLib's tables
        "-Wno-missing-field-initializers",
        *("-Iext/core", "-Iext/binding", "-Itests/c"),
        *("-isystem", sysconfig.get_path("include")),
        "-DPy_LIMITED_API=0x030B0000",
        '-DVMR_TEST_DATA_DIR="tests/data"',
        *pkg_config_cflags(),
        *sources,
    )
