# Every target makes .venv first, or repairs it; see tools/setup_env.sh.
#   make demo PYTHON=python3.12          choose the interpreter that .venv is made with
#   make test PYTEST_ARGS="tests/losses -x"
#   make demo DEMO_ARGS="--help"
SHELL := /bin/bash
PYTHON ?=
VENV_PYTHON := .venv/bin/python
PACKAGES := cwrgp d2_transfer tools

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 8

setup: ## make or repair .venv (PYTHON=... chooses the interpreter)
	@PYTHON='$(PYTHON)' bash tools/setup_env.sh

# All cores, unless the caller says otherwise: the demo in one process, the tests in one for each.
demo: export OMP_NUM_THREADS ?= $(shell nproc)
test: export OMP_NUM_THREADS ?= 1
PYTEST_PROCESSES ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))

demo: setup ## pretrain, convert, fine-tune, report: output/demo/trials/report.html (DEMO_ARGS=...)
	$(VENV_PYTHON) tools/demo $(DEMO_ARGS)

test: setup ## the default test suite (PYTEST_ARGS=...)
	$(VENV_PYTHON) -m pytest -n $(PYTEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

lint: setup ## style, formatting and types
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy $(PACKAGES)

bench: setup ## time the parts of a training step (BENCH_ARGS=...)
	$(VENV_PYTHON) tools/benchmark.py $(BENCH_ARGS)

clean: ## remove .venv and caches; output/ stays
	rm -rf .venv .venv.* *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './output/*' -prune -exec rm -rf {} +
