#!/bin/sh
# Builds ferry and carries a small program across: from the example store in this directory into
# a store that ferry makes. Needs Rust and a C compiler, and no Nix.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --locked

crossing=$(mktemp -d)
trap 'chmod -R u+w "$crossing" && rm -rf "$crossing"' EXIT
ferry() {
    printf '\n$ ferry %s\n' "$*"
    "$binary" "$@"
}
binary=${CARGO_TARGET_DIR:-$PWD/target}/release/ferry
store=$PWD/examples/store
derivation=$(cd "$store/nix/store" && echo *-hello-1.0.drv)
output=$(cd "$store/nix/store" && echo *-hello-1.0)

# The connected side: the recipe, and what was built from it.
ferry pack "$derivation" --store "$store" -o "$crossing/recipe.ferry"
ferry pack "$output" --set runtime --store "$store" -o "$crossing/runtime.ferry"

# The isolated side: check, look, load into a store of its own.
for bundle in recipe runtime; do
    ferry verify "$crossing/$bundle.ferry"
    ferry ls --long "$crossing/$bundle.ferry"
done
ferry info "$crossing/recipe.ferry"
ferry load "$crossing/recipe.ferry" --to "$crossing/island"
ferry load "$crossing/runtime.ferry" --to "$crossing/island" --no-check-sigs

printf '\nThe island has:\n'
ls -l "$crossing/island/nix/store"
