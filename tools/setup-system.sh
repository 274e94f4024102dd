#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Install the system packages that virmirror needs, if any of them is missing.
# Usage: tools/setup-system.sh [--bench | --test | --all]
# With --bench also the tools that virmirror is measured against, with --test those
# and what only the tests and lints need, with --all those of "make check-all", too.
# When everything is there already nothing is changed and no privilege is needed.
#
# Known are Debian 12, 13 and sid, Ubuntu 24.04 and 26.04, and Fedora; what calls itself
# like one of them is set up in the same way. Elsewhere nothing is installed, but what is
# missing is named.
set -euo pipefail

# what level $1 comprises, beside virmirror's own needs
with_rivals=no with_tests=no with_all=no
case ${1:-} in
    --bench) with_rivals=yes ;;
    --test) with_rivals=yes with_tests=yes ;;
    --all) with_rivals=yes with_tests=yes with_all=yes ;;
esac

# Three lists of the same things: as Debian calls them, as Fedora does, and by the
# programs in them.
apt=(
    gcc libc6-dev make pkg-config python3-dev python3-venv
    libvirt-dev libglib2.0-dev libxml2-dev liburing-dev libxxhash-dev
    libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-system
    qemu-system-x86 qemu-utils seabios
    binutils ca-certificates
)
dnf=(
    gcc glibc-devel make pkgconf-pkg-config python3-devel
    libvirt-devel glib2-devel libxml2-devel liburing-devel xxhash-devel
    libvirt-daemon libvirt-daemon-driver-qemu
    qemu-system-x86-core qemu-img seabios-bin
    binutils ca-certificates
)
programs=(gcc make pkg-config as ld libvirtd qemu-system-x86_64 qemu-img)
if [ $with_rivals = yes ]; then
    apt+=(rsync libnbd-bin libvirt-clients)
    dnf+=(rsync libnbd libvirt-client)
    programs+=(rsync nbdcopy virsh)
fi
if [ $with_tests = yes ]; then
    apt+=(clang llvm strace xfsprogs e2fsprogs mount util-linux)
    dnf+=(clang llvm compiler-rt strace xfsprogs e2fsprogs util-linux)
    programs+=(clang llvm-symbolizer strace mkfs.xfs filefrag losetup nsenter)
fi
if [ $with_all = yes ]; then
    apt+=(valgrind debootstrap)
    dnf+=(valgrind debootstrap)
    programs+=(valgrind debootstrap)
fi

# The family of this system, and its name for people.
name=$(. /etc/os-release 2>/dev/null && echo "${PRETTY_NAME:-$ID}") || name="this system"
family() {
    local ID="" VERSION_ID="" ID_LIKE=""
    [ ! -e /etc/os-release ] || . /etc/os-release
    case "$ID $VERSION_ID" in
        "debian 11" | "ubuntu 20.04" | "ubuntu 22.04")
            echo "$0: $name has no Python >= 3.11 of its own: name one, make PYTHON=..." >&2 ;;
    esac
    case " $ID $ID_LIKE " in
        *" debian "* | *" ubuntu "*) echo debian ;;
        *" fedora "* | *" rhel "*) echo fedora ;;
        *) echo other ;;
    esac
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "$0: neither root nor sudo; please run as root: $*" >&2
        return 1
    fi
}

apt_has() {
    local state
    state=$(dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null) || return 1
    grep -qx installed <<<"$state"
}

dnf_has() {
    rpm -q --quiet --whatprovides "$1"
}

apt_install() {
    local policy=/usr/sbin/policy-rc.d
    # Without an init system there is nothing that could start libvirt's
    # services, and a failed start must not fail the installation.
    if [ ! -d /run/systemd/system ] && [ ! -e "$policy" ]; then
        as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
        trap "as_root rm -f $policy" EXIT
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
        --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
}

dnf_install() {
    as_root dnf install -q -y --setopt=install_weak_deps=False "$@"
}

# $1: apt or dnf; the rest: packages
need() {
    local manager=$1 package missing=()
    shift
    for package in "$@"; do
        "${manager}_has" "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        echo "installing on $name: ${missing[*]}"
        "${manager}_install" "${missing[@]}"
    fi
}

name_what_is_missing() {
    local missing=() each
    for each in "${programs[@]}"; do
        command -v "$each" >/dev/null || missing+=("$each")
    done
    if command -v pkg-config >/dev/null; then
        for each in libvirt glib-2.0 libxml-2.0 liburing libxxhash; do
            pkg-config --exists "$each" || missing+=("$each (headers)")
        done
    fi
    if [ ${#missing[@]} -eq 0 ]; then
        return 0
    fi
    printf '%s: missing: %s\n' "$0" "$(printf '%s, ' "${missing[@]}" | sed 's/, $//')" >&2
    echo "How to install on $name is not known here. It would be" >&2
    printf '  apt-get install %s\non Debian, and on Fedora\n  dnf install %s\n' \
        "${apt[*]}" "${dnf[*]}" >&2
    return 1
}

case $(family) in
    debian)
        need apt "${apt[@]}"
        # clang's sanitizers and fuzzer are in a package named after its version
        if [ $with_tests = yes ] &&
            [[ $(dpkg-query -W -f='${Depends}' clang) =~ clang-([0-9]+) ]]; then
            need apt "libclang-rt-${BASH_REMATCH[1]}-dev"
        fi
        ;;
    fedora) need dnf "${dnf[@]}" ;;
    other) name_what_is_missing ;;
esac
