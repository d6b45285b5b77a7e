"""Handlers for the few names in a checkpoint's pickle that describe tensors, parameters and ordered dicts.

Every other name stays an inert record. Sources: `torch/_utils.py` (`_rebuild_*`), `torch/_tensor.py`
(`__reduce_ex__`).
"""

from __future__ import annotations

from collections.abc import Mapping

from ckptconv.formats.numpy_pickle import NumpyArrays
from ckptconv.formats.records import (
    MAX_LENGTH,
    CallRecord,
    Global,
    Handler,
    Malformed,
    OrderedItems,
    checked_key,
    parse_lengths,
)
from ckptconv.formats.storage import StoredTensor
from ckptconv.sources.file import Source
from ckptconv.spec import DTYPES, DType, TensorSpec, Unreadable

_BY_STORAGE = {d.storage: d for d in DTYPES.values() if d.storage}
_OPAQUE = {"QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1}
"""Bytes per element of the quantised storages, which cannot be read as tensors."""

_MAX_PAIRS = 200_000


class StorageRef:
    """A persistent id of torch: a storage's key, its element type (None if unknown) and its size."""

    __slots__ = ("dtype", "itemsize", "key", "nbytes")
    kind = "storage"
    unreadable = Unreadable("a storage without a shape", "Save the tensor that it belongs to.")

    def __init__(self, key: str, dtype: DType | None, numel: int, itemsize: int) -> None:
        self.key, self.dtype, self.itemsize = key, dtype, itemsize
        self.nbytes = numel * itemsize


class PickledTensors:
    """The handlers for one file, and the storages and arrays that its pickle refers to."""

    def __init__(self, source: Source) -> None:
        self.refs: dict[str, StorageRef] = {}
        self._numpy = NumpyArrays(source)
        self.arrays, self.extent = self._numpy.storages, self._numpy.extent
        self._pairs = 0
        self.handlers: Mapping[tuple[str, str], Handler] = {
            ("collections", "OrderedDict"): self._ordered_dict,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v3"): self._tensor_v3,
            ("torch._utils", "_rebuild_device_tensor_from_numpy"): self._from_device,
            ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): self._from_device,
            ("torch._utils", "_rebuild_xla_tensor"): self._from_device,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
            ("torch._tensor", "_rebuild_from_type"): self._from_type,
            ("torch._tensor", "_rebuild_from_type_v2"): self._from_type,
            ("torch", "Size"): lambda lengths=(): parse_lengths(lengths),
            **self._numpy.handlers,
        }

    def storage(self, pid: object) -> object:
        """The storage of a persistent id, ('storage', type, key, location, elements[, view]).

        Legacy files also write the class of a module so, with its source: ('module', class, file, source).
        """
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module" and isinstance(pid[1], Global):
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise Malformed("a persistent id is not a storage")
        _, kind, key, _, numel = pid[:5]
        if (
            not isinstance(kind, Global)
            or not isinstance(numel, int)
            or isinstance(numel, bool)
            or not isinstance(key, str | int)
        ):
            raise Malformed("a storage is not described as torch does")
        if not 0 <= numel < MAX_LENGTH:
            raise Malformed(f"a storage of {numel} elements")
        if len(pid) > 5 and pid[5] is not None:
            raise Malformed("a storage is a view of another, as before torch 0.4")
        dtype = _BY_STORAGE.get(kind.name)
        opaque = dtype is None and kind.name != "UntypedStorage"
        ref = StorageRef(str(key), dtype, numel, dtype.itemsize if dtype else _OPAQUE.get(kind.name, 1))
        known = self.refs.setdefault(ref.key, ref)
        if known.nbytes != ref.nbytes:
            raise Malformed(f"storage '{key}' has two sizes")
        return CallRecord(kind, ()) if opaque else ref

    def _tensor(self, storage: object, offset: object, size: object, stride: object, *rest: object) -> object:
        # rest: requires_grad, backward_hooks, metadata; the last says that a sign or conjugation is pending
        if len(rest) > 2 and isinstance(rest[2], dict) and any(rest[2].values()):
            return CallRecord(Global("torch", "Tensor with pending negation or conjugation"), ())
        dtype = storage.dtype if isinstance(storage, StorageRef) else None
        return self._view(storage, dtype, offset, size, stride)

    def _tensor_v3(
        self,
        storage: object,
        offset: object,
        size: object,
        stride: object,
        grad: object,
        hooks: object,
        dtype: object,
        *rest: object,
    ) -> object:
        if rest and isinstance(rest[0], dict) and any(rest[0].values()):
            return CallRecord(Global("torch", "Tensor with pending negation or conjugation"), ())
        known = DTYPES.get(dtype.name) if isinstance(dtype, Global) and dtype.module == "torch" else None
        return self._view(storage, known, offset, size, stride, dtype)

    def _view(
        self, storage: object, dtype: DType | None, offset: object, size: object, stride: object, name: object = None
    ) -> object:
        if not isinstance(storage, StorageRef) or dtype is None:
            kind = name.kind if isinstance(name, Global) else ""
            return CallRecord(Global("torch", "Tensor of a type unknown here"), (kind,))
        shape, strides = parse_lengths(size), parse_lengths(stride)
        if len(shape) != len(strides) or not isinstance(offset, int) or not 0 <= offset < MAX_LENGTH:
            raise Malformed("a tensor's shape, strides and offset do not fit together")
        return StoredTensor(TensorSpec(shape, dtype), storage.key, offset, strides)

    def _from_type(self, func: object, kind: object, args: object, state: object) -> object:
        """A tensor subclass is the tensor it was made from."""
        handler = self.handlers.get((func.module, func.name)) if isinstance(func, Global) else None
        if handler is None or not isinstance(args, tuple):
            return full_tensor_of(args, state) or CallRecord(kind, args, state)
        return handler(*args)

    def _from_device(self, data: object, dtype: object, *_: object) -> object:
        """A tensor of another device, whose values are saved as an array or as a tensor of the CPU."""
        stored = data if isinstance(data, StoredTensor) else getattr(data, "stored", None)
        if isinstance(stored, StoredTensor) and isinstance(dtype, Global) and dtype.name == stored.spec.dtype.name:
            return stored
        return CallRecord(Global("torch._utils", "_rebuild_device_tensor"), (data, dtype))

    def charge(self, entries: int) -> None:
        """Count entries of dicts that cost the pickle less than one step each."""
        self._pairs += entries
        if self._pairs > _MAX_PAIRS:
            raise Malformed(f"it makes dicts of more than {_MAX_PAIRS:,} pairs")

    def _ordered_dict(self, pairs: object = (), *_: object) -> OrderedItems:
        """Empty, or from pairs as Python 2 wrote it."""
        if isinstance(pairs, dict):
            pairs = list(pairs.items())
        if not isinstance(pairs, list | tuple):
            raise Malformed("an ordered dict is not made of pairs")
        self.charge(len(pairs))
        return OrderedItems((checked_key(key), value) for key, value in pairs)


def full_tensor_of(args: object, state: object) -> StoredTensor | None:
    """The tensor itself where a DTensor's own part is all of it: on a mesh of one rank, or a copy on each.

    ``args`` are those of `torch._utils._rebuild_wrapper_subclass`: class, type, shape, …; ``state`` the attributes.
    """
    if not isinstance(args, tuple) or len(args) < 3:
        return None
    kind, dtype, shape = args[:3]
    if not isinstance(kind, Global) or kind.name != "DTensor" or not kind.module.startswith("torch.distributed."):
        return None
    parts = state if isinstance(state, tuple) else (state,)  # attributes, and those that have slots
    held = {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
    own, spec = held.get("_local_tensor"), held.get("_spec")
    placed = spec.state.get("placements") if isinstance(spec, CallRecord) and isinstance(spec.state, dict) else None
    if not isinstance(own, StoredTensor) or not isinstance(placed, tuple) or not placed:
        return None
    kinds = [one.kind.rpartition(".")[2] if isinstance(one, CallRecord) else "" for one in placed]
    same = isinstance(dtype, Global) and dtype.name == own.spec.dtype.name and own.spec.shape == parse_lengths(shape)
    return own if same and set(kinds) <= {"Shard", "Replicate"} else None
