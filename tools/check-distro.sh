#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Run the demo and the tests on another release of Debian, in a tree of its own.
# Usage: tools/check-distro.sh [--keep FOLDER] SUITE [NAME=COMMAND...]
#
# SUITE is what debootstrap calls it: bookworm, trixie, sid. What is committed here is
# tested, as by somebody who has just cloned it, as root. Without commands that is "make
# demo" and "make test"; each ends in a line that says how it went. The tree is made anew
# in a temporary folder and removed again, or is FOLDER and stays, to be used once more.
# Needed: root, debootstrap, and an apt that is set up for Debian, whose mirror is used.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
keep=
if [ "${1:-}" = --keep ]; then
    keep=${2:?the folder}
    shift 2
fi
suite=${1:?usage: $0 [--keep FOLDER] SUITE [NAME=COMMAND...]}
shift
if [ $# -eq 0 ]; then
    set -- "demo=make demo" "tests=make test"
fi
tree=${keep:-$(mktemp -d "/var/tmp/virmirror-$suite.XXXXXX")}
logs=$here/build/distro/$suite
mkdir -p "$tree" "$logs"

# The mirror that apt uses here serves the other releases, too.
mirror() {
    apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 2>/dev/null |
        awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }'
}

make_tree() {
    local uri
    if [ -e "$tree/etc/debian_version" ]; then
        return
    fi
    uri=$(mirror)
    if [ -z "$uri" ]; then
        echo "$0: apt knows no mirror of Debian; run \"apt-get update\" first" >&2
        return 1
    fi
    debootstrap --variant=minbase "$suite" "$tree" "$uri" || return
    # there is no init system: nothing may be started by an installation
    printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
    chmod 755 "$tree/usr/sbin/policy-rc.d"
}

# What pip is set up with on this machine: its files, and the folders that they name.
pip_paths() {
    local word
    printf '%s\n' /etc/pip.conf /etc/xdg/pip
    for word in $(pip config list 2>/dev/null | tr "='" '  '); do
        case $word in
            file:///*) dirname "${word#file://}" ;; # an index links to files beside it
            /etc/xdg/*) ;;
            /*) echo "$word" ;;
        esac
    done
}

# Folders are lent and files are copied: a package of that release may own one of them.
lend_pip() {
    local path
    pip_paths | sort -u | while read -r path; do
        if [ -d "$path" ]; then
            mkdir -p "$tree$path"
            mount --bind "$path" "$tree$path"
            mount -o remount,bind,ro "$tree$path"
        elif [ -f "$path" ]; then
            mkdir -p "$tree$(dirname "$path")"
            cp --dereference "$path" "$tree$path"
        fi
    done
}

# The rest of this file runs in namespaces of its own. The tree becomes "/", since
# programs that join this namespace, as the tests do with nsenter, would find themselves
# outside of a plain chroot. The process namespace ends whatever is still running.
enter() {
    mount --bind "$tree" "$tree"
    mount -t proc proc "$tree/proc"
    mount --rbind /sys "$tree/sys"
    mount --rbind /dev "$tree/dev"
    mount -t tmpfs -o mode=755 tmpfs "$tree/run"
    lend_pip
    cp --dereference /etc/resolv.conf "$tree/etc/resolv.conf"
    cd "$tree"
    mkdir -p .outside
    pivot_root . .outside
    cd /
    umount -l /.outside
    rmdir /.outside
    exec /usr/bin/env -i HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive TERM="${TERM:-dumb}" \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        "${passed[@]}" /bin/bash -c 'cd /root/virmirror; eval "$1"; exit $?' bash "$command"
}

inside() {
    command=$1 passed=()
    mapfile -t passed < <(env | grep -E '^(PIP_|[a-z]+_proxy=|VIRMIRROR_)')
    export tree command
    unshare --mount --propagation private --pid --fork --kill-child bash -euo pipefail -c \
        "$(declare -f pip_paths lend_pip enter); $(declare -p tree command passed); enter"
}

prepare() {
    make_tree &&
        rm -rf "$tree/root/virmirror" &&
        git clone --quiet --no-hardlinks "$here" "$tree/root/virmirror" &&
        inside "apt-get update -q &&
            apt-get install -q -y --no-install-recommends make ca-certificates"
}

part() {
    local name=${1%%=*} began=$SECONDS state=passed
    inside "${1#*=}" >"$logs/$name.log" 2>&1 || state="FAILED, see $logs/$name.log"
    echo "$suite $name: $state, $((SECONDS - began)) s" \
        "($(grep -E '^(=+ )?[0-9]+ (passed|failed).*' "$logs/$name.log" | tail -1))"
    [ "$state" = passed ]
}

clean_up() {
    if [ -z "$keep" ]; then
        rm -rf --one-file-system "$tree"
    fi
}
trap clean_up EXIT

prepare >"$logs/prepare.log" 2>&1 || {
    tail -n 5 "$logs/prepare.log" >&2
    echo "$0: $suite could not be prepared, see $logs/prepare.log" >&2
    exit 1
}
failed=0
for each in "$@"; do
    part "$each" || failed=1
done
exit $failed
