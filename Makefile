ifneq ($(shell uname -s),Linux)
$(error the router is for Linux: on this system use the image (.packaging/docs/operating.md))
endif

# Cargo.toml has the minimum version of Rust.
MINIMUM_RUST := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
HOST_TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# Root often has no rustc. The path of a finished build is known anyway.
TARGET := $(or $(HOST_TARGET),$(shell uname -m)-unknown-linux-gnu)
STATIC := target/$(TARGET)/release/infernet-router
# The binary has 4.2 MiB. One above 4.5 MiB has grown by mistake.
MAX_STATIC_BYTES := 4718592
# The commit that --version prints. Release builds set it in the environment.
GIT_COMMIT ?= $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null)
# `--locked` in CI.
LOCKED ?=

# Root installs for all users, everybody else below ~/.local.
PREFIX ?= $(if $(filter 0,$(shell id -u)),/usr/local,$(HOME)/.local)
DESTDIR ?=
UNIT_DIR := $(DESTDIR)$(PREFIX)/lib/systemd/system

.DEFAULT_GOAL := build
.PHONY: build help rust test run demo bench bench-short sim sim-short sim-real soak soak-accidents static install \
	uninstall deb test-static test-api test-client test-proxy clean

build: rust ## Build the router: target/release/infernet-router
	GIT_COMMIT="$(GIT_COMMIT)" cargo build $(LOCKED) --release
	@echo "built target/release/infernet-router; try: make demo, make run, make help"

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name what; do \
		printf '  make %-16s %s\n' "$$name" "$$what"; done

# Reports a missing or old toolchain before a compiler error does.
rust:
	@command -v cargo > /dev/null || { echo "Rust is missing: install Rust $(MINIMUM_RUST) or later with rustup (https://rustup.rs)" >&2; exit 1; }
	@version=$$(rustc -V | cut -d' ' -f2); \
	[ "$$(printf '%s\n' "$(MINIMUM_RUST)" "$${version%%-*}" | sort -V | head -1)" = "$(MINIMUM_RUST)" ] || \
		{ echo "Rust $$version is too old: install Rust $(MINIMUM_RUST) or later with rustup (https://rustup.rs)" >&2; exit 1; }

test: rust ## Run everything that a change has to pass: format, lints, docs, tests
	cargo fmt --check
	cargo clippy $(LOCKED) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(LOCKED) --no-deps --document-private-items
	# Most tests wait for nodes and timers, not for a processor.
	cargo test $(LOCKED) -- --test-threads=4

run: rust ## Run the router with ./ips.txt and ./.env
	GIT_COMMIT="$(GIT_COMMIT)" cargo run $(LOCKED) --release

demo: rust target/demo ## Run the router with three stand-in nodes (PORT=4001 selects another port)
	cargo build $(LOCKED)
	target/demo target/debug/infernet-router

# Needs only the standard library, so it compiles in a second.
target/demo: tests/demo/main.rs
	mkdir -p target
	rustc --edition 2024 -O -o $@ $<

bench: ## Measure speed and memory, about 40 minutes
	cargo build $(LOCKED) --release
	cargo run $(LOCKED) --release --example bench

bench-short: ## Measure speed and memory, about 3 minutes
	cargo build $(LOCKED) --release
	cargo run $(LOCKED) --release --example bench -- short

sim: ## Simulate the routing, some minutes
	cargo run $(LOCKED) --release --example sim

sim-short: ## Simulate the routing with fewer jobs, some seconds
	cargo run $(LOCKED) --release --example sim -- short

sim-real: ## Run the built router against nodes that queue jobs, 4 minutes
	cargo build $(LOCKED) --release
	cargo run $(LOCKED) --release --example sim -- real

soak: ## Run all attacks beside an honest client, 10 minutes (SECONDS=60 is shorter)
	cargo build $(LOCKED) --release
	cargo run $(LOCKED) --release --example soak -- $(SECONDS)

soak-accidents: ## Run operating accidents beside an honest client, 10 minutes
	cargo build $(LOCKED) --release
	cargo run $(LOCKED) --release --example soak -- accidents $(SECONDS)

static: rust ## Build one binary without dependencies, for this architecture
	GIT_COMMIT="$(GIT_COMMIT)" RUSTFLAGS="-C target-feature=+crt-static" \
		cargo build $(LOCKED) --release --target $(TARGET)
	@echo "$(STATIC): $$(wc -c < $(STATIC)) bytes"

install: ## Install the static binary, the manual page and the systemd unit (PREFIX, DESTDIR)
	@if command -v cargo > /dev/null; then $(MAKE) static; else \
		test -x $(STATIC) || { echo "run make static first, as a user who has Rust" >&2; exit 1; }; fi
	install -D -m 755 $(STATIC) $(DESTDIR)$(PREFIX)/bin/infernet-router
	install -D -m 644 .packaging/infernet-router.1 $(DESTDIR)$(PREFIX)/share/man/man1/infernet-router.1
	# The unit is for the system's systemd: it has no use below a home directory.
	case "$(PREFIX)" in "$(HOME)"/*) ;; *) mkdir -p $(UNIT_DIR) && \
		sed 's#/usr/local/bin#$(PREFIX)/bin#' .packaging/examples/infernet-router.service \
		> $(UNIT_DIR)/infernet-router.service ;; esac
	@echo "installed $(PREFIX)/bin/infernet-router"

uninstall: ## Remove what make install installed
	rm -f $(DESTDIR)$(PREFIX)/bin/infernet-router $(DESTDIR)$(PREFIX)/share/man/man1/infernet-router.1 \
		$(UNIT_DIR)/infernet-router.service

deb: ## Build a Debian package: target/infernet-router_VERSION_ARCHITECTURE.deb
	.packaging/deb.sh

test-static: static ## Test the static binary in an empty root and with other NSS modules
	@bytes=$$(wc -c < $(STATIC)); \
	if [ $$bytes -gt $(MAX_STATIC_BYTES) ]; then echo "$$bytes bytes are more than $(MAX_STATIC_BYTES)"; exit 1; fi
	cargo run $(LOCKED) --example static -- $(STATIC)

# The next three need Python, the first two a package index, the third a proxy. They are skipped with a message otherwise.
test-api: target/demo ## Compare responses with /openapi.json (schemathesis)
	cargo build $(LOCKED)
	tests/scripts/api.sh

test-client: target/demo ## Test with the Python package infernet-client
	cargo build $(LOCKED)
	tests/scripts/client.sh

test-proxy: target/demo ## Test behind HAProxy, nginx, Caddy and Envoy
	cargo build $(LOCKED)
	tests/scripts/proxy.sh

clean: ## Remove target/
	cargo clean
