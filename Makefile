# Two targets do everything on a fresh Debian machine with Rust: `make demo` and `make test`.
# Everything is built in the release profile, once: RocksDB alone takes a quarter of an hour on two cores.

CARGO ?= cargo

.PHONY: demo test clients build packages test-packages lint clean-demo help

help:
	@echo "make demo    install missing packages, build, start a network, load it, print what was committed"
	@echo "make test    install what tests need, run all checks and tests"
	@echo "make clients run real 2.x clients against a network: Caliper, and the SDKs whose checkouts PYTHON_SDK and NODEJS_SDK name"
	@echo "make planted show that the simulator finds bugs that are planted into consensus"
	@echo "make build   build target/release/{millrace,txgen,sim,tidy}"

packages:
	@tools/packages.sh build-essential libclang-dev

test-packages: packages
	@tools/packages.sh openssl mariadb-server-core mariadb-client-core
	@[ "$$(id -u)" -ne 0 ] || tools/packages.sh iproute2 nftables
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

# Not a part of `test`: it fetches some 500 npm packages, and takes five minutes of sending at fixed rates.
clients: build
	tools/clients/caliper.sh
	@if [ -n "$(PYTHON_SDK)" ]; then tools/clients/python.sh "$(PYTHON_SDK)"; else echo "python-sdk: skipped: PYTHON_SDK names no checkout of it"; fi
	@if [ -n "$(NODEJS_SDK)" ]; then tools/clients/nodejs.sh "$(NODEJS_SDK)"; else echo "nodejs-sdk: skipped: NODEJS_SDK names no checkout of it"; fi

# Bugs that are planted into consensus must be found by the simulator; they need a build of their own.
planted: test-packages
	$(CARGO) nextest run --release -p sim --features planted found

clean-demo:
	rm -rf target/demo
