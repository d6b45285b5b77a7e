"""Reads a safetensors file.

The header is a length, then JSON, then the tensors' bytes without a gap. Source: the safetensors repository's README,
"Format"; stricter than its reader: a name that occurs twice is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ckptconv.errors import UnreadableError
from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.storage import Storage, StoredTensor
from ckptconv.sections import require_few
from ckptconv.sources.file import Source
from ckptconv.spec import DTYPES, TensorSpec

_BY_CODE = {d.safetensors: d for d in DTYPES.values() if d.safetensors}
MAX_HEADER = 16 << 20  # a hundred thousand tensors; safetensors itself allows 100 MB
_MAX_AXES = 64
_MAX_LISTS = 500_000


def header_length(source: Source) -> int | None:
    """The length of the JSON header if the file starts like safetensors, else None.

    No pickle and no zip does: their ninth byte is not a brace after three zero bytes of a length.
    """
    if source.size < 10:
        return None
    start = source.read(0, 9)
    length = int.from_bytes(start[:8], "little")
    return length if start[8:] == b"{" and 2 <= length < 1 << 40 else None


def read(source: Source) -> Checkpoint:
    """Open one safetensors file. Raises UnreadableError for a header that does not describe the file exactly."""
    length = header_length(source) or 0
    if length > MAX_HEADER or 8 + length > source.size:
        raise source.truncated() if length <= MAX_HEADER else _bad(source, f"its header takes {length:,} bytes")
    header = parse_json(source, source.read(8, length))
    start = 8 + length
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _bad(source, "its metadata does not map names to texts")
    require_few(len(header))
    tree: dict[str, object] = {}
    storages: dict[str, Storage] = {}
    ends = []
    for name, entry in header.items():
        spec, begin, end = _entry(source, name, entry)
        storages[name] = Storage(end - begin, source, start + begin)
        tree[name] = StoredTensor(spec, name, 0, spec.strides)
        ends.append((begin, end))
    at = 0
    for begin, end in sorted(ends):
        if begin != at:
            raise _bad(source, "its tensors overlap or leave a gap")
        at = end
    if start + at != source.size:
        if start + at > source.size:
            raise source.truncated()
        raise _bad(source, f"{source.size - start - at:,} bytes follow its tensors")
    return Checkpoint(
        source.path,
        "safetensors",
        (source,),
        tree,
        storages.__getitem__,
        _sized(storages),
        lambda key: (source, storages[key].offset, storages[key].offset + storages[key].nbytes),
        metadata=metadata,
    )


def _sized(storages: dict[str, Storage]) -> Callable[[str], int]:
    return lambda key: storages[key].nbytes


def _bad(source: Source, what: str) -> UnreadableError:
    return UnreadableError(
        f"{source.path} is a damaged or manipulated safetensors file: {what}", "Download it again from its source."
    )


def parse_json(source: Source, raw: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) != len(pairs):
            raise ValueError("a name occurs twice")
        return mapping

    if raw.count(b"[") + raw.count(b"{") > _MAX_LISTS:
        raise _bad(source, f"its header holds more than {_MAX_LISTS:,} lists")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise _bad(source, f"its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise _bad(source, "its header is not a JSON object")
    return header


def _entry(source: Source, name: str, entry: Any) -> tuple[TensorSpec, int, int]:
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        lengths = tuple(shape)
        sound = (
            len(lengths) <= _MAX_AXES
            and all(type(n) is int and 0 <= n < 1 << 62 for n in (*lengths, begin, end))
            and name != ""
        )
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise _bad(source, f"the entry of '{name}' is malformed")
    dtype = _BY_CODE.get(code) if isinstance(code, str) else None
    if dtype is None:
        raise _bad(source, f"'{name}' has the element type {code!r}, which is not supported")
    spec = TensorSpec(lengths, dtype)
    if end - begin != spec.nbytes:
        raise _bad(source, f"'{name}' takes {spec.nbytes:,} bytes and is given {end - begin:,}")
    return spec, begin, end
