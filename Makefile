# Every target sets up what it needs: an environment in .venv, made anew when pyproject.toml changes.
PYTHON ?= python3
PIP_FLAGS ?=
READY := .venv/.ready-$(shell $(PYTHON) -c "import hashlib; print(hashlib.sha256(open('pyproject.toml','rb').read()).hexdigest()[:16])")
RUN := .venv/bin/python

.PHONY: help demo demo-benchmark test real lint bench soak docs notebooks clean
help: ## show the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(READY):
	@$(PYTHON) -c "import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f'dfl needs Python 3.11 to 3.13, and {sys.executable} is {v.major}.{v.minor}; say: make PYTHON=python3.12 ...')"
	@echo "setting up .venv (once, a few minutes: torch brings several GB)"
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --editable '.[test]'
	@touch $@

demo: $(READY) ## toy data, training, test on every domain, report: about 8 minutes on 2 cores
	@$(RUN) -m dfl toy
	@$(RUN) -m dfl fit --config demo/vit_scl.yaml --name demo --overwrite
	@$(RUN) -m dfl test --name demo --ckpt_path best

demo-benchmark: $(READY) ## six detectors on toy domains, tables and report: about 10 minutes on 2 cores
	@OMP_NUM_THREADS=1 $(RUN) -m dfl benchmark toy --jobs 2

test: $(READY) ## the whole test suite
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n logical --maxprocesses 4 --dist loadfile --ignore=tests/real

real: $(READY) ## acceptance on real images and weights, which you bring: make real REAL=DIR, see tests/real/conftest.py
	@REAL="$(REAL)" $(RUN) -m pytest tests/real -rs

lint: $(READY) ## ruff and mypy
	@$(RUN) -m ruff check dfl tests && $(RUN) -m ruff format --check dfl tests && $(RUN) -m mypy

bench: $(READY) ## speed, each as a ratio against a named baseline in the same run
	@$(RUN) -m tests.bench

soak: $(READY) ## kill training at random 50 times, and compare what the resumed runs end with (20 minutes)
	@$(RUN) tests/soak.py --kills 50

docs: $(READY) ## the site of the docs, in site/: pages, API from docstrings; a warning is an error
	@$(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --editable '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build

notebooks: $(READY) ## run the notebooks of docs/recipes on toy images
	@$(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --editable '.[notebooks]'
	@PYTHONPATH=tests $(RUN) tests/notebooks.py

clean: ## remove the environment and caches, not your runs
	@rm -rf .venv .pytest_cache .ruff_cache .mypy_cache
