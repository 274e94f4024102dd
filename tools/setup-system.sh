#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Install the system packages that virmirror needs, if any of them is missing.
# Usage: tools/setup-system.sh [--bench | --test | --all]
# With --bench also the tools that virmirror is measured against, with --test those
# and what only the tests and lints need, with --all those of "make check-all", too.
# When everything is there already nothing is changed and no privilege is needed.
set -euo pipefail

packages=(
    gcc libc6-dev make pkg-config python3-dev python3-venv
    libvirt-dev libglib2.0-dev libxml2-dev liburing-dev libxxhash-dev
    libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-system
    qemu-system-x86 qemu-utils seabios
    binutils ca-certificates
)

# what level $1 comprises, beside virmirror's own needs
with_rivals=no with_tests=no with_all=no
case ${1:-} in
    --bench) with_rivals=yes ;;
    --test) with_rivals=yes with_tests=yes ;;
    --all) with_rivals=yes with_tests=yes with_all=yes ;;
esac

is_installed() {
    local state
    state=$(dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null) || return 1
    grep -qx installed <<<"$state"
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

# Other systems: nothing is installed, but what is missing is named.
check_without_apt() {
    local missing=() tool library
    for tool in gcc make pkg-config as ld qemu-system-x86_64 qemu-img; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    if [ $with_rivals = yes ]; then
        for tool in rsync nbdcopy virsh; do
            command -v "$tool" >/dev/null || missing+=("$tool")
        done
    fi
    if [ $with_tests = yes ]; then
        for tool in clang strace mkfs.xfs losetup; do
            command -v "$tool" >/dev/null || missing+=("$tool")
        done
    fi
    if [ $with_all = yes ]; then
        command -v valgrind >/dev/null || missing+=(valgrind)
    fi
    if command -v pkg-config >/dev/null; then
        for library in libvirt glib-2.0 libxml-2.0 liburing libxxhash; do
            pkg-config --exists "$library" || missing+=("$library (headers)")
        done
    fi
    if [ ${#missing[@]} -eq 0 ]; then
        return 0
    fi
    printf '%s: missing: %s\n' "$0" "$(printf '%s, ' "${missing[@]}" | sed 's/, $//')" >&2
    cat >&2 <<'HINT'
There is no apt-get here, so please install these yourself. On Fedora or RHEL:
  dnf install gcc make pkgconf-pkg-config binutils clang compiler-rt valgrind \
      python3-devel libvirt-devel glib2-devel libxml2-devel liburing-devel xxhash-devel \
      libvirt-daemon-driver-qemu strace xfsprogs util-linux \
      qemu-system-x86-core qemu-img seabios-bin rsync libnbd libvirt-client
HINT
    return 1
}

install_packages() {
    local policy=/usr/sbin/policy-rc.d
    echo "installing: $*"
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

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    check_without_apt
    exit
fi

if [ $with_rivals = yes ]; then
    packages+=(rsync libnbd-bin libvirt-clients)
fi
if [ $with_tests = yes ]; then
    packages+=(clang strace xfsprogs mount)
fi
if [ $with_all = yes ]; then
    packages+=(valgrind)
fi

missing=()
for package in "${packages[@]}"; do
    is_installed "$package" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    install_packages "${missing[@]}"
fi

# clang's sanitizers and fuzzer are in a package named after its version.
if [ $with_tests = yes ] && [[ $(dpkg-query -W -f='${Depends}' clang) =~ clang-([0-9]+) ]]; then
    runtime=libclang-rt-${BASH_REMATCH[1]}-dev
    is_installed "$runtime" || install_packages "$runtime"
fi
