# `make demo` shows it, `make test` proves it, `make lint` keeps it tidy.
# Each makes the environment that it needs from Python >= 3.10 alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYENV ?= $(or $(PYENV_ROOT),$(HOME)/.pyenv)
# The lower bounds under install_requires, as "boto3==1.34.0 ...".
OLDEST = $(shell sed -n '/^install_requires/,/^$$/s/^ *\([a-z0-9]*\) *>= *\([0-9.]*\).*/\1==\2/p' setup.cfg)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test lint fast environment pythons oldest clean

demo: $(VENV)/.local
	@$(BIN)/python examples/orders/demo.py

# Tests that interrupt code at each place run by themselves, and unmeasured:
# coverage's lock would stay locked.  A part of which none was chosen ends with 5.
JOBS ?= 2
PYTEST = $(BIN)/python -m pytest -q -n $(JOBS)
test: $(VENV)/.test
	$(PYTEST) -m "process and not interrupts" --cov --cov-report= --cov-fail-under=0 $(ARGS) || [ $$? -eq 5 ]
	$(PYTEST) -m "not process and not interrupts" --cov --cov-append --cov-report=term $(ARGS) || [ $$? -eq 5 ]
	$(PYTEST) -m interrupts $(ARGS) || [ $$? -eq 5 ]

# Without the tests that start real processes.
FAST ?= not process
fast: $(VENV)/.test
	$(PYTEST) -m "$(FAST) and not interrupts" $(ARGS) || [ $$? -eq 5 ]
	$(PYTEST) -m "$(FAST) and interrupts" $(ARGS) || [ $$? -eq 5 ]

# What a test needs, and nothing run: a way to make environments beforehand.
environment: $(VENV)/.test

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/python tests/test_layers.py

# The fast tests on every other Python that is installed here, of these minor versions.
MINORS ?= 10 11 12 13 14
GOAL ?= fast
pythons:
	@for minor in $(MINORS); do \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] == (3, '$$minor'))' || continue; \
	  for python in python3.$$minor $(PYENV)/versions/3.$$minor.*/bin/python; do \
	    $$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, '$$minor'))' 2>/dev/null || continue; \
	    echo "== Python 3.$$minor"; \
	    $(MAKE) --no-print-directory $(GOAL) VENV=.venv-3.$$minor PYTHON=$$python || exit 1; \
	    break; \
	  done; \
	done

# The fast tests on the oldest Python here, with the oldest dependencies that setup.cfg admits.
OLD_PYTHON ?= $(shell for python in python3.10 $(PYENV)/versions/3.10.*/bin/python $(PYTHON); do \
  $$python -c '' 2>/dev/null && echo $$python && break; done)
oldest:
	@$(MAKE) --no-print-directory environment VENV=$(VENV)-oldest PYTHON=$(OLD_PYTHON)
	$(VENV)-oldest/bin/python -m pip install -q -q $(OLDEST)
	$(VENV)-oldest/bin/python --version
	$(MAKE) --no-print-directory $(GOAL) VENV=$(VENV)-oldest

clean:
	rm -rf .venv* build dist *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is not there, or older than 3.10: say PYTHON=python3.12, for example"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { $(PYTHON) -c 'import sys; print("python%d.%d cannot make virtual environments: apt-get install python%d.%d-venv" % (sys.version_info[:2] * 2))'; exit 1; }
	@echo "making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.local $(VENV)/.test $(VENV)/.lint: $(VENV)/.%: setup.cfg pyproject.toml | $(BIN)/python
	@echo "installing what '$*' needs ..."
	@$(BIN)/python -m pip install -q -q -e '.[$*]'
	@touch $@
