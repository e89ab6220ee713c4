ifneq ($(shell uname -s),Linux)
$(error the router is for Linux: on this system use the image (README.md, "As a container image"))
endif

HOST_TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# As root there is often no rustc; what was built is found all the same.
TARGET := $(or $(HOST_TARGET),$(shell uname -m)-unknown-linux-gnu)
STATIC := target/$(TARGET)/release/infernet-router
# A binary above 4.5 MiB has grown by mistake.
MAX_STATIC_BYTES := 4718592
# What --version tells of a binary that is made to be run; a release says it in the environment.
GIT_COMMIT ?= $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null)
# `--locked` in CI.
LOCKED ?=

PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: test run demo bench bench-short sim sim-short sim-real soak soak-accidents static install deb test-static test-api test-client test-proxy clean

# What a change has to pass.
test:
	cargo fmt --check
	cargo clippy $(LOCKED) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(LOCKED) --no-deps --document-private-items
	cargo test $(LOCKED)

run:
	GIT_COMMIT="$(GIT_COMMIT)" cargo run $(LOCKED) --release

# The router against three stand-in nodes, and the curl lines to try. Settings: make demo PORT=4001
demo: target/demo
	cargo build $(LOCKED)
	target/demo target/debug/infernet-router

# The standard library alone: nothing that only tests need is compiled.
target/demo: tests/demo/main.rs
	mkdir -p target
	rustc --edition 2024 -O -o $@ $<

bench:
	cargo build $(LOCKED) --release
	cargo run $(LOCKED) --release --example bench

# The same, each part cut short or left out: under three minutes when it is built.
bench-short:
	cargo build $(LOCKED) --release
	cargo run $(LOCKED) --release --example bench -- short

# The routing under stale counts, in simulated time: some minutes; `make sim-short` is less exact, and takes seconds.
sim:
	cargo run $(LOCKED) --release --example sim

sim-short:
	cargo run $(LOCKED) --release --example sim -- short

# The built router against nodes that really queue, for four minutes.
sim-real:
	cargo build $(LOCKED) --release
	cargo run $(LOCKED) --release --example sim -- real

# All attacks at once beside an honest client, for ten minutes; `make soak SECONDS=60` is shorter.
soak:
	cargo build $(LOCKED) --release
	cargo run $(LOCKED) --release --example soak -- $(SECONDS)

# The operators' own bad days beside an honest client: lists cut, emptied or replaced, nodes that vanish, a log unread.
soak-accidents:
	cargo build $(LOCKED) --release
	cargo run $(LOCKED) --release --example soak -- accidents $(SECONDS)

# One binary that needs nothing else, for this machine's architecture.
static:
	GIT_COMMIT="$(GIT_COMMIT)" RUSTFLAGS="-C target-feature=+crt-static" \
		cargo build $(LOCKED) --release --target $(TARGET)
	@echo "$(STATIC): $$(wc -c < $(STATIC)) bytes"

# The static binary, the unit and the manual page: make install PREFIX=/usr DESTDIR=/tmp/root
install:
	@if command -v cargo > /dev/null; then $(MAKE) static; else test -x $(STATIC) || { echo "make static first" >&2; exit 1; }; fi
	install -D -m 755 $(STATIC) $(DESTDIR)$(PREFIX)/bin/infernet-router
	install -D -m 644 .packaging/infernet-router.1 $(DESTDIR)$(PREFIX)/share/man/man1/infernet-router.1
	mkdir -p $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's#/usr/local/bin#$(PREFIX)/bin#' .packaging/infernet-router.service \
		> $(DESTDIR)$(PREFIX)/lib/systemd/system/infernet-router.service

# A Debian package of the same: target/infernet-router_VERSION_ARCHITECTURE.deb
deb:
	.packaging/deb.sh

# It routes, resolves names, calls https nodes and loads no NSS module in a root of its own. NSS_ROOT=DIR: beside the
# modules of another release.
test-static: static
	@bytes=$$(wc -c < $(STATIC)); \
	if [ $$bytes -gt $(MAX_STATIC_BYTES) ]; then echo "$$bytes bytes are more than $(MAX_STATIC_BYTES)"; exit 1; fi
	cargo run $(LOCKED) --example static -- $(STATIC)

# The three below want Python, the first two a package index, the third HAProxy, nginx and Caddy; where that is absent
# they say so and pass.
test-api: target/demo
	cargo build $(LOCKED)
	tests/scripts/api.sh

test-client: target/demo
	cargo build $(LOCKED)
	tests/scripts/client.sh

test-proxy: target/demo
	cargo build $(LOCKED)
	tests/scripts/proxy.sh

clean:
	cargo clean
