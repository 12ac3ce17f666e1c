# Recipes for developers; `just --list` shows them. Needs just, and what tests/README.md names for each.

# What must pass before a commit: format, lints, dependencies, documentation, tests, seeds of the fuzz targets
check: fmt clippy deny doc test seeds

fmt:
    cargo fmt --all --check

clippy:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Without advisories: their database must be fetched. `cargo deny check advisories` does that
deny:
    cargo deny --locked check bans licenses sources

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

test:
    cargo test --workspace --locked

# One fuzz target for ten minutes, after its seeds; arguments are libFuzzer's, as `-max_total_time=60`
fuzz target *arguments:
    mkdir -p agent/fuzz/target/corpus/{{ target }}
    cargo +nightly fuzz run --fuzz-dir agent/fuzz --sanitizer none {{ target }} \
        agent/fuzz/target/corpus/{{ target }} agent/fuzz/seeds/{{ target }} -- \
        -max_total_time=600 -max_len=4096 -timeout=30 {{ arguments }}

# The seeds of all fuzz targets, on stable
seeds:
    cargo test --manifest-path agent/fuzz/Cargo.toml --target-dir target --locked

# A real Kubernetes for the tests: `just cluster up`, `just cluster test`, `just cluster down` (as root)
cluster action:
    {{ if action == "test" { "tests/cluster/cluster enter cargo test -p sidelight-agent --test system -- --ignored real_kubernetes real_exporters real_node real_sidecar real_delivery --test-threads=1" } else { "tests/cluster/cluster " + action } }}

# The chart, and what is made from it; the schemas come from the cluster: `tests/cluster/cluster enter tests/delivery/schemas`
chart:
    tests/delivery/build
    tests/delivery/chart/check

# Dashboards and rules, made from their source and tested; needs npm and Debian's prometheus
dashboards:
    npm --prefix dashboards ci
    npm --prefix dashboards run render
    npm --prefix dashboards test

# The outputs against receivers of other projects; needs Debian's prometheus, prometheus-node-exporter, victoria-metrics
receivers:
    tests/receivers/build
    cargo test -p sidelight-agent --test system -- --ignored real_receivers real_prometheus

# What was sent, delivered, dropped and repeated under each fault; `just faults --root` adds those that need root
faults *arguments:
    tests/faults {{ arguments }}

# Faults in random order and combination; `SEED=n` repeats a run
chaos seconds="600":
    CHAOS_SECONDS={{ seconds }} cargo test -p sidelight-agent --test system -- --ignored chaos --nocapture

# A receiver of samples that is away for so many seconds
outage seconds="3600":
    SIDELIGHT_OUTAGE={{ seconds }} cargo test -p sidelight-agent --test system -- an_outage_of_any_length

# CPU time and memory against the floor; arguments as `--records 200000 --rounds 1`, or `load`, `idle`, `slopes`, `loss`
bench *arguments:
    cargo build --release --locked
    cargo run --release --locked -p sidelight-tests --bin bench -- {{ arguments }}

# The pipeline on an embedded node
demo *arguments:
    cargo run --release --bin sidelight -- demo {{ arguments }}
