"""Reads a checkpoint in several files: an index (`*.index.json`) maps each tensor to a file in the same folder.

Source of the layout: transformers, `modeling_utils.py`. Shards may be safetensors or torch files (`pytorch_model.bin`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ckptconv.errors import UnreadableError
from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.safetensors_file import parse_json
from ckptconv.formats.storage import Extent, Storage, StoredTensor
from ckptconv.sources.file import RemotePath, Source

_MAX_SHARDS = 500
_MAX_INDEX_BYTES = 4 << 20


def read_index(source: Source, open_shard: Callable[[Path | RemotePath], Checkpoint]) -> Checkpoint:
    """Open an index and all its shards; ``open_shard`` opens one by its content. Closes them again if one fails."""
    if source.size > _MAX_INDEX_BYTES:
        raise UnreadableError(
            f"{source.path} is JSON of {source.size:,} bytes, not an index of shards", "An index is a small file."
        )
    weights = parse_json(source, source.read(0, source.size)).get("weight_map")
    if not isinstance(weights, dict) or not weights or not all(isinstance(f, str) for f in weights.values()):
        raise UnreadableError(f"{source.path} is JSON, but not an index of shards", "An index has a 'weight_map'.")
    names = list(dict.fromkeys(weights.values()))
    if len(names) > _MAX_SHARDS:
        raise UnreadableError(f"{source.path} names {len(names):,} shards", "No checkpoint has that many.")
    shards: list[Checkpoint] = []
    try:
        for name in names:
            if "/" in name or "\\" in name or name in ("", ".", "..") or not name.isprintable():
                raise UnreadableError(
                    f"{source.path} names a shard outside its folder: {name}", "Shards are in the folder of the index."
                )
            there = source.path
            shards.append(open_shard(there.parent / name if isinstance(there, Path) else there.sibling(name)))
        return _joined(source, weights, dict(zip(names, range(len(names)), strict=True)), shards)
    except BaseException:
        for shard in shards:
            shard.close()
        raise


def _joined(source: Source, weights: dict[str, str], numbers: dict[str, int], shards: list[Checkpoint]) -> Checkpoint:
    """The shards as one checkpoint; a storage's key is its shard's number and its key there."""
    tree: dict[str, object] = {}
    for name, file in weights.items():
        shard = shards[numbers[file]]
        stored = shard.tensors("").get(name) if "" in shard.sections else None
        if stored is None:
            raise UnreadableError(
                f"{source.path} says that {file} holds {name}, but it does not", "Download all of them again."
            )
        tree[name] = StoredTensor(stored.spec, f"{numbers[file]}:{stored.storage}", stored.offset, stored.strides)

    def shard_of(key: str) -> tuple[Checkpoint, str]:
        number, _, storage = key.partition(":")
        return shards[int(number)], storage

    def locate(key: str) -> Storage:
        shard, storage = shard_of(key)
        return shard.locate(storage)

    def nbytes_of(key: str) -> int:
        shard, storage = shard_of(key)
        return shard.nbytes_of(storage)

    def extent(key: str) -> Extent | None:
        shard, storage = shard_of(key)
        return shard.extent(storage)

    return Checkpoint(
        path=source.path,
        format=f"{' and '.join(sorted({s.format for s in shards}))}, {len(shards)} shards",
        sources=(source, *(one for s in shards for one in s.sources)),
        tree=tree,
        locate=locate,
        nbytes_of=nbytes_of,
        extent=extent,
        named=tuple(dict.fromkeys(name for s in shards for name in s.named)),
        called=tuple(dict.fromkeys(name for s in shards for name in s.called)),
    )
