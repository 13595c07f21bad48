# make run [MODEL=small]   set up, start the daemon, add the sample documents, ask three questions
# make test                set up what the tests need, then formatting, lints, types, import contracts and tests
# make bench [DATA=DIR]    time and memory; with DIR/squad2_normans.json and DIR/clinc150_small.json, quality too
# make bench-engine [MODEL=small] [QUICK=1] [ONLY=NAME,...]   the engine's bars, against the bare loop and peers
# make bench-knowledge [DATA=DIR] [QUICK=1] [ONLY=NAME,...]   knowledge's bars; with DIR/squad2_normans.json, all of them
# make bench-peers         those peers (llama-server, xllamacpp; usearch, faiss, lancedb, chroma), in an environment of their own
# make setup | lint | clean
# EDGE_HOME, where it is set, holds models and state; the environment is always .venv here.

PYTHON ?= python3
ENV    := .venv
BIN    := $(ENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check -qq --no-input
PIP_VERSION := 26.3
SMALL  := smollm2-135m-instruct

ifeq ($(MODEL),small)
WRITER := $(SMALL)
else ifneq ($(MODEL),)
WRITER := $(MODEL)
endif
WRITER_OPTION = $(if $(WRITER),--writer $(WRITER))

ifdef EDGE_HOME
export EDGE_HOME
endif

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: run test setup lint bench bench-engine bench-knowledge bench-peers clean strace

run: setup
	@$(BIN)/edge demo $(WRITER_OPTION)

setup: $(ENV)/.installed
	@$(BIN)/edge-firmware setup $(WRITER_OPTION)

test: strace $(ENV)/.installed-test
	@$(BIN)/edge-firmware setup --writer $(SMALL) --no-tune
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest -q

lint: $(ENV)/.installed-test
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup $(ENV)/.installed-test
	@$(if $(DATA),for file in squad2_normans.json clinc150_small.json; do test -f $(DATA)/$$file || { \
	  echo "make: $(DATA)/$$file is not there: benchmarks/README.md says what it is" >&2; exit 1; }; done)
	@$(BIN)/edge-firmware setup --writer $(SMALL)
	@$(BIN)/python -m benchmarks.cold_start
	@$(BIN)/python -m benchmarks.answer $(if $(DATA),--squad $(DATA)/squad2_normans.json)
	@$(if $(DATA),$(BIN)/python -m benchmarks.squad --data $(DATA)/squad2_normans.json)
	@$(if $(DATA),$(BIN)/python -m benchmarks.off_subject --data $(DATA)/clinc150_small.json --squad $(DATA)/squad2_normans.json)

bench-engine: setup $(ENV)/.installed-test
	@$(BIN)/edge-firmware setup --writer $(SMALL)
	@$(BIN)/python -m benchmarks.engine $(WRITER_OPTION) $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

bench-knowledge: setup $(ENV)/.installed-test
	@$(if $(DATA),test -f $(DATA)/squad2_normans.json || { \
	  echo "make: $(DATA)/squad2_normans.json is not there: benchmarks/README.md says what it is" >&2; exit 1; })
	@$(BIN)/edge-firmware setup --writer $(SMALL)
	@$(BIN)/python -m benchmarks.knowledge $(if $(DATA),--data $(DATA)) $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

bench-peers: setup
	@$(BIN)/python -m benchmarks.peers_install

clean:
	rm -rf $(ENV) .venv-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# These recipes say what is missing, before anything is downloaded.
strace:
	@command -v strace >/dev/null || { \
	  echo "make: the tests watch system calls with strace, which is missing: apt-get install strace, as root" >&2; exit 1; }

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here: apt-get install python3 python3-venv, as root" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $$($(PYTHON) --version) is too old, Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: $(PYTHON) has no venv: apt-get install python3-venv, as root" >&2; exit 1; }
	@for tool in cc c++; do command -v $$tool >/dev/null || { \
	  echo "make: llama.cpp needs a C and a C++ compiler ($$tool is missing): apt-get install build-essential, as root" >&2; exit 1; }; done
	@echo "making $(ENV)" >&2
	@$(PYTHON) -m venv $(ENV)

$(ENV)/.pip: $(BIN)/python
	@$(PIP) install pip==$(PIP_VERSION) || { echo "make: pip cannot fetch packages; is the package index reachable?" >&2; exit 1; }
	@touch $@

$(ENV)/.installed: pyproject.toml $(ENV)/.pip
	@echo "installing packages" >&2
	@$(PIP) install --editable . || { echo "make: a package cannot be had (see above)" >&2; exit 1; }
	@touch $@

$(ENV)/.installed-test: pyproject.toml $(ENV)/.pip
	@echo "installing packages, with those for tests" >&2
	@$(PIP) install --editable '.[test]' || { echo "make: a package cannot be had (see above)" >&2; exit 1; }
	@touch $@ $(ENV)/.installed
