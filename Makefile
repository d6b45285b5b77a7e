# Everything runs in .venv, which is made on the first call. Only Python 3.10 or newer, gcc and make are needed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
ONEDL_PIP := .onedl/bin/python -m pip --disable-pip-version-check
# What tests/support/pretrain.py imports, apart from everything else: torchvision's wheels are for CUDA.
PRETRAIN := mmpretrain timm torchvision einops importlib_metadata markdown mat4py model-index ordered-set zipp
# Not beside mmpretrain, which imports it where it is there, and fails with version 5.
TRANSFORMERS := transformers tokenizers regex
# An index to take torch from, such as that of its wheels without CUDA: make test INDEX=https://download.pytorch.org/whl/cpu
INDEX ?=
TORCH := -c constraints.txt $(if $(INDEX),--index-url $(INDEX)) torch
# What `make test-onedl` runs: all that speaks to mmengine, mmcv and mmdet, and two trainings.
ONEDL := $(addprefix tests/mmdetection/,test_stack.py test_guard.py test_loader.py check/test_run.py)
# What `make test-lowest` runs: what needs no torch, of the command line and below it.
LOWEST := tests/cli/test_cli.py tests/sources/test_atomic.py tests/sources/test_addresses.py

.PHONY: demo test test-fast test-lowest test-onedl lint bench pages clean

.venv/.core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -q -c constraints.txt -e .
	touch $@

# torch comes first and alone: mmcv's build imports it, and a later resolution must not bring another.
.venv/.test: .venv/.core
	$(BIN)/python -m tests.support.downloads $(TORCH)
	$(PIP) install -q $(TORCH)
	$(PIP) install -q -c constraints.txt numpy setuptools wheel ninja psutil
	MMCV_WITH_OPS=1 $(PIP) install -q -c constraints.txt --no-build-isolation mmcv
	$(PIP) install -q -c constraints.txt -e '.[mmdet,test]'
	$(BIN)/ckptconv doctor
	touch $@

# A folder of its own: this file's list may change where the rest is there already.
.venv/.pretrain: .venv/.core Makefile constraints.txt
	$(PIP) install -q -c constraints.txt --no-deps --upgrade --target .venv/pretrain $(PRETRAIN)
	$(PIP) install -q -c constraints.txt --no-deps --upgrade --target .venv/transformers $(TRANSFORMERS)
	touch $@

demo: .venv/.core
	$(BIN)/python -m tests.demo

# Two processes, since hosted runners have two cores; make test JOBS=8 where there are more.
JOBS ?= 2
test: .venv/.test .venv/.pretrain
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations=10

# What needs no MMDetection: the answer to most changes, in two minutes.
test-fast: .venv/.core
	$(PIP) install -q $(TORCH)
	$(PIP) install -q -c constraints.txt -e '.[test]'
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations=10 -m 'not mmdet'

# The lowest versions that pyproject.toml allows of what the core needs, and the newest of what that needs in turn.
.lowest/.made: pyproject.toml constraints.txt
	test -x .lowest/bin/python || $(PYTHON) -m venv .lowest
	.lowest/bin/python -m pip --disable-pip-version-check install -q uv
	.lowest/bin/uv pip install -q --python .lowest --upgrade --resolution lowest-direct --only-binary :all: -r pyproject.toml
	.lowest/bin/uv pip install -q --python .lowest -c constraints.txt pytest hypothesis
	touch $@

# Old versions warn of what they are to lose: their warnings are shown, and no errors.
test-lowest: .lowest/.made
	.lowest/bin/uv pip list --python .lowest
	PYTHONPATH=$(CURDIR) .lowest/bin/python -m pytest -W default -m 'not torch and not mmdet' $(LOWEST)

# The forks of MMDetection, in an environment of their own: they have the same modules.
.onedl/.made: pyproject.toml constraints.txt
	test -x .onedl/bin/python || $(PYTHON) -m venv .onedl
	.onedl/bin/python -m tests.support.downloads $(TORCH)
	$(ONEDL_PIP) install -q $(TORCH)
	$(ONEDL_PIP) install -q -c constraints.txt numpy setuptools wheel ninja psutil
	MMCV_WITH_OPS=1 $(ONEDL_PIP) install -q -c constraints.txt --no-build-isolation --no-binary onedl-mmcv onedl-mmcv
	$(ONEDL_PIP) install -q -c constraints.txt -e '.[onedl]' pytest hypothesis
	.onedl/bin/ckptconv doctor
	touch $@

test-onedl: .onedl/.made
	.onedl/bin/python -m pytest $(ONEDL)

lint: .venv/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.test
	$(BIN)/python -m benchmarks.speed

# The parts of README and the guide that are made: tables, the API, outputs of commands, the picture.
pages: .venv/.test
	$(BIN)/python -m benchmarks.table
	$(BIN)/python -m tests.support.generated
	$(BIN)/python -m tests.support.transcripts
	$(BIN)/python -m tests.support.picture

clean:
	rm -rf .venv .lowest .onedl .demo .cache
