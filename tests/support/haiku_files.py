"""Checkpoints as DeepMind's BYOL writes them, without dill and jax: `python -m tests.support.haiku_files OUT WAY`.

A process of its own registers modules of these names that hold what `pickle` looks up, and lets it write what their
reductions give: `dill/_dill.py` 0.3.1 and 0.3.8, jax 0.4's `_src/array.py`, dm-haiku's `_src/data_structures.py`. The
opcodes of both ways of dill were compared with those of dill itself.

Names and shapes: `byol/utils/networks.py` of google-deepmind/deepmind-research on dm-haiku's `nets/resnet.py`.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from types import BuiltinFunctionType, ModuleType
from typing import Any

import numpy as np

BLOCKS = {50: (3, 4, 6, 3), 200: (3, 24, 36, 3)}
Array = np.ndarray[Any, np.dtype[Any]]
Tree = dict[str, dict[str, Array]]
WAYS = ("dill 0.3.1", "dill 0.3.8", "jax 0.4", "frozendict")


def convolutions(blocks: tuple[int, ...], planes: int) -> Iterator[tuple[str, str, tuple[int, int, int]]]:
    """A convolution's name, its batch norm's, and kernel size, channels in and out: of a bottleneck network."""
    yield "initial_conv", "initial_batchnorm", (7, 3, planes)
    into = planes
    for group, count in enumerate(blocks):
        inner, out = planes << group, planes << (group + 2)
        for block in range(count):
            at = f"block_group_{group}/~/block_{block}/~/"
            if block == 0:
                yield f"{at}shortcut_conv", f"{at}shortcut_batchnorm", (1, into, out)
            yield f"{at}conv_0", f"{at}batchnorm_0", (1, into, inner)
            yield f"{at}conv_1", f"{at}batchnorm_1", (3, inner, inner)
            yield f"{at}conv_2", f"{at}batchnorm_2", (1, inner, out)
            into = out


def network(depth: int = 50, planes: int = 4, seed: int = 0) -> tuple[Tree, Tree]:
    """Parameters and state of a network of few channels, with numbers that keep its features finite."""
    rng = np.random.default_rng(seed)
    params: Tree = {}
    state: Tree = {}
    for conv, norm, (size, into, out) in convolutions(BLOCKS[depth], planes):
        fan = (2 / (size * size * into)) ** 0.5
        params[f"res_net{depth}/~/{conv}"] = {"w": _floats(rng.normal(0, fan, (size, size, into, out)))}
        one = (1, 1, 1, out)
        params[f"res_net{depth}/~/{norm}"] = {
            "scale": _floats(rng.uniform(0.5, 1.5, one)),
            "offset": _floats(rng.normal(0, 0.3, one)),
        }
        for average, low, high in (("mean_ema", -0.3, 0.3), ("var_ema", 0.5, 2)):
            value = _floats(rng.uniform(low, high, one))
            state[f"res_net{depth}/~/{norm}/~/{average}"] = {
                "counter": np.array(7, np.int32),
                "hidden": value / 2,
                "average": value,
            }
    return params, state


def with_heads(params: Tree, state: Tree, seed: int) -> tuple[Tree, Tree]:
    """The same, and a projector with one array that takes more than a window over the file."""
    rng = np.random.default_rng(seed)
    params = {
        "classifier": {"b": _floats(rng.normal(size=10)), "w": _floats(rng.normal(size=(128, 10)))},
        "projector/linear": {"b": _floats(rng.normal(size=4096)), "w": _floats(rng.normal(size=(128, 4096)))},
        **params,
    }
    one = {"counter": np.array(7, np.int32), "hidden": np.ones((1, 8), "f4"), "average": np.ones((1, 8), "f4")}
    return params, {"projector/batch_norm/~/mean_ema": one, **state}


def _floats(values: Array) -> Array:
    return values.astype(np.float32)


def write(path: Path, way: str, depth: int = 50) -> Path:
    """A training checkpoint of seed 0, its target network of seed 1, at ``path``."""
    command = [sys.executable, "-m", "tests.support.haiku_files", str(path), way, str(depth)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=120)
    return path


def _module(name: str, *functions: str) -> ModuleType:
    """A module in `sys.modules`, and its parents, with functions that are only ever looked up."""
    parent, _, own = name.rpartition(".")
    if parent and parent not in sys.modules:
        _module(parent)
    module = sys.modules[name] = ModuleType(name)
    if parent:
        setattr(sys.modules[parent], own, module)
    for function in functions:
        exec(f"def {function}(*_): raise AssertionError('what a checkpoint names is never called')", module.__dict__)
    return module


class _Mapping:
    """haiku's mapping; as a name, what its module calls it."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content


class _Writer(pickle.Pickler):
    way: str

    def reducer_override(self, value: Any) -> Any:
        dill = sys.modules["dill._dill"]
        if isinstance(value, np.ndarray) and self.way == "dill 0.3.8":
            return dill._create_array, (*value.__reduce__(), None)
        if isinstance(value, np.ndarray) and self.way == "jax 0.4":
            jax = sys.modules["jax._src.array"]
            return jax._reconstruct_array, (*value.__reduce__(), {"weak_type": False})
        if isinstance(value, BuiltinFunctionType) and self.way == "dill 0.3.1":
            return dill._get_attr, (value.__self__, value.__name__)
        if isinstance(value, ModuleType):
            return dill._import_module, (value.__name__,)
        if isinstance(value, type) and hasattr(value, "_fields"):
            return dill._create_namedtuple, (value.__name__, value._fields, "byol.byol_experiment")
        if isinstance(value, _Mapping):
            haiku = sys.modules["haiku._src.data_structures"]
            return (haiku.frozendict if self.way == "frozendict" else haiku.FlatMapping), (value.content,)
        return NotImplemented


def _main(out: str, way: str, depth: str) -> None:
    _module("dill._dill", "_create_namedtuple", "_create_array", "_import_module", "_get_attr")
    _module("jax._src.array", "_reconstruct_array")
    _module("haiku._src.data_structures", "FlatMapping", "frozendict")
    made: Callable[[str, str], Any] = namedtuple
    state = made("_ByolExperimentState", "online_params target_params online_state target_state opt_state")
    lars, decay = made("ScaleByLarsState", "mu"), made("AddWeightDecayState", "")
    online, target = (with_heads(*network(int(depth), seed=seed), seed + 2) for seed in (0, 1))

    def mapped(tree: Tree) -> _Mapping:
        return _Mapping({module: _Mapping(content) for module, content in tree.items()})

    experiment = state(
        *(mapped(tree) for tree in (online[0], target[0], online[1], target[1])), [decay(), lars(mapped(target[0])), ()]
    )
    with Path(out).open("wb") as file:
        writer = _Writer(file, protocol=2)
        writer.way = way
        writer.dump({"experiment_state": experiment, "step": 7, "rng": np.array([0, 42], np.uint32)})


if __name__ == "__main__":
    _main(*sys.argv[1:])
