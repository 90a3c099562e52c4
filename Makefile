# What a person runs. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

TARGET := $(or $(CARGO_TARGET_DIR),target)
LOGS := $(or $(CDE_CI_LOGS),$(TARGET)/logs)
WEB_SOURCES := $(shell find web \( -name node_modules -o -name dist \) -prune -o -type f -print 2>/dev/null)

.PHONY: help demo web test cargo-test browser-test pages openid ide jupyterhub wire fuzz bench load instructions refusals replicas lint

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: web ## a gitspace and its IDE through the gateway; options: make demo ARGS="--open --ide code-server"
	@cargo run --release --locked -- demo $(ARGS)

web: web/dist/index.html ## the pages (web/dist), only if their sources changed

# npm's own words go to stderr: standard output belongs to the program that runs afterwards.
web/dist/index.html: $(WEB_SOURCES)
	@.ci/need --check node npm
	@cd web && npm ci --no-audit --no-fund --loglevel=error >&2 && npm run --silent build >&2
	@touch $@

test: cargo-test browser-test ## all tests; installs what they need, or says why it cannot
	@.ci/secrets

cargo-test: web ## the tests that need no browser
	@.ci/need git
	@rm -rf $(LOGS)/tests && mkdir -p $(LOGS)
	@cargo test --locked --no-fail-fast 2>&1 | tee $(LOGS)/cargo-test.log

browser-test: web ## the two browser tests: the built-in terminal, and code-server
	@mkdir -p $(LOGS)
	@tests/browser/run.sh 2>&1 | tee $(LOGS)/browser-test.log

pages: web ## every page of ours, and the login in a window of its own, in Chromium; pictures in target/pages
	@tests/pages/run.sh

openid: web ## a real OpenID provider as issuer; ARGS="--down 600" keeps it down for ten minutes
	cargo build --locked --bin cde-gateway
	tests/openid/run.py $(ARGS)

ide: web ## JupyterLab, code-server and development servers from their registries through the gateway in Chromium, by host and by path
	@.ci/need node npm chromium certutil rg g++ make python3 venv openssl
	cargo build --locked --bin cde-gateway
	tests/ide/run.py $(ARGS)

jupyterhub: web ## a JupyterHub from its registry with the gateway as its proxy, in Chromium
	@.ci/need node npm chromium certutil python3 venv openssl
	cargo build --locked --bin cde-gateway
	tests/jupyterhub/run.py $(ARGS)

wire: web ## 1,200 cases through the gateway, nginx and HAProxy, a minute; writes docs/wire.md; ARGS="--products gateway"
	@.ci/need python3 nginx haproxy openssl
	@cargo build --locked
	@tests/wire/run.py $(ARGS)

fuzz: web ## every fuzz target for a minute; make fuzz ARGS="600 host cookies"
	@fuzz/run $(ARGS)

bench: ## criterion benches: auth, route, end_to_end
	@cargo bench --locked

load: ## CPU per request beside HAProxy, nginx and Envoy, about ten minutes; writes docs/performance.md
	@benches/load/run.py $(ARGS)

instructions: ## user instructions per request (callgrind), against their budget
	@.ci/instructions

replicas: ## three gateways behind HAProxy, one killed every 20 s; ARGS="--away 600": the control plane is gone for ten minutes
	@.ci/need python3 openssl haproxy
	@cargo build --locked --bin cde-gateway
	@tests/balancers/replicas.py $(ARGS)

refusals: ## whether refusals that must look alike do: bytes and instructions (callgrind)
	@.ci/refusals

lint: ## format, clippy, dependency rules
	@.ci/format
	@.ci/lint
	@.ci/deny
