# Everything a fresh machine needs is made by the first target that is asked for.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
OUT    := demo-out

# Threads that spin while they wait make torch many times slower on a machine that is shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test lint bench clean

$(READY): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $(READY)

demo: $(READY)  ## Attribute and evaluate the bundled corpus with the bundled model
	rm -rf $(OUT)
	$(BIN)/attribeam run --model examples/models/sentiment-bert \
	    --corpus examples/data/sentiment.parquet --output $(OUT) --limit 100
	@echo
	@$(BIN)/attribeam query $(OUT) examples/faithfulness.sql
	@cat examples/next.txt

test: $(READY)  ## Lint and all tests
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

bench: $(READY)  ## The figures that the README quotes
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(OUT) build *.egg-info
