"""What the few names in a checkpoint's pickle mean: tensors, parameters, ordered dicts, numpy arrays.

Sources: `torch/_utils.py` (`_rebuild_*`), `torch/_tensor.py` (`__reduce_ex__`), `numpy/_core/multiarray.py`
(`_reconstruct`, `ndarray.__setstate__`). Every other name stays an inert record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptconv.formats.interface import Extent, Storage, StoredTensor
from ckptconv.formats.records import Blob, Call, Global, Handler, Malformed, OrderedItems, checked_key
from ckptconv.sources.file import Source
from ckptconv.spec import DTYPES, DType, TensorSpec, Unreadable

_BY_STORAGE = {d.storage: d for d in DTYPES.values() if d.storage}
_BY_NUMPY = {d.numpy[1:]: d for d in DTYPES.values() if d.numpy}
_OPAQUE = {"QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1}
"""Bytes an element of the storages that are known to exist and cannot be read as tensors: quantized ones."""

_MAX_AXES = 64
_MAX_LENGTH = 1 << 62
_MAX_PAIRS = 200_000


class StorageRef:
    """What a persistent id of torch stands for: a storage's key, its element type (None: unknown), its size."""

    __slots__ = ("dtype", "itemsize", "key", "nbytes")
    kind = "storage"
    unreadable = Unreadable("a storage without a shape", "Save the tensor that it belongs to.")

    def __init__(self, key: str, dtype: DType | None, numel: int, itemsize: int) -> None:
        self.key, self.dtype, self.itemsize = key, dtype, itemsize
        self.nbytes = numel * itemsize


class PickledTensors:
    """The meanings for one file, and the storages they have met."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.refs: dict[str, StorageRef] = {}
        self.arrays: dict[str, Storage] = {}
        self._inline = self._pairs = self._encoded = 0
        arrays: dict[tuple[str, str], Handler] = {}
        for core in ("numpy.core", "numpy._core"):  # before and since numpy 2
            for module in ("multiarray", "_multiarray_umath"):  # as numpy calls it, and where it is
                arrays[f"{core}.{module}", "_reconstruct"] = lambda *_: PickledArray(self)
            arrays[f"{core}.numeric", "_frombuffer"] = self._array_from_buffer
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
            ("_codecs", "encode"): self._encode,
            ("numpy", "dtype"): lambda *args: NumpyType(*args),
            ("__builtin__", "bytes"): _no_bytes,
            ("builtins", "bytes"): _no_bytes,
            **arrays,
        }

    def extent(self, key: str) -> Extent | None:
        """Where an array's bytes stand, unless they were read with the pickle."""
        array = self.arrays[key]
        return None if array.source is None else (array.source, array.offset, array.offset + array.nbytes)

    def storage(self, pid: object) -> object:
        """The storage of a persistent id, ('storage', type, key, location, elements[, view]).

        Legacy files also write the class of a module so, with its source: ('module', class, file, source).
        """
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module" and isinstance(pid[1], Global):
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise Malformed("a persistent id is no storage")
        _, kind, key, _, numel = pid[:5]
        if (
            not isinstance(kind, Global)
            or not isinstance(numel, int)
            or isinstance(numel, bool)
            or not isinstance(key, str | int)
        ):
            raise Malformed("a storage is not described as torch does")
        if not 0 <= numel < _MAX_LENGTH:
            raise Malformed(f"a storage of {numel} elements")
        if len(pid) > 5 and pid[5] is not None:
            raise Malformed("a storage is a view of another, as before torch 0.4")
        dtype = _BY_STORAGE.get(kind.name)
        opaque = dtype is None and kind.name != "UntypedStorage"
        ref = StorageRef(str(key), dtype, numel, dtype.itemsize if dtype else _OPAQUE.get(kind.name, 1))
        known = self.refs.setdefault(ref.key, ref)
        if known.nbytes != ref.nbytes:
            raise Malformed(f"storage '{key}' has two sizes")
        return Call(kind, ()) if opaque else ref

    def _tensor(self, storage: object, offset: object, size: object, stride: object, *rest: object) -> object:
        # rest: requires_grad, backward_hooks, metadata; the last says that a sign or conjugation is pending
        if len(rest) > 2 and isinstance(rest[2], dict) and any(rest[2].values()):
            return Call(Global("torch", "Tensor with pending negation or conjugation"), ())
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
            return Call(Global("torch", "Tensor with pending negation or conjugation"), ())
        known = DTYPES.get(dtype.name) if isinstance(dtype, Global) and dtype.module == "torch" else None
        return self._view(storage, known, offset, size, stride, dtype)

    def _view(
        self, storage: object, dtype: DType | None, offset: object, size: object, stride: object, name: object = None
    ) -> object:
        if not isinstance(storage, StorageRef) or dtype is None:
            kind = name.kind if isinstance(name, Global) else ""
            return Call(Global("torch", "Tensor of a type unknown here"), (kind,))
        shape, strides = parse_lengths(size), parse_lengths(stride)
        if len(shape) != len(strides) or not isinstance(offset, int) or not 0 <= offset < _MAX_LENGTH:
            raise Malformed("a tensor's shape, strides and offset do not fit together")
        return StoredTensor(TensorSpec(shape, dtype), storage.key, offset, strides)

    def _from_type(self, func: object, kind: object, args: object, state: object) -> object:
        """A tensor subclass is the tensor it was made from."""
        handler = self.handlers.get((func.module, func.name)) if isinstance(func, Global) else None
        if handler is None or not isinstance(args, tuple):
            return full_tensor_of(args, state) or Call(kind, args, state)
        return handler(*args)

    def _from_device(self, data: object, dtype: object, *_: object) -> object:
        """A tensor of a device whose numbers stand as an array or as a tensor of the CPU."""
        stored = data if isinstance(data, StoredTensor) else getattr(data, "stored", None)
        if isinstance(stored, StoredTensor) and isinstance(dtype, Global) and dtype.name == stored.spec.dtype.name:
            return stored
        return Call(Global("torch._utils", "_rebuild_device_tensor"), (data, dtype))

    def charge(self, entries: int) -> None:
        """Count entries of dicts that a pickle makes by other ways than one step each."""
        self._pairs += entries
        if self._pairs > _MAX_PAIRS:
            raise Malformed(f"it makes dicts of more than {_MAX_PAIRS:,} pairs")

    def _ordered_dict(self, pairs: object = (), *_: object) -> OrderedItems:
        """Empty, or from pairs as Python 2 wrote it."""
        if isinstance(pairs, dict):
            pairs = list(pairs.items())
        if not isinstance(pairs, list | tuple):
            raise Malformed("an ordered dict is made of what is no pairs")
        self.charge(len(pairs))
        return OrderedItems((checked_key(key), value) for key, value in pairs)

    def _encode(self, text: object, codec: object = "", *rest: object) -> object:
        """Bytes as protocol 2 writes them: text that Latin-1 turns back; a long one stays in the file."""
        if isinstance(text, Blob) and text.kind == "str" and codec == "latin1" and not rest:
            return Blob(text.offset, text.length, text=True)
        if not isinstance(text, str) or codec != "latin1" or rest:
            return Call(Global("_codecs", "encode"), (text, codec, *rest))
        self._encoded += len(text)
        if self._encoded > self._source.size:
            raise Malformed("its arrays hold more bytes than it has")
        return text.encode("latin-1")

    def _array_from_buffer(
        self, data: object, kind: object, shape: object, order: object, axes: object = None
    ) -> object:
        """How protocol 5 writes an array that is contiguous in some order of its axes: `numpy._core.numeric`."""
        array = PickledArray(self)
        stored = self.array(shape, kind, order == "F", data)
        if stored is not None and axes is not None:
            moved = parse_lengths(axes)
            if sorted(moved) != list(range(len(stored.spec.shape))):
                raise Malformed("an array's axes are not in order")
            spec = TensorSpec(tuple(stored.spec.shape[a] for a in moved), stored.spec.dtype)
            stored = StoredTensor(spec, stored.storage, 0, tuple(stored.strides[a] for a in moved))
        array.stored = stored
        array.unreadable = unreadable_array(kind) if stored is None else None
        return array

    def array(self, shape: object, kind: object, fortran: object, data: object) -> StoredTensor | None:
        """A numpy array as a stored tensor; None if its elements are objects or text."""
        if not isinstance(kind, NumpyType) or kind.dtype is None:
            return None
        lengths, dtype = parse_lengths(shape), kind.dtype
        spec = TensorSpec(lengths, dtype)
        if isinstance(data, Blob) and data.text:
            length = spec.nbytes if spec.nbytes <= data.length <= 2 * spec.nbytes else data.length
            storage = Storage(length, self._source, data.offset, big_endian=kind.big_endian, text=data.length)
        elif isinstance(data, Blob):
            storage = Storage(data.length, self._source, data.offset, big_endian=kind.big_endian)
        elif isinstance(data, str | bytes):
            raw = data.encode("latin-1") if isinstance(data, str) else data
            storage = Storage(len(raw), inline=raw, big_endian=kind.big_endian)
            self._inline += len(raw)
            if self._inline > self._source.size:
                raise Malformed("its arrays hold more bytes than it has")
        else:
            return None
        if storage.nbytes != spec.nbytes:
            raise Malformed(f"an array of {spec.nbytes:,} bytes is given {storage.nbytes:,}")
        key = f"array {len(self.arrays)}"
        self.arrays[key] = storage
        if fortran:
            strides = tuple(reversed(TensorSpec(lengths[::-1], dtype).strides))
            return StoredTensor(spec, key, 0, strides)
        return StoredTensor(spec, key, 0, spec.strides)


class NumpyType:
    """numpy.dtype('f4', …), and the byte order its state adds."""

    __slots__ = ("big_endian", "dtype", "name")

    def __init__(self, code: object = None, *_: object) -> None:
        name = code if isinstance(code, str) else code.name if isinstance(code, Global) else ""
        self.name = name.lstrip("<>|=") or "unknown"
        self.big_endian = name.startswith(">")
        self.dtype = _BY_NUMPY.get(name.lstrip("<>|="))

    def build(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            self.big_endian = self.big_endian or state[1] == ">"


class PickledArray:
    """A numpy array in a pickle: ``stored`` if it holds numbers, ``objects`` if it holds objects, once it is built."""

    __slots__ = ("_pickled", "objects", "stored", "unreadable")
    kind = "numpy.ndarray"

    def __init__(self, pickled: PickledTensors) -> None:
        self._pickled = pickled
        self.stored: StoredTensor | None = None
        self.objects: list[Any] = []
        self.unreadable: Unreadable | None = None

    def build(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Malformed("a numpy array is not described as numpy does")
        _, shape, kind, fortran, data = state
        self.stored = self._pickled.array(shape, kind, fortran, data)
        self.objects = data if isinstance(data, list) else []
        self.unreadable = unreadable_array(kind) if self.stored is None else None


def unreadable_array(kind: object) -> Unreadable | None:
    """What to say of an array that cannot be read; objects and text are no numbers, and nobody's weights."""
    if not isinstance(kind, NumpyType):
        return None
    certain = not kind.name.startswith(("O", "S", "U", "a", "V", "M", "m"))
    return Unreadable(
        f"a numpy array of {kind.name}", "Save it as numbers of a usual type: .astype('float32').", certain
    )


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
    placed = spec.state.get("placements") if isinstance(spec, Call) and isinstance(spec.state, dict) else None
    if not isinstance(own, StoredTensor) or not isinstance(placed, tuple) or not placed:
        return None
    kinds = [one.kind.rpartition(".")[2] if isinstance(one, Call) else "" for one in placed]
    same = isinstance(dtype, Global) and dtype.name == own.spec.dtype.name and own.spec.shape == parse_lengths(shape)
    return own if same and set(kinds) <= {"Shard", "Replicate"} else None


def _no_bytes(*args: object) -> object:
    """Empty bytes as protocol 2 writes them."""
    return Call(Global("builtins", "bytes"), args) if args else b""


def parse_lengths(value: object) -> tuple[int, ...]:
    if (
        not isinstance(value, tuple | list)
        or len(value) > _MAX_AXES
        or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < _MAX_LENGTH for n in value)
    ):
        raise Malformed("a shape or stride is no list of lengths")
    return tuple(value)
