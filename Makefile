# Everything runs in .venv, which is made on the first call. Only Python 3.10 or newer, gcc and make are needed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# What tests/pretrain.py imports, apart from everything else: torchvision's wheels are for CUDA.
PRETRAIN := mmpretrain torchvision einops importlib_metadata markdown mat4py model-index ordered-set zipp

.PHONY: demo test lint bench clean

.venv/.core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -q -c constraints.txt -e .
	touch $@

# torch comes first and alone: mmcv's build imports it, and a later resolution must not bring another.
.venv/.test: .venv/.core
	$(PIP) install -q -c constraints.txt torch numpy setuptools wheel ninja psutil
	MMCV_WITH_OPS=1 $(PIP) install -q -c constraints.txt --no-build-isolation mmcv
	$(PIP) install -q -c constraints.txt -e '.[mmdet,test]'
	$(PIP) install -q -c constraints.txt --no-deps --upgrade --target .venv/pretrain $(PRETRAIN)
	$(BIN)/ckptconv doctor
	touch $@

demo: .venv/.core
	$(BIN)/python -m tests.demo

test: .venv/.test
	$(BIN)/python -m pytest

lint: .venv/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.test
	$(BIN)/python -m benchmarks.speed

clean:
	rm -rf .venv .demo .cache
