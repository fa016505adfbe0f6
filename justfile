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

# Feed a reader what a fuzzer makes up (takes a nightly compiler and cargo-fuzz)
fuzz TARGET SECONDS='60':
    mkdir -p fuzz/corpus/{{TARGET}}
    cargo +nightly fuzz run -s none {{TARGET}} fuzz/corpus/{{TARGET}} fuzz/seeds/{{TARGET}} -- -max_total_time={{SECONDS}} -rss_limit_mb=2048

# Known security problems in what we depend on (needs the network)
advisories:
    cargo deny check advisories

# Everything that has to hold before a change lands
ci: lint test example
