"""numpy's arrays in a pickle: how protocols 2 to 5 write them, and where their bytes are.

Sources: `numpy/_core/multiarray.py` (`_reconstruct`, `ndarray.__setstate__`), `numpy/_core/numeric.py` (`_frombuffer`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptconv.formats.records import Blob, CallRecord, Global, Handler, Malformed, parse_lengths
from ckptconv.formats.storage import Extent, Storage, StoredTensor
from ckptconv.sources.file import Source
from ckptconv.spec import DTYPES, TensorSpec, Unreadable

_BY_NUMPY = {d.numpy[1:]: d for d in DTYPES.values() if d.numpy}


class NumpyArrays:
    """The handlers for the arrays of one file, and the storages of the arrays so far."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.storages: dict[str, Storage] = {}
        self._inline = self._encoded = 0
        arrays: dict[tuple[str, str], Handler] = {}
        for core in ("numpy.core", "numpy._core"):  # before and since numpy 2
            for module in ("multiarray", "_multiarray_umath"):  # as numpy calls it, and where it is
                arrays[f"{core}.{module}", "_reconstruct"] = lambda *_: PickledArray(self)
            arrays[f"{core}.numeric", "_frombuffer"] = self._from_buffer
        self.handlers: Mapping[tuple[str, str], Handler] = {
            ("_codecs", "encode"): self._encode,
            ("numpy", "dtype"): lambda *args: NumpyType(*args),
            ("__builtin__", "bytes"): _no_bytes,
            ("builtins", "bytes"): _no_bytes,
            **arrays,
        }

    def extent(self, key: str) -> Extent | None:
        """The bytes of an array in the file; None if they were read with the pickle."""
        array = self.storages[key]
        return None if array.source is None else (array.source, array.offset, array.offset + array.nbytes)

    def _encode(self, text: object, codec: object = "", *rest: object) -> object:
        """Bytes as protocol 2 writes them: as text that Latin-1 decodes; long ones stay in the file."""
        if isinstance(text, Blob) and text.kind == "str" and codec == "latin1" and not rest:
            return Blob(text.offset, text.length, text=True)
        if not isinstance(text, str) or codec != "latin1" or rest:
            return CallRecord(Global("_codecs", "encode"), (text, codec, *rest))
        self._encoded += len(text)
        if self._encoded > self._source.size:
            raise Malformed("its arrays hold more bytes than it has")
        return text.encode("latin-1")

    def _from_buffer(self, data: object, kind: object, shape: object, order: object, axes: object = None) -> object:
        """How protocol 5 writes an array that is contiguous in some order of its axes: `numpy._core.numeric`."""
        array = PickledArray(self)
        stored = self.store(shape, kind, order == "F", data)
        if stored is not None and axes is not None:
            moved = parse_lengths(axes)
            if sorted(moved) != list(range(len(stored.spec.shape))):
                raise Malformed("an array's axes are not in order")
            spec = TensorSpec(tuple(stored.spec.shape[a] for a in moved), stored.spec.dtype)
            stored = StoredTensor(spec, stored.storage, 0, tuple(stored.strides[a] for a in moved))
        array.stored = stored
        array.unreadable = unreadable_array(kind) if stored is None else None
        return array

    def store(self, shape: object, kind: object, fortran: object, data: object) -> StoredTensor | None:
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
        key = f"array {len(self.storages)}"
        self.storages[key] = storage
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

    __slots__ = ("_arrays", "objects", "stored", "unreadable")
    kind = "numpy.ndarray"

    def __init__(self, arrays: NumpyArrays) -> None:
        self._arrays = arrays
        self.stored: StoredTensor | None = None
        self.objects: list[Any] = []
        self.unreadable: Unreadable | None = None

    def build(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Malformed("a numpy array is not described as numpy does")
        _, shape, kind, fortran, data = state
        self.stored = self._arrays.store(shape, kind, fortran, data)
        self.objects = data if isinstance(data, list) else []
        self.unreadable = unreadable_array(kind) if self.stored is None else None


def unreadable_array(kind: object) -> Unreadable | None:
    """Why an array cannot be read; it is certain unless it holds objects or text, which are not weights."""
    if not isinstance(kind, NumpyType):
        return None
    certain = not kind.name.startswith(("O", "S", "U", "a", "V", "M", "m"))
    return Unreadable(
        f"a numpy array of {kind.name}", "Save it with a usual element type: .astype('float32').", certain
    )


def _no_bytes(*args: object) -> object:
    """Empty bytes as protocol 2 writes them."""
    return CallRecord(Global("builtins", "bytes"), args) if args else b""
