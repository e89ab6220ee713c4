test:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
	cargo test
run:
	cargo run --release
sim:
	cargo run --release --example sim
# Ten minutes; `make soak SECONDS=60` is shorter.
soak:
	cargo build --release
	cargo run --release --example soak -- $(SECONDS)
