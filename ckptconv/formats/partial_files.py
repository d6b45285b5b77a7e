"""Files that are one part of a checkpoint, and folders: their names, and what to convert instead.

Sources of the names: `huggingface_hub/serialization/_base.py` and transformers' `save_pretrained`
(NAME-0000N-of-0000M), DeepSpeed's `runtime/engine.py` (`_get_zero_ckpt_name`), torch's
`distributed/checkpoint/filesystem.py` (`.metadata`, `.distcp`) and `_hf_utils.py` (shard-0000N-model-….safetensors).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from ckptconv.arguments import call
from ckptconv.errors import UnreadableError, shell_word
from ckptconv.formats.distributed_metadata import METADATA
from ckptconv.small_file import is_file
from ckptconv.sources.file import RemotePath

_SHARD = re.compile(r"(?P<stem>.+?)-(?P<number>\d{2,6})-of-(?P<count>\d{2,6})(?P<suffix>(?:\.\w+)+)")
_ZERO = re.compile(r"(bf16_|fp16_)?zero_pp_rank_\d+_mp_rank_\d+_optim_states\.pt")
_RANK = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_RANKS_OWN = re.compile(r"__\d+\.metadata")
_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".pkl", ".npy", ".torch", ".tar", ".index.json")
_WANTED = f"Download the file {METADATA} too, which describes the others"
_MAX_FILES = 10_000
_MAX_INDEXES = 16
_MAX_INDEX_BYTES = 4 << 20


def require_complete(path: Path | RemotePath) -> None:
    """Raise UnreadableError for a folder, and for a file that is a part by its name or by an index in its folder."""
    with contextlib.suppress(OSError):  # opening it reports that error
        _require_complete(path)


def _require_complete(path: Path | RemotePath) -> None:
    if isinstance(path, Path) and path.is_dir():
        if is_file(path / METADATA):
            return
        raise _folder(path)
    if _RANK.fullmatch(path.name):
        raise UnreadableError(
            f"{path} is one process's part of what torch.distributed.checkpoint's HuggingFaceStorageWriter saved",
            "Save it with enable_consolidation=True, or join the parts: "
            "torch.distributed.checkpoint._consolidate_hf_safetensors.consolidate_safetensors_files.",
        )
    shard = _SHARD.fullmatch(path.name)
    if shard and int(shard["count"]) > 1:
        raise _one_of(path, f"one of {int(shard['count']):,} files that hold the network together", _index(path, shard))
    if _ZERO.fullmatch(path.name):
        raise UnreadableError(
            f"{path} is one process's part of a DeepSpeed training",
            "Join the parts with DeepSpeed's script in their folder: python zero_to_fp32.py FOLDER OUTPUT.",
        )
    if path.name.endswith(".distcp") or (path.name == METADATA and not isinstance(path, Path)):
        raise _distributed(path)
    if not isinstance(path, Path):
        return
    if path.name == METADATA and is_file(path):
        raise _distributed(path)
    index = next(_indexes_of(path), None)
    if index is not None:
        raise _one_of(path, "one of several files that hold the network together", index)


def _one_of(path: Path | RemotePath, what: str, index: Path | RemotePath | str) -> UnreadableError:
    if isinstance(index, str):
        return UnreadableError(
            f"{path} is {what}", f"Download the others and their index, {index}, and give the index."
        )
    return UnreadableError(
        f"{path} is {what}", f"Give the index, which names them all: {call('convert', str(index), 'DST')}"
    )


def _index(path: Path | RemotePath, shard: re.Match[str]) -> Path | RemotePath | str:
    """The index of a shard: its path, or its name if it is not in the folder."""
    name = f"{shard['stem']}{shard['suffix']}.index.json"
    if not isinstance(path, Path):
        return path.sibling(name)
    own = path.parent / name
    return own if own.is_file() else next(_indexes_of(path), name)


def _indexes_of(path: Path) -> Iterator[Path]:
    """The indexes in a file's folder that name it among others."""
    try:
        indexes = sorted(path.parent.glob("*.index.json"))[:_MAX_INDEXES]
    except OSError:
        return
    for index in indexes:
        try:
            small = index.stat().st_size <= _MAX_INDEX_BYTES and index.is_file()
            content = json.loads(index.read_bytes()) if small else None
        except (OSError, ValueError, RecursionError):
            continue
        weights = content.get("weight_map") if isinstance(content, dict) else None
        files = set(map(str, weights.values())) if isinstance(weights, dict) else set()
        if path.name in files and len(files) > 1:
            yield index


def _distributed(path: Path | RemotePath) -> UnreadableError:
    message = f"{path} is a part of a folder of torch.distributed.checkpoint"
    if not isinstance(path, Path):
        return UnreadableError(message, "Download the folder with all its files, and give the folder.")
    if is_file(path.parent / METADATA):
        return UnreadableError(message, f"Give the folder: {call('convert', path.parent, 'DST')}")
    return UnreadableError(message, f"{_WANTED}, and give the folder.")


def _folder(path: Path) -> UnreadableError:
    try:
        names = sorted(entry.name for entry, _ in zip(path.iterdir(), range(_MAX_FILES), strict=False))
    except OSError as error:
        return UnreadableError(f"{path} is a directory that cannot be read: {error.strerror}", "Check its permissions.")
    if any(_RANKS_OWN.fullmatch(name) for name in names):
        return UnreadableError(
            f"{path} is a folder of torch.distributed.checkpoint in which each process described only its own part",
            "Load it where it was saved, and save it again without use_collectives=False.",
        )
    if any(name.endswith(".distcp") for name in names):
        return UnreadableError(f"{path} is a folder of torch.distributed.checkpoint without {METADATA}", f"{_WANTED}.")
    files = [name for name in names if name.endswith(_SUFFIXES)]
    indexes = [name for name in files if name.endswith(".index.json")]
    shown = indexes or files
    if not shown:
        return UnreadableError(f"{path} is a directory", "Give the checkpoint file inside it.")
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    given = ", ".join(shell_word(str(path / name)) for name in shown[:5])
    return UnreadableError(f"{path} is a directory", f"Give a file inside it: {given}{more}.")
