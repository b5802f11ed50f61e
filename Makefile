# make demo   train, judge and draw a first model          make test   the whole test suite
# make fast   the tests without the slow ones              make docs   the tests of the documentation
# make lint   style                                        make types  annotations
# make bench  training speed beside pythae, in an environment of its own
# make vqbench  steps of a codebook beside vector-quantize-pytorch, in an environment of its own
# make servebench  the server beside LitServe, in an environment of its own; needs wrk
# make soak   ten minutes of load, and the slope of the memory
# make reference   write docs/reference.md and the tree in README.md from the source

PYTHON ?= python3
BIN := .venv/bin
RUN := runs/demo
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: lifecycle adbench bench servebench soak vqbench demo test fast docs lint types reference .venv

demo: .venv
	$(BIN)/lowerbound train digits --out $(RUN) --resume
	$(BIN)/lowerbound evaluate $(RUN)
	$(BIN)/lowerbound report $(RUN)
	@$(BIN)/python examples/findings.py $(RUN)

lifecycle: .venv
	rm -rf runs/lifecycle
	$(BIN)/lowerbound lifecycle digits --out runs/lifecycle

test: .venv
	$(PYTEST)

fast: .venv
	$(PYTEST) -m "not slow"

docs: .venv
	$(PYTEST) tests/docs

lint: .venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv
	$(BIN)/mypy

reference: .venv
	$(BIN)/python scripts/reference.py

.venv: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

bench: .venv .venv-bench/.installed
	$(BIN)/python benchmarks/training/compare.py .venv-bench/bin/python

.venv-bench/.installed: constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch pythae
	@touch $@

adbench: .venv .venv-adbench/.installed
	$(BIN)/python benchmarks/anomaly/compare.py .venv-adbench/bin/python --out runs/adbench

.venv-adbench/.installed: constraints.txt
	$(PYTHON) -m venv .venv-adbench
	.venv-adbench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch pyod tqdm
	@touch $@

vqbench: .venv-vqbench/.installed
	OMP_NUM_THREADS=1 .venv-vqbench/bin/python benchmarks/quantizers.py

.venv-vqbench/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-vqbench
	.venv-vqbench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . vector-quantize-pytorch
	@touch $@

servebench: .venv .venv-servebench/.installed
	$(BIN)/python benchmarks/serving/compare.py .venv-servebench/bin/python --out runs/servebench

.venv-servebench/.installed: constraints.txt
	$(PYTHON) -m venv .venv-servebench
	.venv-servebench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt litserve onnxruntime pillow
	@touch $@

soak: .venv
	$(BIN)/python benchmarks/serving/soak.py --out runs/servebench
