# Everything a fresh machine needs is made by the first target that is asked for.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
OUT    := demo-out
IMAGES := demo-images-out
LM     := demo-lm-out

# Threads that spin while they wait make torch many times slower on a machine that is shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo demo-images demo-lm docs test processors lint bench extras faults croissant readers dist collection clean

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

demo-images: $(READY)  ## The same of pictures: a small ViT, and whether maps find the right shape
	rm -rf $(IMAGES)
	$(BIN)/attribeam run --config examples/images.yaml --output $(IMAGES)
	@echo
	@$(BIN)/attribeam query $(IMAGES) examples/images.sql
	@cat examples/next-images.txt

demo-lm: $(READY)  ## Each token that a small language model goes on with, and whether evidence is found
	rm -rf $(LM)
	$(BIN)/attribeam run --config examples/lm.yaml --output $(LM)
	@echo
	@$(BIN)/attribeam query $(LM) examples/lm.sql
	@cat examples/next-lm.txt

test: $(READY)  ## Lint and all tests
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

processors: $(READY)  ## The tests of numbers with other processors' arithmetic (SETTINGS="..." for some)
	$(BIN)/python -m tests.processors $(SETTINGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

# An environment of its own: it reads the sources and imports nothing of them.
docs:  ## The documentation as a site with the API reference, in build/site/
	$(PYTHON) -m venv build/docs
	build/docs/bin/pip install --quiet --constraint constraints.txt mkdocs 'mkdocstrings[python]'
	build/docs/bin/mkdocs build --strict

readers: $(READY)  ## Whether other libraries, old and new, read what is published (READERS="polars" for some)
	$(BIN)/python -m tests.readers $(READERS)

faults: $(READY)  ## Parts on hosts that share a store alone, killed and cut off (FAULTS=20 for fewer than 200)
	$(BIN)/python -m tests.faults $(FAULTS)

croissant: $(READY)  ## Whether the Croissant that the hub makes of what is published is one, by mlcroissant
	$(BIN)/python -m tests.croissant

collection: $(READY)  ## The bundled corpora as data sets to be published, each opened again (in collection/)
	$(BIN)/python -m examples.collection collection

bench: $(READY)  ## The figures of docs/figures.md
	$(BIN)/python -m benchmarks

# What each extra is by itself, and all of them together, with the newest packages that go together:
# without constraints.txt, and as metadata alone, so that nothing is installed and little fetched.
EXTRAS := gcp gcs s3 dask test lint docs gcp,gcs,s3,dask,test,lint,docs

extras:  ## Whether pip finds a solution for every extra without constraints.txt
	rm -rf build/extras
	$(PYTHON) -m venv build/extras
	@for extra in $(EXTRAS); do \
	    echo "$$extra:"; \
	    build/extras/bin/pip install --quiet --dry-run --ignore-installed \
	        --report build/extras/report.json ".[$$extra]" || exit 1; \
	    $(PYTHON) -c 'import json; print(*sorted("{name} {version}".format_map(each["metadata"]) \
	        for each in json.load(open("build/extras/report.json"))["install"]), sep=", ")'; \
	done

# Without constraints.txt, as anybody installs it. Of the Pythons, those that are there.
dist:  ## The archives of a release, in dist/, each tried in an environment of its own
	rm -rf dist build
	$(PYTHON) -m venv build/tools
	build/tools/bin/pip install --quiet build
	build/tools/bin/python -m build --outdir dist .
	@for python in python3.11 python3.12 python3.13; do \
	    command -v $$python > build/found || { echo "$$python: not here"; continue; }; \
	    for archive in dist/*; do \
	        rm -rf build/tried && $$python -m venv build/tried || exit 1; \
	        build/tried/bin/pip install --quiet $$archive || exit 1; \
	        (cd build && tried/bin/attribeam --version && tried/bin/attribeam methods saliency \
	            > tried.txt) || exit 1; \
	        echo "$$python: $$archive"; \
	    done; \
	done

clean:
	rm -rf dist collection $(VENV) $(OUT) $(IMAGES) $(LM) build src/*.egg-info
