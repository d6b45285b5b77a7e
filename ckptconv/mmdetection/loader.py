"""Checkpoints for mmengine, read by the inert reader.

``custom_imports = dict(imports=['ckptconv.mmdetection.loader'])`` in a config imports this module, which makes mmengine
read every local checkpoint through `load`: safetensors on any torch; files that ``torch.load(weights_only=True)``
refuses, as mmengine's own are (its HistoryBuffer, numpy scalars); and nothing that a file names is imported or called.
Files behind ``https://`` and the like stay mmengine's business.
Source of the hook: `CheckpointLoader.register_scheme` of `mmengine/runner/checkpoint.py`, 0.10.7.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from ckptconv.formats import open_checkpoint
from ckptconv.formats.interface import Checkpoint, StoredTensor
from ckptconv.formats.pickled import NumpyType, PickledArray
from ckptconv.formats.sandbox import Call
from ckptconv.mmdetection.tensors import tensor

LOCAL = r"(?!.*://)"
"""What has no scheme; tried by mmengine before its own empty prefix, for it tries longer ones first."""


def load(filename: str, map_location: Any = None) -> Any:
    """What ``torch.load`` gives for a file: the same dicts and lists, tensors on ``map_location`` ('cpu' if None).

    Numpy arrays and scalars and mmengine's HistoryBuffer become what they were; any other object stays an inert
    record.
    Raises FileNotFoundError as mmengine does, and UnreadableError for a file that is broken or unsafe.
    """
    path = Path(os.path.expanduser(filename))  # noqa: PTH111 (as mmengine does; Path.expanduser fails without a home)
    if not path.is_file():
        raise FileNotFoundError(f"{filename} can not be found.")
    with open_checkpoint(path) as checkpoint:
        return _Maker(checkpoint, map_location).make(checkpoint.tree)


class _Maker:
    """Makes real objects of a checkpoint's tree. An object that stands there twice is made once."""

    def __init__(self, checkpoint: Checkpoint, map_location: Any) -> None:
        self._checkpoint = checkpoint
        self._device = map_location if isinstance(map_location, str | torch.device) else "cpu"
        self._made: dict[int, Any] = {}

    def make(self, value: Any) -> Any:
        if isinstance(value, StoredTensor):
            return tensor(self._checkpoint, value).to(self._device)
        if not isinstance(value, Mapping | list | tuple | Call | PickledArray):
            return value
        if id(value) not in self._made:
            self._made[id(value)] = None  # a tree that contains itself was refused when the file was opened
            self._made[id(value)] = self._anew(value)
        return self._made[id(value)]

    def _anew(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: self.make(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.make(item) for item in value)
        if isinstance(value, PickledArray):
            return self._checkpoint.array(value.stored) if value.stored else value
        make = _CALLS.get(value.kind)
        return make(self, value) if make else value

    def scalar(self, call: Call) -> Any:
        """``numpy.core.multiarray.scalar(dtype, bytes)``."""
        kind, data = call.args if isinstance(call.args, tuple) and len(call.args) == 2 else (None, None)
        if not isinstance(kind, NumpyType) or kind.dtype is None or not isinstance(data, str | bytes):
            return call
        raw = data.encode("latin-1") if isinstance(data, str) else data
        code = np.dtype(kind.dtype.numpy)
        return np.frombuffer(raw, code.newbyteorder(">") if kind.big_endian else code)[0]

    def history(self, call: Call) -> Any:
        """A HistoryBuffer of mmengine, from the attributes it was saved with."""
        state = call.state if isinstance(call.state, Mapping) else {}
        values, counts, most = (state.get(key) for key in ("_log_history", "_count_history", "max_length"))
        if not isinstance(values, PickledArray) or not isinstance(counts, PickledArray) or not isinstance(most, int):
            return call
        return HistoryBuffer(self.make(values), self.make(counts), most)


_CALLS: Mapping[str, Callable[[_Maker, Call], Any]] = {
    "numpy.core.multiarray.scalar": _Maker.scalar,
    "numpy._core.multiarray.scalar": _Maker.scalar,
    "mmengine.logging.history_buffer.HistoryBuffer": _Maker.history,
}

CheckpointLoader.register_scheme(LOCAL, load, force=True)
