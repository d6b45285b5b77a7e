"""Which format a file has: its content tells, its suffix does not count. Other kinds of files are refused by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ckptconv.errors import UnreadableError
from ckptconv.formats import numpy_file, safetensors_file, sharded, torch_file
from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.partial_files import require_complete
from ckptconv.sources.file import RemotePath, Source
from ckptconv.sources.web_page import is_html

_OTHER_FILES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Fetch it: git lfs pull."),
    (b"\x89HDF\r\n", "an HDF5 file (Keras)", "Convert it to a torch or safetensors state dict where it was made."),
    (b"\x1f\x8b", "gzip-compressed", "Unpack it first: gunzip."),
    (b"BZh", "bzip2-compressed", "Unpack it first: bunzip2."),
    (b"\xfd7zXZ", "xz-compressed", "Unpack it first: unxz."),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "Unpack it first: unzstd."),
    (b"7z\xbc\xaf", "a 7z archive", "Unpack it first."),
    (b"Rar!", "a RAR archive", "Unpack it first."),
    (b"GGUF", "a GGUF file", "Convert it to a torch or safetensors state dict where it was made."),
    (b"%PDF", "a PDF document", "Give the checkpoint file."),
    (b"\x7fELF", "a program", "Give the checkpoint file."),
)


def open_checkpoint(path: Path | RemotePath) -> Checkpoint:
    """Open a checkpoint of any known format. Raises UnreadableError for any other file, a broken or an unsafe one."""
    require_complete(path)
    if isinstance(path, Path) and os.path.isdir(path):  # which is False for a path that is too long
        from ckptconv.formats import distributed  # few sources are folders

        return distributed.read_folder(path)
    return _opened(path, _shard)


def _shard(path: Path | RemotePath) -> Checkpoint:
    def refuse(_: Path | RemotePath) -> Checkpoint:
        raise UnreadableError(f"{path} is a shard and is an index itself", "Give the index that names the files.")

    return _opened(path, refuse)


def _opened(path: Path | RemotePath, open_shard: Callable[[Path | RemotePath], Checkpoint]) -> Checkpoint:
    source = Source(path) if isinstance(path, Path) else path.open()
    try:
        return _by_content(source, open_shard)
    except UnreadableError:
        source.evict()
        source.close()
        raise
    except BaseException:
        source.close()
        raise


def _by_content(source: Source, open_shard: Callable[[Path | RemotePath], Checkpoint]) -> Checkpoint:
    head = source.read(0, min(source.size, 512))
    if safetensors_file.header_length(source) is not None:
        return safetensors_file.read(source)
    if head.startswith(b"PK"):
        return torch_file.read_zip(source)
    if head[:1] == b"\x80":
        legacy = torch_file.LEGACY_MAGIC.to_bytes(10, "little") in head[:32]
        return torch_file.read_legacy(source) if legacy else numpy_file.read_pickle(source)
    if head.startswith(numpy_file.NPY_MAGIC):
        return numpy_file.read_npy(source)
    _refuse_other_files(source, head)
    if head.lstrip()[:1] == b"{":
        return sharded.read_index(source, open_shard)
    raise UnreadableError(
        f"{source.path} is not a checkpoint: it starts with {head[:8]!r}",
        "Supported: files of torch.save, safetensors and pickle.",
    )


_TABLE_MAGIC = bytes.fromhex("57fb808b247547db")
"""The end of a LevelDB table: tensorflow/core/lib/io/format.h."""


def _refuse_other_files(source: Source, head: bytes) -> None:
    if source.size > len(_TABLE_MAGIC) and source.read(source.size - 8, 8) == _TABLE_MAGIC:
        raise UnreadableError(
            f"{source.path} is the index of a TensorFlow checkpoint",
            "Convert it first: tonylins/simclr-converter for SimCLR, Separius/SimCLRv2-Pytorch for SimCLRv2.",
        )
    for magic, what, hint in _OTHER_FILES:
        if head.startswith(magic):
            raise UnreadableError(f"{source.path} is {what}", hint)
    if is_html(head):
        raise UnreadableError(
            f"{source.path} is a web page, not a checkpoint",
            "The download returned a login or error page. Download it again.",
        )
    if head[257:262] == b"ustar":
        raise UnreadableError(
            f"{source.path} is a tar archive",
            "Unpack it first: tar xf. (A '.pth.tar' file of torch is not a tar archive.)",
        )
    if head[:1] == b"\x08" and (b"onnx" in head or b"pytorch" in head or b"graph" in head):
        raise UnreadableError(
            f"{source.path} is an ONNX model", "Save the state dict of the network it was exported from."
        )
