#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The heart of the Python tests in valgrind's memcheck. valgrind knows the
# system's Python only (its suppressions come with the package), so this makes an
# environment with that one. Usage: valgrind.sh [ARGUMENT OF PYTEST...]
# Only errors with a function of ours in their stack count.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=/usr/bin/python3
suppressions=/usr/lib/valgrind/python3.supp
venv=build/valgrind/venv
log=build/valgrind/log
if [ $# -eq 0 ]; then
    set -- tests/unit/test_args.py tests/unit/test_errors.py tests/unit/test_functions.py \
        tests/unit/test_mirror_snapshot.py -k "not wait_ready and not interrupt"
fi

mkdir -p build/valgrind
if [ ! -e "$venv/valgrind.stamp" ]; then
    PYTHON=$python tools/setup-venv.sh "$venv" test
    touch "$venv/valgrind.stamp"
fi

# Proof that it is live: the canary's bugs, in a build without sanitizers.
read -ra glib <<<"$(pkg-config --cflags --libs glib-2.0)"
include=$($python -c 'import sysconfig; print(sysconfig.get_path("include"))')
gcc -std=gnu11 -g -O1 -shared -fPIC "-I$include" -o build/valgrind/vmr_canary.so \
    tests/sanitize/canary.c "${glib[@]}"

memcheck() {
    rm -f "$log".*
    PYTHONMALLOC=malloc G_SLICE=always-malloc G_DEBUG=fatal-warnings \
        PYTHONPATH=build/valgrind valgrind --quiet --error-exitcode=0 --num-callers=40 \
        --suppressions="$suppressions" --log-file="$log.%p" "$venv/bin/python" "$@"
}

# The errors in which our code has a part: a paragraph each in the logs.
ours() {
    sed 's/^==[0-9]*== *//' "$log".* | awk -v RS= '/_core\.abi3\.so|\/ext\/|canary/'
}

for call in "overflow('canary')" "use_after_free()"; do
    memcheck -c "import vmr_canary; vmr_canary.$call"
    if ! ours | grep -q 'Invalid read of size 1'; then
        echo "canary $call: not found" >&2
        exit 1
    fi
    echo "canary $call: found"
done

status=0
memcheck -m pytest -q -p no:cacheprovider -o faulthandler_timeout=0 "$@" || status=$?
if [ -n "$(ours)" ]; then
    ours
    echo "valgrind: errors in our code" >&2
    exit 1
fi
echo "valgrind: no error with our code in its stack"
exit $status
