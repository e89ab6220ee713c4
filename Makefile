TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
STATIC := target/$(TARGET)/release/infernet-router
# A static binary above 4 MiB has grown by mistake.
MAX_STATIC_BYTES := 4194304

.PHONY: test run demo bench sim soak static test-static test-api test-client test-proxy clean

# What a change has to pass.
test:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
	cargo test

run:
	cargo run --release

# The router against three stand-in nodes, and the curl lines to try. Settings: make demo PORT=4001
demo:
	cargo build
	cargo run --example demo

bench:
	cargo build --release
	cargo run --release --example bench

# The routing under stale counts, in simulated time.
sim:
	cargo run --release --example sim

# All attacks at once beside an honest client, for ten minutes; `make soak SECONDS=60` is shorter.
soak:
	cargo build --release
	cargo run --release --example soak -- $(SECONDS)

# One binary that needs nothing else, for this machine's architecture.
static:
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --target $(TARGET)
	@bytes=$$(wc -c < $(STATIC)); echo "$(STATIC): $$bytes bytes"; \
	if [ $$bytes -gt $(MAX_STATIC_BYTES) ]; then echo "more than $(MAX_STATIC_BYTES)"; exit 1; fi

# It routes, resolves names and calls https nodes in an empty root.
test-static: static
	cargo run --example static -- $(STATIC)

# The three below want Python, and the first two a package index; where that is absent they say so and pass.
test-api:
	cargo build --example demo --bin infernet-router
	tests/scripts/api.sh

test-client:
	cargo build --example demo --bin infernet-router
	tests/scripts/client.sh

test-proxy:
	cargo build --example demo --bin infernet-router
	tests/scripts/proxy.sh

clean:
	cargo clean
