# `make` alone prints the targets. Each has one line of help behind "##".

GO       ?= go
PKGS     ?= ./...
FUZZTIME ?= 10s
ARGS     ?=

# The suites that .ci/tools builds, and daemons, which live where an ordinary user's
# PATH does not look.
export PATH := $(CURDIR)/.ci/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin
# The python3 that apt's libraries belong to; see .ci/tools.
export CIRQUE_PYTHON ?= /usr/bin/python3

.PHONY: help
help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: check
check: lint plain race ## format, vet, staticcheck, tests, and the tests under the race detector

.PHONY: test
test: tools lint cross plain race outer vuln ## everything that CI runs; installs the real servers it needs (apt)

.PHONY: tools
tools:
	.ci/tools

.PHONY: lint
lint:
	@echo gofmt -l .
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "not formatted:"; echo "$$files"; exit 1; }
	$(GO) vet -tags outer,invariants $(PKGS)
	$(GO) vet $(PKGS)
	$(GO) tool staticcheck -tags outer,invariants $(PKGS)
	$(GO) tool staticcheck $(PKGS)

.PHONY: cross
cross: # the systems that we promise to build on
	GOOS=linux GOARCH=arm64 $(GO) build $(PKGS)
	GOOS=darwin GOARCH=arm64 $(GO) vet $(PKGS)

.PHONY: plain
plain:
	$(GO) test $(PKGS)

.PHONY: race
race: ## the tests under the race detector, with the checks of test builds
	$(GO) test -race -pgo=off -tags invariants $(PKGS)

.PHONY: outer
outer: # the tests that need real servers and clients around the proxy
	$(GO) test -tags outer $(PKGS)

.PHONY: conformance
conformance: tools ## the whole of the suite for gRPC, gRPC-web and Connect, of which test runs a part
	CIRQUE_CONFORMANCE=whole $(GO) test -tags outer -count 1 -timeout 20m -run TestOuterConformance -v ./cmd/cirque

.PHONY: vuln
vuln:
	.ci/vuln

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (10s)
	.ci/fuzz $(FUZZTIME)

.PHONY: bench
bench: ## measure Cirque beside other proxies (bench/); ARGS goes to the program
	$(GO) run ./bench $(ARGS)

.PHONY: pgo
pgo: ## record anew where the time goes, for the compiler (cmd/cirque/default.pgo)
	.ci/pgo

.PHONY: size
size: ## lengths of functions, files and packages; exported names of the root
	$(GO) run ./internal/archtest/size

.PHONY: update
update: ## write the golden files anew; read the difference before you commit it
	$(GO) test ./internal/archtest -update
	@set -e; for dir in $$(git grep -l --untracked 'flag.Bool("update"' -- '*_test.go' | xargs -r -n 1 dirname | sort -u); do \
		[ $$dir = internal/archtest ] || { echo "$(GO) test ./$$dir -update"; $(GO) test ./$$dir -update; }; done

.PHONY: docs
docs: ## write the generated pages of docs/ anew (compliance.md, config.md)
	$(GO) test ./internal/archtest -run TestCompliance -update
	$(GO) test ./config -run TestGenerated -update
