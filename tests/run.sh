#!/bin/sh
# Installs what the tests need and runs all of them: on a fresh Debian with Rust, as root.
#
# The Debian roots with real Nix in them are made once, outside this tree (tests/world).
set -eu
cd "$(dirname "$0")/.."

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    missing=$(for package in debootstrap zstd gcc; do
        dpkg -s "$package" >/dev/null 2>&1 || echo "$package"
    done)
    if [ -n "$missing" ]; then
        apt-get update
        # Word splitting is wanted: a package a word.
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
    fi
    ./tests/world/make-roots.sh
fi
for tool in cargo-deny@0.20.2 just@1.59.0; do
    command -v "${tool%@*}" >/dev/null || cargo install --locked "$tool"
done
# A server that speaks S3, for the tests of buckets. Its program is a feature of it.
command -v s3s-fs >/dev/null || cargo install --locked --features binary s3s-fs@0.14.1
just ci
