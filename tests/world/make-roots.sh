#!/usr/bin/env bash
# Makes the Debian roots that hold the three real Nix versions the tests run:
#
#     bookworm  Nix 2.8      trixie  Nix 2.26      sid  Nix 2.34
#
# Each is made once, under $FERRY_TEST_WORLD (default ~/.cache/ferry-test-world), outside
# the source tree; a root that is already whole is left alone. Needs root and debootstrap.
#
# nix-bin is installed *inside* the finished root: named to debootstrap as an --include, its
# post-install script runs before the users that it needs exist.
set -euo pipefail

world=${FERRY_TEST_WORLD:-${XDG_CACHE_HOME:-$HOME/.cache}/ferry-test-world}
mirror=${FERRY_TEST_MIRROR:-http://deb.debian.org/debian}
packages=(nix-bin bash-static ca-certificates git)

# Every machine mounts directories of its own over these.
mount_points=(nix data opt/bin etc/nix root tmp var/tmp run proc dev)

# twice COMMAND...: once more after a pause when it fails, for a mirror that hiccups.
twice() {
    "$@" && return
    echo "test world: trying again: $*" >&2
    sleep 5
    "$@"
}

bootstrap() {
    rm -rf "$2"
    mkdir -p "$2"
    debootstrap --variant=minbase "$1" "$2" "$mirror"
}

install_packages() {
    chroot "$1" apt-get update &&
        DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$1" \
            apt-get install -y --no-install-recommends "${packages[@]}"
}

make_root() {
    local suite=$1 version=$2 root="$world/roots/$1" log="$world/$1.log"
    if [[ ! -e $root/.whole ]]; then
        echo "test world: making the $suite root (log: $log)" >&2
        rm -rf "$root"
        twice bootstrap "$suite" "$root.new" >"$log" 2>&1 || { tail -n 20 "$log" >&2; return 1; }
        # apt and the maintainer scripts run without services and without questions.
        printf '#!/bin/sh\nexit 101\n' >"$root.new/usr/sbin/policy-rc.d"
        chmod 755 "$root.new/usr/sbin/policy-rc.d"
        cp -L /etc/resolv.conf "$root.new/etc/resolv.conf" 2>/dev/null || true
        if [[ -e /etc/apt/apt.conf.d ]]; then
            grep -rhi proxy /etc/apt/apt.conf.d >"$root.new/etc/apt/apt.conf.d/90proxy" || true
        fi
        # A mirror that stands still serves lists of sid that are past their date, and signed.
        echo 'Acquire::Check-Valid-Until "false";' >"$root.new/etc/apt/apt.conf.d/90mirror"
        twice install_packages "$root.new" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; return 1; }
        chroot "$root.new" apt-get clean
        rm -rf "$root.new/nix"
        touch "$root.new/.whole"
        mv "$root.new" "$root"
    fi
    mkdir -p "${mount_points[@]/#/$root/}"
    if ! grep -A8 '^Package: nix-bin$' "$root/var/lib/dpkg/status" | grep -q "^Version: $version"; then
        echo "test world: warning: the $suite root does not hold Nix $version" >&2
    fi
}

if [[ $(id -u) != 0 ]] || ! command -v debootstrap >/dev/null; then
    echo "test world: making the roots needs root and debootstrap" >&2
    exit 1
fi
mkdir -p "$world/roots"
exec 9>"$world/lock"
flock 9
make_root bookworm 2.8
make_root trixie 2.26
make_root sid 2.34
