"""Files that are one part of a checkpoint, and folders: what they are called, and what to give instead.

Sources of the names: `huggingface_hub/serialization/_base.py` and transformers' `save_pretrained`
(NAME-0000N-of-0000M), DeepSpeed's `runtime/engine.py` (`_get_zero_ckpt_name`), torch's
`distributed/checkpoint/filesystem.py` (`.metadata`, `.distcp`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from ckptconv.errors import UnreadableError, shell_word
from ckptconv.formats.source import Place

_SHARD = re.compile(r"(?P<stem>.+?)-(?P<number>\d{2,6})-of-(?P<count>\d{2,6})(?P<suffix>(?:\.\w+)+)")
_ZERO = re.compile(r"(bf16_|fp16_)?zero_pp_rank_\d+_mp_rank_\d+_optim_states\.pt")
_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".pkl", ".npy", ".torch", ".tar", ".index.json")
_MOST_FILES = 10_000
_MOST_INDEXES = 16
_LONGEST_INDEX = 4 << 20


def require_whole(path: Path | Place) -> None:
    """Raise UnreadableError for a folder, and for a file whose name or whose neighbours say that it is a part."""
    if isinstance(path, Path) and path.is_dir():
        raise _folder(path)
    shard = _SHARD.fullmatch(path.name)
    if shard and int(shard["count"]) > 1:
        raise _one_of(path, f"one of {int(shard['count']):,} files that hold the network together", _index(path, shard))
    if _ZERO.fullmatch(path.name):
        raise UnreadableError(
            f"{path} is one process's part of a DeepSpeed training",
            "Join the parts with the script that DeepSpeed put beside them: python zero_to_fp32.py FOLDER OUTPUT.",
        )
    if not isinstance(path, Path):
        return
    if path.suffix == ".distcp" or (path.name == ".metadata" and path.parent.is_dir()):
        raise UnreadableError(f"{path} is a part of a folder of torch.distributed.checkpoint", _join(path.parent))
    index = next(_indexes_of(path), None)
    if index is not None:
        raise _one_of(path, "one of several files that hold the network together", index)


def _one_of(path: Path | Place, what: str, index: Path | Place | str) -> UnreadableError:
    if isinstance(index, str):
        return UnreadableError(f"{path} is {what}", f"Get the others and their index, {index}, and give the index.")
    return UnreadableError(
        f"{path} is {what}", f"Give the index, which names them all: ckptconv convert {shell_word(str(index))} DST"
    )


def _index(path: Path | Place, shard: re.Match[str]) -> Path | Place | str:
    """The index of a shard: where it is, or what it is called where it is not at hand."""
    name = f"{shard['stem']}{shard['suffix']}.index.json"
    if not isinstance(path, Path):
        return path.beside(name)
    own = path.parent / name
    return own if own.is_file() else next(_indexes_of(path), name)


def _indexes_of(path: Path) -> Iterator[Path]:
    """The indexes beside a file that name it among others."""
    try:
        found = sorted(path.parent.glob("*.index.json"))[:_MOST_INDEXES]
    except OSError:
        return
    for index in found:
        try:
            small = index.stat().st_size <= _LONGEST_INDEX and index.is_file()
            content = json.loads(index.read_bytes()) if small else None
        except (OSError, ValueError, RecursionError):
            continue
        weights = content.get("weight_map") if isinstance(content, dict) else None
        files = set(map(str, weights.values())) if isinstance(weights, dict) else set()
        if path.name in files and len(files) > 1:
            yield index


def _join(folder: Path) -> str:
    target = f"{folder.resolve().name or 'whole'}.pth"
    return (
        "Join it into one file, where torch is: python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
        f"{shell_word(str(folder))} {shell_word(target)}"
    )


def _folder(path: Path) -> UnreadableError:
    try:
        names = sorted(entry.name for entry, _ in zip(path.iterdir(), range(_MOST_FILES), strict=False))
    except OSError as error:
        return UnreadableError(f"{path} is a directory that cannot be read: {error.strerror}", "Check its permissions.")
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        return UnreadableError(f"{path} is a folder of torch.distributed.checkpoint", _join(path))
    files = [name for name in names if name.endswith(_SUFFIXES)]
    indexes = [name for name in files if name.endswith(".index.json")]
    shown = indexes or files
    if not shown:
        return UnreadableError(f"{path} is a directory", "Give the checkpoint file inside it.")
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    given = ", ".join(shell_word(str(path / name)) for name in shown[:5])
    return UnreadableError(f"{path} is a directory", f"Give a file inside it: {given}{more}.")
