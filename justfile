# The recipes that continuous integration runs, and a few more.

# What there is
default:
    @just --list

# Format, lints, licences, documentation
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo deny check bans licenses sources
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

# All tests, those with real Nix included
test:
    cargo test --workspace --locked

# Carry the example across, with no Nix
example:
    ./examples/crossing.sh

# Nix and ferry on the same work, side by side
bench *ARGS:
    cargo build --release --locked
    cargo run --release --locked -p ferry-bench -- {{ARGS}}

# Known security problems in what we depend on (needs the network)
advisories:
    cargo deny check advisories

# Everything that has to hold before a change lands
ci: lint test example
