# Every target sets up its own environment: Python and make are all a machine needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PARITY := .venv-parity
CLIENTS := .venv-clients
CLIENTS_LORA := .venv-clients-lora
PEERS := .venv-peers
DOCS := .venv-docs
RELEASE := .venv-release
OTHERS := $(PARITY) $(CLIENTS) $(CLIENTS_LORA) $(PEERS) $(DOCS) $(RELEASE)
version := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
installed := $(VENV)/installed-$(version)

.PHONY: demo test slow long lint cost finetune parity clients clients-lora peers real-smoke tutorial pages docs dist packages clean

demo: $(installed)  ## the digits benchmark: what DTNH gains and what it costs, on real data
	$(BIN)/python -m benchmarks.digits

test: $(installed)  ## the tests that everybody runs
	$(BIN)/python -m pytest

slow: $(installed)  ## what CI runs on top: the benchmarks' own tests, whole matrices, several processes
	$(BIN)/python -m pytest -m "slow and not long"

long: $(installed)  ## before a release: what takes minutes, and a longer search for counterexamples
	$(BIN)/python -m pytest -m long
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest tests/core/test_properties.py

lint: $(installed)  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

parity: $(PARITY)/installed  ## the models against torch's, in an environment with torch
	$(PARITY)/bin/python -m pytest -n 0 tests/models/parity

clients: $(CLIENTS)/installed  ## networks of another library, in an environment with it
	$(CLIENTS)/bin/python -m pytest -n 0 tests/models/clients

clients-lora: $(CLIENTS_LORA)/installed  ## adapters and a trainer of other libraries, in an environment with them
	$(CLIENTS_LORA)/bin/python -m pytest -n 0 tests/regularizers/clients

cost: $(installed)  ## bytes, memory, instructions and flops of one update
	$(BIN)/python -m benchmarks.cost

peers: $(PEERS)/installed  ## the same step in torch, by hand and with TorchJD, and in optax by hand
	OMP_WAIT_POLICY=PASSIVE $(PEERS)/bin/python -m benchmarks.peers

real-smoke: $(PARITY)/installed  ## the images and a few steps of the benchmark on a pretrained network, and of the tutorial
	$(PARITY)/bin/python -m pytest -n 0 tests/benchmarks/parity
	$(PARITY)/bin/python -m benchmarks.real --smoke
	$(PARITY)/bin/python docs/tutorial.py --quick

tutorial: $(PARITY)/installed  ## the tutorial executed anew: the notebook, its page and pictures
	$(PARITY)/bin/python docs/tutorial.py

finetune: $(installed)  ## every method of the fine-tuning command on the digits as image files
	$(BIN)/python -m benchmarks.paper.on_digits

pages: $(installed)  ## the tables and figures on the pages, from the records
	$(BIN)/python -m benchmarks.harness.pages

docs: $(DOCS)/installed  ## the site, in site/
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	@echo "The site is in site/. Open site/index.html, or run this and open http://localhost:8000 for the search:"
	@echo "  $(PYTHON) -m http.server -d site"

dist: $(RELEASE)/installed  ## wheel and sdist, in dist/, with their contents checked
	rm -rf dist
	$(RELEASE)/bin/python -m build --outdir dist .
	$(RELEASE)/bin/python -m twine check --strict dist/*
	$(RELEASE)/bin/python .ci/contents dist

packages: dist  ## the wheel alone, on every Python and with the lowest and the newest versions
	.ci/packages dist

# What each environment holds. torchvision is built for one version of torch, and asks for a build
# with CUDA: it and timm come without their dependencies.
$(installed): extras = dev
$(PARITY)/installed: extras = test-torch,real
$(PARITY)/installed: alone = torchvision==0.28.0 timm==1.0.31
$(CLIENTS)/installed: extras = clients-models
$(CLIENTS_LORA)/installed: extras = clients-lora
$(PEERS)/installed: extras = peers
$(DOCS)/installed: extras = docs
$(RELEASE)/installed: extras = release
# Of all the modules, Python compiles those that are imported, once they are.
install = $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile

$(installed) $(addsuffix /installed,$(OTHERS)): pyproject.toml
	$(PYTHON) -m venv --clear $(@D)
	$(install) --editable '.[$(extras)]'
	$(if $(alone),$(install) --no-deps $(alone))
	touch $@

clean:
	rm -rf .cache $(VENV) $(OTHERS) site dist
