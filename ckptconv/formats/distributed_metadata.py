"""What `.metadata` of torch.distributed.checkpoint holds: records of a few classes, and the paths of values.

Sources: torch's `distributed/checkpoint/metadata.py` and `filesystem.py` (the classes), `_nested_dict.py` and
`_traverse.py` (the paths in `planner_data`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ckptconv.errors import printable
from ckptconv.formats.records import Handler, Malformed
from ckptconv.formats.torch_pickle import PickledTensors
from ckptconv.formats.unpickler import Unpickler
from ckptconv.sources.file import Source
from ckptconv.spec import TensorSpec

METADATA = ".metadata"
_MODULE = "torch.distributed.checkpoint.metadata"
_CLASSES = (
    (_MODULE, "Metadata"),
    (_MODULE, "TensorStorageMetadata"),
    (_MODULE, "BytesStorageMetadata"),
    (_MODULE, "ChunkStorageMetadata"),
    (_MODULE, "TensorProperties"),
    (_MODULE, "MetadataIndex"),
    (_MODULE, "StorageMeta"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
)
_CONSTANTS = ((_MODULE, "_MEM_FORMAT_ENCODING"), ("torch.serialization", "_get_layout"))
_MAX_STEPS = 4_000_000  # of `.metadata`, which takes about 75 for each part of a tensor
_MAX_PATH_DEPTH = 20
_MAX_GAPS = 100  # in a list: an empty dict in it is not saved


class MetadataRecord:
    """An object of one of torch's classes that describe the folder: its class, and the attributes that it was given."""

    __slots__ = ("kind", "state")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.state: object = None

    def build(self, state: object) -> None:
        if self.state is not None:
            raise Malformed(f"a {self.kind} is described twice")
        self.state = state


def load(source: Source) -> tuple[Mapping[str, Any], Mapping[str, None], Mapping[str, None]]:
    """The attributes of the record that the file pickles, and the globals that it names and calls."""
    handlers: dict[tuple[str, str], Handler] = {
        **PickledTensors(source).handlers,
        **{(module, name): partial(_record, name) for module, name in _CLASSES},
        **dict.fromkeys(_CONSTANTS, lambda *_: None),
    }
    unpickler = Unpickler(source, 0, source.size, handlers, max_steps=_MAX_STEPS)
    fields = fields_of(unpickler.load(), "Metadata")
    if unpickler.tell() != source.size:
        raise Malformed(f"{source.size - unpickler.tell():,} bytes follow its pickle")
    return fields, unpickler.named, unpickler.called


def _record(kind: str, *args: object) -> MetadataRecord:
    if args:
        raise Malformed(f"a {kind} is not described as torch does")
    return MetadataRecord(kind)


def fields_of(value: object, kind: str) -> Mapping[str, Any]:
    """The attributes of a record of one kind."""
    if not isinstance(value, MetadataRecord) or value.kind != kind or not isinstance(value.state, dict):
        raise Malformed(f"a {kind} is missing")
    return value.state


def first_of(whole: TensorSpec, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> int:
    """The index in the tensor of a block's first element; -1 if its elements are not consecutive, or outside."""
    if any(at + size > length for at, size, length in zip(offsets, sizes, whole.shape, strict=True)):
        return -1
    cut = next((axis for axis, size in enumerate(sizes) if size != 1), len(sizes))
    if sizes[cut + 1 :] != whole.shape[cut + 1 :]:
        return -1
    return sum(at * stride for at, stride in zip(offsets, whole.strides, strict=True))


def nested(values: Mapping[str, object], paths: object) -> object:
    """The values under the paths that they had when they were saved: keys of dicts, and indexes of lists."""
    tree: dict[str | int, object] = {}
    for name, value in values.items():
        path = paths.get(name, (name,)) if isinstance(paths, dict) else (name,)
        if not isinstance(path, tuple) or not 0 < len(path) <= _MAX_PATH_DEPTH or not {*map(type, path)} <= {str, int}:
            raise Malformed(f"the path of {printable(name)} is invalid")
        at = tree
        for step in path[:-1]:
            below = at.setdefault(step, _Branch())
            if not isinstance(below, _Branch):
                raise Malformed(f"{printable(name)} is inside of another value")
            at = below
        if path[-1] in at:
            raise Malformed(f"{printable(name)} has the path of another value")
        at[path[-1]] = value
    return _with_lists(tree)


class _Branch(dict[str | int, object]):
    """A dict or list on the way to a value."""


def _with_lists(node: dict[str | int, object]) -> object:
    values = {k: _with_lists(v) if isinstance(v, _Branch) else v for k, v in node.items()}
    if all(type(key) is str for key in values):
        return values
    indexes = [key for key in values if type(key) is int]
    if len(indexes) != len(values) or min(indexes) < 0 or max(indexes) >= len(values) + _MAX_GAPS:
        raise Malformed("a list in it has invalid indexes")
    return [values.get(index) for index in range(max(indexes) + 1)]
