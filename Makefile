# smeld's commands. `make demo` and `make test` need only Python >= 3.11, make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYMINOR := $(shell $(PYTHON) -c 'import sys; print(sys.version_info[1])' 2>/dev/null)
LOCK := $(if $(filter 11,$(PYMINOR)),constraints/core-py311.txt,constraints/core-py312.txt)
STAMP := $(VENV)/.installed
STAMP_DEEP := $(VENV)/.installed-deep
JOBS ?= 2

.PHONY: help demo test test-all bench lint types install deep lock clean

help:
	@echo 'make demo      simulate a section, run the whole main job, print where report.html lies'
	@echo 'make test      lint, types, tests'
	@echo 'make deep      install the deep models too (torch; Python 3.11), whose tests `make test` then runs'
	@echo 'make test-all  the same with the slow tests'
	@echo 'make bench     measure, and write docs/benchmarks.md'
	@echo 'make lock      renew the constraint files (needs Python 3.11 and 3.12)'

$(STAMP): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit("smeld needs Python >= 3.11, found " + sys.version.split()[0] + "; set PYTHON=") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) -e '.[test,spatialdata,viewer,notebook]'
	@touch $@

install: $(STAMP)

# Everything in one step, from the deep lock, which holds what the core lock holds and torch with what needs it.
$(STAMP_DEEP): pyproject.toml constraints/deep-py311.txt
	test "$(PYMINOR)" = 11 || { echo 'the deep lock is made for Python 3.11: set PYTHON=python3.11, or pip install "smeld[deep]"'; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/deep-py311.txt -e '.[test,spatialdata,viewer,notebook,deep]'
	@touch $(STAMP) $@

deep: $(STAMP_DEEP)

demo: $(STAMP)
	$(BIN)/smeld demo --out demo

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

types: $(STAMP)
	$(BIN)/mypy

test: lint types
	$(BIN)/pytest -n $(JOBS) --dist worksteal

test-all: lint types
	$(BIN)/pytest -n $(JOBS) --dist worksteal -m ''

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py --out docs/benchmarks.md

# Plain pip constraint files: no index or find-links lines, no hashes, no torch.
lock:
	rm -rf .venv-lock311 .venv-lock312
	python3.11 -m venv .venv-lock311 && .venv-lock311/bin/pip install --quiet pip-tools
	.venv-lock311/bin/pip-compile --quiet --strip-extras --extra test --extra spatialdata --extra viewer --extra notebook --constraint constraints/traps.in --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file constraints/core-py311.txt pyproject.toml
	.venv-lock311/bin/pip-compile --quiet --strip-extras --extra test --extra spatialdata --extra viewer --extra notebook --extra deep --constraint constraints/traps-deep.in --constraint constraints/core-py311.txt --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file constraints/deep-py311.txt pyproject.toml
	sed -i 's/^\(torch==[0-9.]*\)+cpu$$/\1/' constraints/deep-py311.txt
	python3.12 -m venv .venv-lock312 && .venv-lock312/bin/pip install --quiet pip-tools
	.venv-lock312/bin/pip-compile --quiet --strip-extras --extra test --extra spatialdata --extra viewer --extra notebook --constraint constraints/traps.in --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file constraints/core-py312.txt pyproject.toml
	rm -rf .venv-lock311 .venv-lock312

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
