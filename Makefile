# The few commands that a contributor needs. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# One profile and one set of features everywhere, so that nothing is compiled twice.
CARGO ?= cargo

.PHONY: help demo dev test ci fmt lint prepare api ship deny bench bench-transfer setup check-generated check-production

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## watch a release reach simulated printers, on a server of its own
	@$(CARGO) build
	@$(CARGO) run --quiet -- demo

dev: setup ## run the server with its own PostgreSQL and S3; data is kept in .dev/
	@$(CARGO) build
	@$(CARGO) run --quiet -- dev

test: ## run all tests on a temporary PostgreSQL
	@scripts/setup test
	@scripts/with-postgres $(CARGO) test --all-targets
	@scripts/check-ship

ci: ## everything that a change must pass
	$(CARGO) fmt --check
	scripts/setup test
	@$(MAKE) check-generated
	@$(MAKE) lint
	@$(MAKE) check-production
	@$(MAKE) deny
	@$(MAKE) demo
	@$(MAKE) api
	@$(MAKE) test

fmt: ## format the sources
	@$(CARGO) fmt

lint: ## clippy, warnings are errors
	$(CARGO) clippy --all-targets --features bench -- -D warnings

api: ## try REST with everything that its document allows, and much that it does not
	@scripts/setup test
	@$(CARGO) build
	@scripts/schemathesis

ship: ## try the chart, Terraform's modules and Docker's files
	@scripts/setup test
	@$(CARGO) build
	@scripts/check-ship

deny: ## check licences, sources and known advisories of what is built in
	@scripts/setup test
	@scripts/deny

prepare: ## regenerate what is generated and committed: .sqlx, openapi.json, the chart's and Terraform's documents
	@scripts/setup test
	scripts/sqlx-prepare
	$(CARGO) run --quiet -- openapi > openapi.json.new
	@mv openapi.json.new openapi.json
	.tools/ship/bin/python helm/scripts/generate
	.tools/ship/bin/python terraform/scripts/generate-readmes

# Built as production images are; feature `bench` keeps it out of everybody else's builds.
bench: ## measure what replicas hold and how quick they are, beside a bare WebSocket server
	@scripts/setup test
	@DURABLE=yes scripts/with-postgres $(CARGO) bench --quiet --no-default-features --features bench --bench load

bench-transfer: ## measure uploads and downloads through the server beside those straight to S3
	@scripts/setup test
	@scripts/with-postgres $(CARGO) bench --quiet --no-default-features --features bench --bench transfer

check-generated:
	@scripts/setup test
	scripts/sqlx-prepare --check
	.tools/ship/bin/python helm/scripts/generate --check
	.tools/ship/bin/python terraform/scripts/generate-readmes --check
	@$(CARGO) run --quiet -- openapi | diff -q openapi.json - >/dev/null || \
		{ echo "openapi.json is not what the server says of itself: run 'make prepare' and commit the result" >&2; exit 1; }

# What production images are built from: without the embedded PostgreSQL and S3.
check-production:
	$(CARGO) clippy --no-default-features -- -D warnings

setup:
	@scripts/setup
