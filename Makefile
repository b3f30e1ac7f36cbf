# Everything a person runs. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV = $(shell scripts/setup --path)
PYTHON = $(VENV)/bin/python
export PYTHONPATH := operator:worker-image:tests
# Of pytest. Two more than there are cores, up to 8: a test that waits for its processes leaves a core free.
WORKERS = $(shell n=$$(nproc); echo $$((n < 6 ? n + 2 : 8)))

MENDABLE = { echo "lint: \`make format\` mends most of this" >&2; exit 1; }

.PHONY: help
help: ## What can be run here
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: setup
setup: ## Install what the project needs into a cached virtual environment (says first how much it downloads)
	@scripts/setup

.PHONY: demo
demo: setup ## Train on three workers, kill one half-way, and look at what happened (no Kubernetes needed)
	@$(PYTHON) -m drivetrain_cli demo
.PHONY: demo-energy
demo-energy: setup ## A day in two minutes: a job grows in green hours, shrinks in dirty ones, and is done in time
	@$(PYTHON) -m drivetrain_cli demo --energy

.PHONY: test
test: setup ## All tests that need no cluster (about 32 minutes on 2 cores)
	@$(PYTHON) -m pytest -n $(WORKERS) --dist loadgroup -q $(ARGS)

.PHONY: test-torch gpu-check
test-torch: ## What depends on torch, with another version: VERSION=2.11 (downloads it first; about 12 minutes on 2 cores)
	@scripts/test-torch $(or $(VERSION),$(error VERSION is not set: make test-torch VERSION=2.11)) $(ARGS)
gpu-check: setup ## What is claimed of GPUs, on one (8 minutes); DEVICE=cpu tries the check itself out
	@PYTHON=$(PYTHON) tests/gpu/check.sh $(ARGS)

.PHONY: test-trackers
test-trackers: ## TensorBoard, MLflow and W&B for real, with ranks killed in the middle (downloads 250 MB first; 8 minutes)
	@scripts/test-trackers $(ARGS)

.PHONY: test-goodput
test-goodput: ## Our account of a job's time beside Google's ML Goodput, of the same history (downloads 100 MB first; 1 minute)
	@scripts/test-goodput $(ARGS)

.PHONY: test-frameworks
test-frameworks: ## Scripts for Transformers, Accelerate, Lightning, FSDP2, DDP, each with a rank killed; OLDEST=1: oldest versions
	@scripts/test-frameworks $(if $(OLDEST),--oldest) $(ARGS)

.PHONY: test-storage
test-storage: setup ## Snapshots in S3 and HDFS, on real servers (needs go, mvn, java; builds one first: 4 minutes on 2 cores)
	@$(PYTHON) -m storage
	@$(PYTHON) -m pytest -n 3 --dist loadgroup -q tests/storage $(ARGS)

.PHONY: up down
up: setup ## Start the embedded control plane with the operator; prints its KUBECONFIG
	@$(PYTHON) -m drivetrain_cli up
down: ## Stop the embedded control plane
	@$(PYTHON) -m drivetrain_cli down

.PHONY: docs
docs: setup ## Build the documentation site into build/docs, and run its code blocks (about 3 minutes)
	@scripts/docs $(ARGS)
	@$(PYTHON) -m pytest -n 2 -q tests/unit/docs

.PHONY: observe
observe: setup ## A job that is killed, scaled and suspended under a real Prometheus: does every panel show something? (3 minutes)
	@$(PYTHON) -m observe $(ARGS)

.PHONY: dashboards
dashboards: setup ## Build the chart's Grafana dashboards from scripts/dashboards.py (downloads 5 MB first)
	@scripts/dashboards $(ARGS)

.PHONY: lint format
lint: setup ## Style, types, layers, and that generated files are current
	@$(PYTHON) -m ruff check . || $(MENDABLE)
	@$(PYTHON) -m ruff format --check . || $(MENDABLE)
	@$(PYTHON) -m mypy operator/drivetrain_api operator/drivetrain_operator operator/drivetrain_coordinator \
	  operator/drivetrain_local operator/drivetrain_cli operator/drivetrain_client operator/drivetrain_serving operator/drivetrain_energy operator/drivetrain_nodeagent worker-image/drivetrain tests
	@PYTHONPATH=operator:worker-image $(VENV)/bin/lint-imports --no-logo
	@$(PYTHON) scripts/generate --check

format: setup ## Mend what of the style can be mended without a person
	@$(PYTHON) -m ruff check --fix-only --quiet .
	@$(PYTHON) -m ruff format --quiet .

.PHONY: generate
generate: setup ## Write the CRD and the reference pages from the code
	@$(PYTHON) scripts/generate

.PHONY: bench-restart bench-snapshots bench-recovery bench-overhead bench-balance bench-training bench-scaling bench-bubble bench-operator bench-power bench-energy
bench-operator: setup ## The operator beside a plain create loop, on a real API server (root; about 10 minutes)
	@$(PYTHON) -m bench.operator_cost $(ARGS)
bench-restart: setup ## A rank, or a worker, of a stock script is killed, under us and torchrun (about 40 minutes; ARGS='--kills 3 --pods 3' for less)
	@$(PYTHON) -m bench.restart $(ARGS)
bench-snapshots: setup ## What it costs that every step can be gone back to, beside full checkpoints (about 8 minutes)
	@$(PYTHON) -m bench.snapshots $(ARGS)
bench-recovery: setup ## 200 kills on the embedded plane, torchrun beside it (about 40 minutes; ARGS='--zero 1,2,3' for ZeRO, too)
	@$(PYTHON) -m bench.recovery $(ARGS)
bench-overhead: setup ## Step time beside torch DDP (about 3 minutes)
	@$(PYTHON) tests/bench/overhead.py $(ARGS)
bench-balance: setup ## Step time with one rank of two held to a third of its core (root; about 2 minutes)
	@$(PYTHON) -m bench.balance $(ARGS)
bench-training: setup ## Every mode of training beside plain torch, and sums over slow links (root for those; about 17 minutes)
	@$(PYTHON) -m bench.training $(ARGS)
bench-scaling: setup ## Throughput of 1, 2 and 4 ranks in every mode, and where the time goes (about 12 minutes)
	@$(PYTHON) -m bench.training.scaling $(ARGS)
bench-bubble: setup ## How much of a step a pipeline's stage is idle, beside theory (about 3 minutes)
	@$(PYTHON) -m bench.bubble $(ARGS)
bench-energy: setup ## Carbon of energy plans beside the linear optimum, CarbonScaler and others, in seven made-up zones (about 8 minutes)
	@$(PYTHON) -m bench.energy $(ARGS)

bench-power: setup ## 200 power targets of 256 SIMULATED GPUs, beside one uniform cap and beside pausing only (about 3 minutes)
	@$(PYTHON) -m bench.power $(ARGS)

.PHONY: load
load: setup ## As many launchers and jobs as are declared, 2,000 hostile connections beside (root; about 10 minutes)
	@$(PYTHON) -m bench.load $(ARGS)

.PHONY: image
image: setup ## Build both images (docker, podman or buildah)
	@scripts/image

.PHONY: release
release: setup ## Images, chart, SBOMs, checksums (docs/releasing.md): ARGS="--registry … --dry-run" rehearses it in build/release
	@PATH="$(VENV)/bin:$$PATH" $(PYTHON) scripts/release $(ARGS)

.PHONY: krew
krew: setup ## The plugin for krew, in build/krew: URI=… says from where it will be downloaded
	@$(PYTHON) scripts/krew --uri $(or $(URI),$(error URI is not set: make krew URI=https://…/drivetrain.tar.gz)) $(ARGS)

.PHONY: cluster cluster-down e2e
cluster: setup ## A real three-node Kubernetes on this machine, built from source (root; first time 8 minutes)
	@$(PYTHON) -m cluster preflight --install
	@$(PYTHON) -m cluster up
cluster-down: setup ## End it; nothing stays behind
	@$(PYTHON) -m cluster down
e2e: setup ## Everything that is claimed of Kubernetes, on a real one (root)
	@scripts/e2e
