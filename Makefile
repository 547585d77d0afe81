# The only task runner. `make help` lists the targets; each does all its own set-up.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
INSTALLED := .venv/.installed
PYTHON_GUEST := .venv/.python-guest
# Two builds at once would take each other's files away.
LOCKED := $(if $(shell command -v flock),flock .venv/.lock)
export CARGO_TARGET_DIR ?= $(CURDIR)/target
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

# ---- build

.PHONY: build
build: tools ## set up .venv and build the extension into it; leaves .venv/bin/timecraft
	@# Cargo decides whether there is anything to compile: about a second if not.
	@if [ $(INSTALLED) -nt pyproject.toml ] && [ $(INSTALLED) -nt constraints.txt ] && [ $(INSTALLED) -nt Cargo.toml ]; then \
	  said=$$($(LOCKED) $(BIN)/maturin develop --skip-install --quiet 2>&1) || { echo "$$said" >&2; exit 1; }; \
	else \
	  echo 'building the extension and installing it with its dependencies (the first time takes minutes)'; \
	  PIP_QUIET=1 PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(LOCKED) $(BIN)/maturin develop --extras dev && touch $(INSTALLED); \
	fi
	@$(MAKE) $(PYTHON_GUEST)

# A package of its own, which holds what `make python-guest` has built: seconds, and no network.
$(PYTHON_GUEST): $(wildcard guest-python/*.* guest-python/recipe/backend.py guest-python/artifacts/* guest-python/timecraft_python_guest/*.*)
	@$(LOCKED) $(BIN)/pip install --quiet --force-reinstall --no-deps --no-index --no-build-isolation ./guest-python
	@touch $@

.PHONY: tools
tools: $(BIN)/maturin

$(BIN)/maturin:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@command -v cargo >/dev/null || { echo 'cargo is not installed: https://rustup.rs' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt 'maturin>=1.9.4,<2'

.PHONY: guests
guests: tools ## build the Go and C guests of the tests and benchmarks
	@$(BIN)/python scripts/build_guests.py --quiet

.PHONY: python-guest
python-guest: ## build the Python guest if what it is made of changed, on Debian 12; FORCE=1 compares with what is pinned
	@$(PYTHON) guest-python/recipe $(if $(FORCE),--force)

# ---- use

.PHONY: demo
demo: build ## record a Go program, look at its log, replay it
	@$(BIN)/python scripts/build_guests.py --only demo
	@$(BIN)/python scripts/demo.py

# ---- test

.PHONY: test
test: build guests lint-fast test-rust fuzz-smoke wheel-check test-python ## everything that must pass; what CI runs

.PHONY: test-rust
test-rust: tools ## the crates' tests
	@# timecraft-py is glue: its tests are Python's (tests/test_tidy.py holds that).
	cargo test --workspace --exclude timecraft-py --locked --quiet

.PHONY: test-python
test-python: build guests ## pytest; choose with ARGS='-k name'
	$(BIN)/pytest $(ARGS)

.PHONY: python-suite
python-suite: build ## all of CPython's own tests that the Python guest runs; writes docs/python-tests.md. One: MODULES=test_os
	@$(BIN)/python -m tests.python_suite.run $(MODULES)

.PHONY: conformance
conformance: build ## run a wasi-testsuite folder recorded, then replayed: SUITE=DIR
	@[ -n '$(SUITE)' ] || { echo 'usage: make conformance SUITE=DIR' >&2; exit 2; }
	@$(BIN)/python tests/conformance/run.py --timecraft $(BIN)/timecraft -j 2 '$(SUITE)'

.PHONY: soak
soak: build guests ## tests that take long: crash recovery and resume at many points, all of CPython's own tests
	$(BIN)/pytest -m soak --timeout 3600 $(ARGS)

FUZZ := cargo run --quiet --locked --manifest-path fuzz/Cargo.toml --target-dir $(CARGO_TARGET_DIR) --bin smoke --

.PHONY: fuzz
fuzz: ## fuzz each target for SECONDS=60, without nightly; fuzz/README.md has cargo-fuzz
	$(FUZZ) --seconds $(or $(SECONDS),60)

.PHONY: fuzz-smoke
fuzz-smoke: ## the same for a few seconds
	$(FUZZ) --seconds 5

.PHONY: bench
bench: tools guests ## measure the release build beside wasmtime and wazero; ARGS='--quick --only NAME'
	@# Measured beside a copy of the package (benchmarks/build): the extension in timecraftd/ stays that of development.
	PYO3_BUILD_EXTENSION_MODULE=1 cargo build --release --locked --quiet -p timecraft-py
	@$(BIN)/python benchmarks/run.py $(ARGS)

# ---- lint

.PHONY: lint
lint: lint-fast clippy protos-check deny ## all static checks

.PHONY: lint-fast
lint-fast: build ## the static checks that take seconds: ruff, mypy, stubtest, import-linter, rustfmt
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest timecraftd._native
	$(BIN)/lint-imports --no-cache | tail -n 3
	$(BIN)/python scripts/protos.py --check
	cargo fmt --all --check

.PHONY: clippy
clippy: tools ## clippy, pedantic, on all targets
	@# A target directory of its own: other settings of pyo3's build than maturin's would have both build it each time.
	PYO3_BUILD_EXTENSION_MODULE=1 cargo clippy --target-dir $(CARGO_TARGET_DIR)/lint --workspace --all-targets --locked --quiet -- -D warnings

BUF := go run github.com/bufbuild/buf/cmd/buf@v1.75.0

.PHONY: protos-check
protos-check: ## lint proto/ by buf, and see that nothing breaks clients of proto/baseline.binpb
	cd proto && $(BUF) lint && $(BUF) breaking --against baseline.binpb

.PHONY: deny
deny: ## licences, advisories and sources of the Rust dependencies, by cargo-deny if it is installed
	@if command -v cargo-deny >/dev/null; then cargo deny --log-level warn check; \
	else echo 'NOT CHECKED: cargo-deny is not installed (cargo install --locked cargo-deny)' >&2; fi

.PHONY: protos
protos: build ## make timecraftd/api/v1 from proto/
	@$(BIN)/python scripts/protos.py

.PHONY: format
format: tools ## format Python and Rust
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format --quiet
	cargo fmt --all

# ---- publish

.PHONY: wheel
wheel: build ## build the optimised wheel into dist/, install it in a clean environment and run a guest with it
	@$(BIN)/python scripts/wheel.py

.PHONY: python-guest-wheel
python-guest-wheel: tools ## the published wheel of the Python guest, into dist/
	@$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist ./guest-python

.PHONY: wheel-check
wheel-check: build ## the same, out of what is compiled for development: proves the packaging in seconds
	@$(BIN)/python scripts/wheel.py --profile dev

.PHONY: install
install: ## install the wheel for the machine, with the node's units: PREFIX=/usr/local DESTDIR= WHEEL=; PYTHON is what runs it
	@[ -n '$(WHEEL)' ] || $(MAKE) wheel
	@$(PYTHON) scripts/install.py --destdir '$(DESTDIR)/' --prefix '$(or $(PREFIX),/usr/local)' $(or $(WHEEL),dist/timecraftd-*.whl)

.PHONY: constraints
constraints: build ## write constraints.txt anew from what .venv holds
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze | grep -v -e timecraftd -e timecraft-python-guest; } > .constraints.new
	@mv .constraints.new constraints.txt

.PHONY: clean
clean: ## remove everything that was built
	rm -rf .venv target dist build guest-python/build guest-python/cache tests/guests/build benchmarks/guests/build timecraftd/_native*.so
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
