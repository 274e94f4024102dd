#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Make or refresh the virtual environment, with virmirror installed for editing.
# Usage: tools/setup-venv.sh DIRECTORY [EXTRAS]
# The interpreter is $PYTHON, or else the first suitable one that is found.
set -euo pipefail

venv=$1
extras=${2:+[$2]}

# Python >= 3.11 with what is needed to make an environment and to compile
is_suitable() {
    "$1" - 2>/dev/null <<'CHECK'
import os, sys, sysconfig
import ensurepip, venv
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(not (sys.version_info >= (3, 11) and os.path.exists(header)))
CHECK
}

find_python() {
    local name
    for name in python3 /usr/bin/python3 python3.1{1,2,3,4,5}; do
        if command -v "$name" >/dev/null && is_suitable "$name"; then
            command -v "$name"
            return
        fi
    done
    echo "$0: no Python >= 3.11 with venv and headers found (packages python3-venv," \
        "python3-dev); name one: make PYTHON=/path/to/python3" >&2
    return 1
}

if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    python=${PYTHON:-$(find_python)}
    echo "making $venv with $python"
    "$python" -m venv --clear "$venv"
fi

# The extension is built by the Makefile, which does it again when a source
# changes; a compiler's message is easier to read there, too.
VIRMIRROR_NO_EXTENSION=1 "$venv/bin/python" -m pip install --quiet \
    'setuptools>=77' --editable ".$extras"
