# SPDX-License-Identifier: LGPL-2.1-or-later
"""Build of the C extension ``virmirror._core``; all other metadata is in pyproject.toml.

Environment variables read here:

``VIRMIRROR_WERROR=1``
    turn compiler warnings into errors
``VIRMIRROR_SANITIZE=address,undefined``
    value for the compiler's ``-fsanitize=``
``VIRMIRROR_NO_EXTENSION=1``
    leave the extension out; the Makefile sets up its editable install this way
    and then builds the extension itself
"""

import os
import shlex
import shutil
import subprocess
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# pkg-config name and the oldest version that will do
LIBRARIES = {
    "libvirt": "6.2",
    "glib-2.0": "2.68",
    "libxml-2.0": "2.9",
    "liburing": "2.1",
    "libxxhash": "0.8",
}

INSTALL_HINT = """\
  Debian, Ubuntu:  apt-get install gcc pkg-config python3-dev libvirt-dev libglib2.0-dev \
libxml2-dev liburing-dev libxxhash-dev
  Fedora, RHEL:    dnf install gcc pkgconf-pkg-config python3-devel libvirt-devel glib2-devel \
libxml2-devel liburing-devel xxhash-devel"""

MACROS = [
    ("Py_LIMITED_API", "0x030B0000"),
    # a function that came after our oldest GLib is a deprecation warning
    ("GLIB_VERSION_MIN_REQUIRED", "GLIB_VERSION_2_68"),
    ("GLIB_VERSION_MAX_ALLOWED", "GLIB_VERSION_2_68"),
]

CFLAGS = [
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    # libvirt exports private symbols that link but must not be called
    "-Werror=implicit-function-declaration",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-fvisibility=hidden",
]


def fail(problem):
    """End the build with one explanation instead of a traceback."""
    raise SystemExit(f"virmirror: cannot build the C extension: {problem}\n{INSTALL_HINT}")


def pkg_config():
    """Return the command of pkg-config as a list."""
    command = shlex.split(os.environ.get("PKG_CONFIG", "pkg-config"))
    if not command or shutil.which(command[0]) is None:
        fail(f"'{' '.join(command) or 'pkg-config'}' is not installed")
    return command


def library_flags():
    """Check every library; return the compiler's and the linker's arguments for them."""
    command = pkg_config()
    for name, minimum in LIBRARIES.items():
        query = subprocess.run(
            [*command, "--modversion", name], capture_output=True, text=True, check=False
        )
        if query.returncode != 0:
            fail(f"'{name}' >= {minimum} was not found by pkg-config")
        check = subprocess.run([*command, f"--atleast-version={minimum}", name], check=False)
        if check.returncode != 0:
            fail(f"'{name}' is {query.stdout.strip()}, but {minimum} or newer is needed")

    def ask(option):
        output = subprocess.check_output([*command, option, *LIBRARIES], text=True)
        return shlex.split(output)

    return ask("--cflags"), ask("--libs")


class BuildExtension(build_ext):
    """build_ext that looks for the libraries only when it is about to compile."""

    def build_extension(self, ext):
        """Add the flags that depend on this machine and on the environment."""
        compile_flags, link_flags = library_flags()
        ext.extra_compile_args += compile_flags
        ext.extra_link_args += link_flags
        if os.environ.get("VIRMIRROR_WERROR") == "1":
            ext.extra_compile_args.append("-Werror")
        if sanitizers := os.environ.get("VIRMIRROR_SANITIZE"):
            flags = [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g"]
            ext.extra_compile_args += flags
            ext.extra_link_args += flags
        super().build_extension(ext)


def extensions():
    """Return the one extension, or nothing when the environment says so."""
    if os.environ.get("VIRMIRROR_NO_EXTENSION") == "1":
        return []
    return [
        Extension(
            "virmirror._core",
            sources=sorted(glob("ext/core/*.c") + glob("ext/binding/*.c")),
            depends=sorted(glob("ext/*/*.h")),
            include_dirs=["ext/core", "ext/binding"],
            define_macros=MACROS,
            extra_compile_args=list(CFLAGS),
            py_limited_api=True,
        )
    ]


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
