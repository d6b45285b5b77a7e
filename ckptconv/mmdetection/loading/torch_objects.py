"""What `torch.load` gives for a file, built from what the inert reader found in it.

Importing this module changes nothing: `loader` registers it with mmengine.
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleParamScheduler

from ckptconv.formats import open_checkpoint
from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.numpy_pickle import NumpyType, PickledArray
from ckptconv.formats.records import Blob, CallRecord, Global, OrderedItems
from ckptconv.formats.storage import StoredTensor
from ckptconv.formats.torch_pickle import StorageRef
from ckptconv.proof.tensors import tensor
from ckptconv.small_file import is_file
from ckptconv.spec import TensorSpec


def load(filename: str, map_location: Any = None) -> Any:
    """What ``torch.load`` gives for a file, built from what the inert reader found in it.

    Dicts, lists, tuples, numbers, texts, bytes, tensors (sharing their storages as in the file), numpy arrays and
    scalars, and what else mmengine's own checkpoints hold: HistoryBuffer, Counter, the curves of OneCycleLR. Any other
    object stays an inert record. ``map_location`` is a device; anything else (None, a function, a dict) means the CPU.
    Raises FileNotFoundError as mmengine does, and UnreadableError for a file that is broken or unsafe.
    """
    path = Path(os.path.expanduser(filename))  # noqa: PTH111 (as mmengine does; Path.expanduser fails without a home)
    if not is_file(path):
        raise FileNotFoundError(f"{filename} can not be found.")
    with open_checkpoint(path) as checkpoint:
        return _ObjectBuilder(checkpoint, map_location).build(checkpoint.tree)


class _ObjectBuilder:
    """Builds real objects from a checkpoint's tree. An object that is in it twice is built once."""

    def __init__(self, checkpoint: Checkpoint, map_location: Any) -> None:
        self._checkpoint = checkpoint
        self._device = map_location if isinstance(map_location, str | torch.device) else "cpu"
        self._built: dict[int, Any] = {}
        self._storages: dict[tuple[str, str], torch.UntypedStorage] = {}

    def build(self, value: Any) -> Any:
        if isinstance(value, StoredTensor):
            return self.tensor(value)
        if isinstance(value, StorageRef) and value.dtype is not None:
            return self.storage(value)
        if not isinstance(value, Mapping | list | tuple | Blob | CallRecord | PickledArray):
            return value
        if id(value) not in self._built:
            self._built[id(value)] = None  # a tree that contains itself was refused when the file was opened
            self._built[id(value)] = self._build_new(value)
        return self._built[id(value)]

    def _build_new(self, value: Any) -> Any:
        if isinstance(value, OrderedItems):
            return self.ordered(value)
        if isinstance(value, Mapping):
            return {self.build(key): self.build(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.build(item) for item in value)
        if isinstance(value, Blob):
            return value.read(self._checkpoint.sources[0])
        if isinstance(value, PickledArray):
            return self.array(value.stored) if value.stored else value
        build = _CALLS.get(value.kind)
        return build(self, value) if build else value

    def ordered(self, value: OrderedItems) -> OrderedDict[Any, Any]:
        """An OrderedDict with the versions of a state dict's modules, without which some rename entries.

        Such as MMDetection's AnchorFreeHead: `_load_from_state_dict` of `mmdet/models/dense_heads/anchor_free_head.py`.
        """
        built = OrderedDict((self.build(key), self.build(item)) for key, item in value.items())
        versions = value.state.get("_metadata") if isinstance(value.state, Mapping) else None
        if isinstance(versions, Mapping):
            built._metadata = self.build(versions)  # type: ignore[attr-defined]
        return built

    def tensor(self, stored: StoredTensor) -> torch.Tensor:
        """A view of its storage, as torch makes it: what shares memory in the file shares it here; nothing unfolds."""
        self._checkpoint.require_valid("a tensor", stored)
        dtype, key = stored.spec.dtype, (stored.storage, stored.spec.dtype.name)
        empty = torch.empty(0, dtype=getattr(torch, dtype.name), device=self._device)
        if not stored.spec.numel:
            return empty.reshape(stored.spec.shape)
        if key not in self._storages:
            count = self._checkpoint.nbytes_of(stored.storage) // dtype.itemsize
            whole = StoredTensor(TensorSpec((count,), dtype), stored.storage, 0, (1,))
            self._storages[key] = tensor(self._checkpoint, whole).to(self._device).untyped_storage()
        return empty.set_(self._storages[key], stored.offset, stored.spec.shape, stored.strides)

    def storage(self, ref: StorageRef) -> Any:
        """A storage without a tensor, which is what a tensor pickled without torch holds: `torch/storage.py`."""
        assert ref.dtype is not None
        spec = TensorSpec((ref.nbytes // ref.itemsize,), ref.dtype)
        whole = self.tensor(StoredTensor(spec, ref.key, 0, (1,)))
        return whole._typed_storage() if hasattr(whole, "_typed_storage") else whole.storage()

    def array(self, stored: StoredTensor) -> Any:
        self._checkpoint.require_valid("an array", stored)
        return self._checkpoint.array(stored)

    def scalar(self, call: CallRecord) -> Any:
        """``numpy.core.multiarray.scalar(dtype, bytes)``."""
        kind, data = call.args if isinstance(call.args, tuple) and len(call.args) == 2 else (None, None)
        data = self.build(data) if isinstance(data, Blob) else data
        if isinstance(data, str) and max(data, default="") <= "\xff":  # as Python 2 wrote it
            data = data.encode("latin-1")
        if not isinstance(kind, NumpyType) or kind.dtype is None or not isinstance(data, bytes):
            return call
        if len(data) != kind.dtype.itemsize:
            return call
        code = np.dtype(kind.dtype.numpy)
        return np.frombuffer(data, code.newbyteorder(">") if kind.big_endian else code)[0]

    def counter(self, call: CallRecord) -> Any:
        """``collections.Counter(dict)``: the milestones of mmengine's MultiStepLR."""
        counts = call.args[0] if isinstance(call.args, tuple) and len(call.args) == 1 else None
        if not isinstance(counts, dict) or not all(type(n) is int for n in counts.values()):
            return call
        return Counter({self.build(key): n for key, n in counts.items()})

    def curve(self, call: CallRecord) -> Any:
        """``getattr(OneCycleParamScheduler, name)`` of the two curves it has."""
        args = call.args if isinstance(call.args, tuple) and len(call.args) == 2 else (None, None)
        if isinstance(args[0], Global) and args[0].kind in _ONE_CYCLE and args[1] in _CURVES:
            return getattr(OneCycleParamScheduler, args[1])
        return call

    def history(self, call: CallRecord) -> Any:
        """A HistoryBuffer of mmengine, from the attributes it was saved with."""
        state = call.state if isinstance(call.state, Mapping) else {}
        values, counts, most = (state.get(key) for key in ("_log_history", "_count_history", "max_length"))
        if not isinstance(values, PickledArray) or not isinstance(counts, PickledArray) or type(most) is not int:
            return call
        shapes = [run.stored.spec.shape if run.stored else () for run in (values, counts)]
        if shapes[0] != shapes[1] or len(shapes[0]) != 1 or shapes[0][0] > most:
            return call
        return HistoryBuffer(self.build(values), self.build(counts), most)


_ONE_CYCLE = (
    "mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler",
    "mmengine.optim.scheduler.lr_scheduler.OneCycleLR",
)
_CURVES = ("_annealing_cos", "_annealing_linear")
_CALLS: Mapping[str, Callable[[_ObjectBuilder, CallRecord], Any]] = {
    "numpy.core.multiarray.scalar": _ObjectBuilder.scalar,
    "numpy._core.multiarray.scalar": _ObjectBuilder.scalar,
    "mmengine.logging.history_buffer.HistoryBuffer": _ObjectBuilder.history,
    "collections.Counter": _ObjectBuilder.counter,
    "__builtin__.getattr": _ObjectBuilder.curve,
    "builtins.getattr": _ObjectBuilder.curve,
}
