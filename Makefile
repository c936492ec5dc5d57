# make demo       images to evaluated encoders, on this machine, in minutes
# make test       every check that a change must pass (CI runs the same)
# make test-fast  two minutes: no S3, no browser, no kubectl, no other processes, nothing heavy
# make test-portable  tests of float results, once for each instruction set of the CPU
# make test-slow  the rest: tests of many minutes, and test-portable
# make format     ruff formats the code
# make render     writes jobs/ from k8s/
# make images     builds every image by docker or buildah, and runs it; ARGS="TARGET … -- OPTION …"
# make lock       resolves images/*/requirements.lock; needs uv

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FAST := not (s3 or process or browser or kubectl or heavy or slow)
LONGEST_FIRST := --no-loadscope-reorder tests/test_kill.py tests/kubernetes/launcher tests/test_chain.py tests
INSTALL := $(BIN)/pip install --quiet --constraint constraints.txt

.PHONY: demo test test-fast test-portable test-slow check format render images lock clean

demo: $(VENV)/.demo
	$(BIN)/adainf run recipes/demo.yaml --run runs/demo

test: check
	rm -f .coverage .coverage.*
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -m "not slow" -ra --durations=10 --numprocesses 2 --dist loadfile $(LONGEST_FIRST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=85

test-fast: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "$(FAST)" --durations=10 --numprocesses 2 --dist loadfile

test-portable: $(VENV)/.dev
	$(BIN)/python -m tests.portable

test-slow: test-portable
	$(BIN)/python -m pytest -m slow -ra

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

render: $(VENV)/.dev
	$(BIN)/python -m k8s.refresh

images: $(VENV)/.dev
	$(BIN)/python images/build.py $(ARGS)

lock:
	$(PYTHON) images/lock.py

clean:
	rm -rf $(VENV)

$(VENV)/bin/pip:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "AdaInf needs Python 3.11 or later; set PYTHON"'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(INSTALL) --editable '.[train]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(INSTALL) --editable '.[dev]'
	touch $@
