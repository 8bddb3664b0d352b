# `make demo` shows it, `make test` proves it, `make lint` keeps it tidy.
# Each makes the environment that it needs from Python >= 3.10 alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYENV ?= $(or $(PYENV_ROOT),$(HOME)/.pyenv)
# The lower bounds under install_requires, as "boto3==1.34.0 ...".
OLDEST = $(shell sed -n '/^install_requires/,/^$$/s/^ *\([a-z0-9]*\) *>= *\([0-9.]*\).*/\1==\2/p' setup.cfg)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test lint fast pythons oldest clean

demo: $(VENV)/.local
	@$(BIN)/python examples/orders/demo.py

# First those that start real processes (5: none was chosen), then the others.
test: $(VENV)/.test
	$(BIN)/python -m pytest -q -m process --cov --cov-report= --cov-fail-under=0 $(ARGS) || [ $$? -eq 5 ]
	@touch $(VENV)/.processes-tested
	$(BIN)/python -m pytest -q -m "not process" --cov --cov-append --cov-report=term $(ARGS) || [ $$? -eq 5 ]

# Without the tests that start real processes.
FAST ?= not process
fast: $(VENV)/.test
	$(BIN)/python -m pytest -q -m "$(FAST)" $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/python tests/test_layers.py

# The fast tests on every other Python that is installed here, of these minor versions.
MINORS ?= 10 11 12 13 14
pythons:
	@for minor in $(MINORS); do \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] == (3, '$$minor'))' || continue; \
	  for python in python3.$$minor $(PYENV)/versions/3.$$minor.*/bin/python; do \
	    $$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, '$$minor'))' 2>/dev/null || continue; \
	    echo "== Python 3.$$minor"; \
	    $(MAKE) --no-print-directory fast VENV=.venv-3.$$minor PYTHON=$$python || exit 1; \
	    break; \
	  done; \
	done

# The fast tests of what uses dependencies, with the oldest that setup.cfg admits.
USERS = tests/aws tests/dropin tests/faults tests/flags tests/properties tests/values \
  tests/telemetry/test_firehose.py tests/test_cold_start.py tests/test_injection.py
oldest: $(VENV)-oldest/.test
	$(VENV)-oldest/bin/python -m pip install -q -q $(OLDEST)
	$(MAKE) --no-print-directory fast VENV=$(VENV)-oldest ARGS="$(USERS)"

$(VENV)-oldest/.test:
	@$(MAKE) --no-print-directory $@ VENV=$(VENV)-oldest

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
