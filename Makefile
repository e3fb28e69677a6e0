# Two targets do everything on a fresh Debian machine with Rust: `make demo` and `make test`.
# Everything is built in the release profile, once: RocksDB alone takes a quarter of an hour on two cores.

CARGO ?= cargo

.PHONY: demo test build packages test-packages lint clean-demo help

help:
	@echo "make demo    install missing packages, build, start a network, load it, print what was committed"
	@echo "make test    install what tests need, run all checks and tests"
	@echo "make build   build target/release/{millrace,txgen,tidy}"

packages:
	@tools/packages.sh build-essential libclang-dev

test-packages: packages
	@tools/packages.sh openssl
	@$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-nextest

build: packages
	$(CARGO) build --release --workspace

demo: build
	@tools/packages.sh curl
	perf/demo.sh

lint: packages
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

test: test-packages lint build
	$(CARGO) nextest run --release --workspace
	$(CARGO) test --release --workspace --doc
	target/release/tidy

clean-demo:
	rm -rf target/demo
