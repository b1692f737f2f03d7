.DEFAULT_GOAL := help

# Where rustup puts what it installs.
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help
help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: run
run: ## Start Kafka and both programs, with Rust or on Docker, send sample webhooks, and show their fates
	@sh deploy/run.sh

.PHONY: demo-failure
demo-failure: ## Show a handler that fails, the retries, the dead letters, and how they are replayed
	@sh deploy/prepare.sh run
	@cargo build --locked
	@cargo build --locked -p hookwell-tests --bin demo-failure
	@target/debug/demo-failure

.PHONY: test
test: ## Run every test, those on a real Kafka included
	@sh deploy/prepare.sh test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@rm -f target/docker-was-not-tested
	@{ cargo test --workspace --locked --no-fail-fast 2>&1; echo $$? > target/test-status; } | tee target/test.log
	@# Who reads only the end of a long log learns what failed, and why.
	@if [ "$$(cat target/test-status)" != 0 ]; then awk '/^failures:$$/, /^test result: FAILED/' target/test.log; exit 1; fi
	@if [ -f target/docker-was-not-tested ]; then cat target/docker-was-not-tested; echo; fi

.PHONY: model
model: ## Search the larger scopes of the model: everything that can happen to a few events
	HOOKWELL_MODEL=large cargo test --locked --config 'profile.dev.package.hookwell-processor.opt-level=3' \
		-p hookwell-processor --lib model::whole -- --nocapture --test-threads=1

.PHONY: faults
faults: ## Send webhooks for MINUTES while everything breaks as SEED says, and have an auditor judge
	@sh deploy/prepare.sh test
	@cargo build --locked -p hookwell-tests --bins
	@target/debug/faults $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),2)

.PHONY: soak
soak: ## The same for HOURS, with a verdict every ten minutes
	@sh deploy/prepare.sh test
	@cargo build --locked -p hookwell-tests --bins
	@target/debug/faults $(if $(SEED),--seed $(SEED)) --minutes $$(awk 'BEGIN { print $(or $(HOURS),2) * 60 }')

.PHONY: fuzz
fuzz: ## Have libFuzzer look for what breaks the code that reads TARGET, or any, for MINUTES each
	@sh deploy/prepare.sh test
	@sh tests/fuzz/run.sh "$(TARGET)" $(or $(MINUTES),10)

.PHONY: bench
bench: ## Measure both programs beside the least that their work costs, about ten minutes
	@sh deploy/prepare.sh test
	cargo run --release --locked -p hookwell-bench -- ingest
	cargo run --release --locked -p hookwell-bench -- processor
	cargo run --release --locked -p hookwell-bench -- state
	cargo run --release --locked -p hookwell-bench -- replay

.PHONY: overload
overload: ## Send more than can be handled, held or served at once, and see what becomes of it, about 25 minutes
	@sh deploy/prepare.sh test
	cargo run --release --locked -p hookwell-bench -- overload

.PHONY: scale
scale: ## Measure what more processors bring, and how long a partition stands still when one comes or goes
	@sh deploy/prepare.sh test
	cargo run --release --locked -p hookwell-bench -- scale
