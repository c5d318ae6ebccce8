# One command each; all work from a fresh clone. `make help` lists them.
SHELL := bash
.DEFAULT_GOAL := help
BIN := .venv/bin
NPROC := $(shell getconf _NPROCESSORS_ONLN)
export PYTHON

.PHONY: help setup demo run test lint format bench coverage fuzz torture killmatrix soak lock docs clean

help: ## List the commands
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv: locked dependencies, development tools, the compiled native module
	@.ci/setup

demo: setup ## Run a gateway, an instrumented example shop, an archive query and a replay; ends by itself
	@$(BIN)/telflow demo

run: setup ## Keep a gateway up on 4317 (gRPC) and 4318 (HTTP); Ctrl-C drains it
	@$(BIN)/telflow run

test: setup ## Run every test
	@$(BIN)/python -m pytest -n $(NPROC) --dist worksteal $(ARGS)

lint: setup ## Check style, types, import layers and the Rust crate; warnings are errors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cargo fmt --manifest-path native/Cargo.toml --check
	cargo clippy --quiet --manifest-path native/Cargo.toml --all-targets --locked -- -D warnings

format: setup ## Rewrite Python and Rust sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cargo fmt --manifest-path native/Cargo.toml

bench: setup ## Run every benchmark against its reference; figures go to bench/results/
	@set -e; for b in bench/bench_*.py; do m=$${b%.py}; echo "== $$m"; $(BIN)/python -m $${m//\//.}; done

coverage: setup ## Run the tests and show line and branch coverage; fails under 90 %
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m pytest -n $(NPROC) --dist worksteal --cov --cov-report= $(ARGS)
	@$(BIN)/coverage report --show-missing --skip-covered --fail-under=90

fuzz: setup ## Fuzz the codec for SECONDS (60 by default)
	@.ci/fuzz $${SECONDS_EACH:-60}

torture: setup ## Kill a gateway under load KILLS times (200 by default), then look for every acknowledged record
	@$(BIN)/python -m tests.torture --kills $${KILLS:-200}

killmatrix: setup ## Signals to every worker and the supervisor of a gateway's cluster, KILL_ROUNDS (10) times each
	@$(BIN)/python -m tests.kill_matrix --rounds $${KILL_ROUNDS:-10}

soak: setup ## Run a gateway with faults for SOAK_SECONDS (300 by default); what it holds must stay flat
	@$(BIN)/python -m tests.soak --seconds $${SOAK_SECONDS:-300}

docs: setup ## Write the generated parts of docs/ anew
	@$(BIN)/python -m docs.build

lock: setup ## Resolve the dependencies anew into requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --extra demo --extra kafka --group dev pyproject.toml --custom-compile-command "make lock" --output-file requirements.lock

clean: ## Remove what the commands above have made
	rm -rf .venv native/target .mypy_cache .ruff_cache .pytest_cache .hypothesis htmlcov .coverage* telflow/_native*.so
