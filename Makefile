# `make` alone prints what there is. Everything lives in .venv and var/; nothing outside is touched.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo model test check docs bench mutants simulate slow faults soak clean

VENV := .venv
BIN := $(VENV)/bin
# Bytecode is left to the first import: compiling all of torch and transformers here costs a minute.
INSTALL := -m pip --disable-pip-version-check --no-input install --quiet --progress-bar off --no-compile -c constraints.txt

# The watermark and both stores' version guards: what a wrong line would turn into lost or stale records.
PROMISE := pipeline/live/offsets.py,pipeline/stores/wire.py,pipeline/stores/edge_shard.py

# What `make demo` can be told; passed on through the environment, so that quoting survives.
export DATA TEXT KEY BOOTSTRAP_SERVERS

# These run other people's engines beside ours, which need packages of their own: kept apart, for where pandas is
# installed, each process of Serve imports it at its start.
COMPARING := backfill engine
BENCH := $(VENV)/bench

BENCHMARKS := $(patsubst tests/benchmarks/%.py,%,$(filter-out tests/benchmarks/_%,$(wildcard tests/benchmarks/*.py)))

help:
	@echo 'make demo    streams a demo set of tickets through the pipeline and searches them'
	@echo '             on your data: make demo DATA=my.csv TEXT="{title} {body}" KEY=id'
	@echo '             on your broker: make demo BOOTSTRAP_SERVERS=localhost:9092'
	@echo 'make model   trains the adapter of the demo again, in var/model: about half an hour on two cores'
	@echo 'make test    runs every test with coverage; fetches a Kafka broker and two models the first time'
	@echo 'make check   lint, format, types, layers, spelling, unit tests'
	@echo 'make docs    writes the generated parts of docs/ again'
	@echo 'make bench   runs the benchmarks and writes var/bench/*.json: about two hours, or BENCHMARKS="live freshness"'
	@echo 'make mutants  removes the parts of the promise one by one; a test must notice each'
	@echo 'make simulate random faults on virtual time, SEEDS=100000 of them'
	@echo 'make slow    the tests that take minutes: overload, a lost node, repair and backfill beside live records, fuzzing'
	@echo 'make faults  every row of the fault table on real processes; about fifty minutes; var/faults.json'
	@echo 'make soak    random faults to one running app for HOURS=1, each by a printed seed; var/soak.json'
	@echo 'make clean   removes what the other targets made, except .venv and the broker'
	@echo 'Needs Python 3.11 or later; name another with PYTHON=python3.12'

# An interpreter is looked for only when there is no .venv yet.
$(BIN)/python:
	@python=$${PYTHON:-}; \
	if [[ -z $$python ]]; then \
	  for candidate in python3 python3.13 python3.12 python3.11; do \
	    if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	  done; \
	fi; \
	if [[ -z $$python ]]; then echo 'make: no Python 3.11 or later found; name one with PYTHON=...' >&2; exit 1; fi; \
	if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "make: $$python cannot create environments. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; \
	fi; \
	echo "make: creating $(VENV) with $$($$python --version)"; \
	$$python -m venv $(VENV)

# A stamp each, so that an install is done once, and again when the versions change.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'make: installing refract[$*] (the first time this downloads torch: a few minutes)'
	@$(BIN)/python $(INSTALL) -e '.[$*]'
	@touch $@

# Sees everything in $(VENV), too.
$(BENCH)/.installed: $(VENV)/.installed-dev
	@echo 'make: installing refract[bench] beside it'
	@$(BIN)/python -m venv $(BENCH)
	@where='import site; print(site.getsitepackages()[0])'; \
	$(BIN)/python -c "$$where" > "$$($(BENCH)/bin/python -c "$$where")/beside.pth"
	@$(BENCH)/bin/python $(INSTALL) -e '.[bench]'
	@touch $@

demo: $(VENV)/.installed-demo
	@$(BIN)/refract demo $${DATA:+--data "$$DATA"} $${TEXT:+--text "$$TEXT"} $${KEY:+--key "$$KEY"} \
	  $${BOOTSTRAP_SERVERS:+--bootstrap-servers "$$BOOTSTRAP_SERVERS"}

# Started again after an interruption, it continues.
STEPS ?= 300

model: $(VENV)/.installed-demo $(VENV)/.installed-tune
	@$(BIN)/refract tune pipeline/demo/model.yaml pipeline/demo/training --tasks urgency,issue,tone,wish \
	  --wordings pipeline/demo/wordings.json --method lora --steps $(STEPS) --texts 32 --learning-rate 1e-3 \
	  --base-name sentence-transformers/all-MiniLM-L6-v2 --output var/model

check: $(VENV)/.installed-dev
	@echo 'make: ruff';          $(BIN)/ruff check .
	@echo 'make: ruff format';   $(BIN)/ruff format --check .
	@echo 'make: mypy';          $(BIN)/mypy
	@echo 'make: import-linter'; $(BIN)/lint-imports
	@echo 'make: codespell';     $(BIN)/codespell
	@echo 'make: unit tests';    $(BIN)/python -m pytest tests/unit -q

test: $(VENV)/.installed-dev
	@echo 'make: Kafka broker';  infra/kafka.sh fetch
	@echo 'make: real weights';  infra/weights.sh fetch >/dev/null || echo 'make: their tests will be skipped'
	@echo 'make: promtool';      infra/promtool.sh fetch >/dev/null || echo 'make: its tests will be skipped'
	@echo 'make: KubeRay schema'; infra/kuberay.sh fetch >/dev/null || echo 'make: its test will be skipped'
	@$(BIN)/coverage erase
	@echo 'make: every test';    COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml $(BIN)/coverage run -m pytest
	@$(BIN)/coverage combine --quiet
	@echo 'make: coverage of pipeline/, at least 90 % of lines and branches'
	@$(BIN)/coverage report --fail-under=90
	@echo 'make: coverage of the watermark and the version guard, 100 %'
	@$(BIN)/coverage report --skip-empty --no-skip-covered --fail-under=100 \
	  --include='$(PROMISE)'

docs: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.docs.generate

bench: $(VENV)/.installed-dev $(if $(filter $(COMPARING),$(BENCHMARKS)),$(BENCH)/.installed)
	@mkdir -p var/bench
	@for name in $(BENCHMARKS); do \
	  echo "make: benchmark $$name"; \
	  case " $(COMPARING) " in *" $$name "*) bin=$(BENCH)/bin;; *) bin=$(BIN);; esac; \
	  "$$bin/python" -m "tests.benchmarks.$$name" --json "var/bench/$$name.json"; \
	done
	@echo 'make: results are in var/bench/'

mutants: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.mutants --json var/mutants.json

SEEDS ?= 100000

simulate: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS)

# For each of fourteen targets.
FUZZ_SECONDS ?= 30

# Ray Train needs packages that are kept apart, too.
slow: $(VENV)/.installed-dev $(BENCH)/.installed
	@infra/kafka.sh fetch
	@REFRACT_SLOW=1 $(BIN)/python -m pytest -m slow
	@REFRACT_SLOW=1 $(BENCH)/bin/python -m pytest tests/e2e/test_tune_workers.py
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --json var/fuzz.json

faults: $(VENV)/.installed-dev
	@infra/kafka.sh fetch
	@$(BIN)/python -m tests.faults --json var/faults.json

HOURS ?= 1

soak: $(VENV)/.installed-dev
	@infra/kafka.sh fetch
	@$(BIN)/python -m tests.faults --hours $(HOURS) --seed $$RANDOM --json var/soak.json

# var/tickets and its like may hold somebody's real data; only what the targets above made goes.
clean:
	rm -rf build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	rm -rf var/demo var/null var/bench var/tests var/mutants.json var/bad_input.json var/faults.json var/faults_random.json var/fuzz var/fuzz.json var/soak.json var/overload.json
	find pipeline actors tests -name __pycache__ -type d -prune -exec rm -rf {} +
