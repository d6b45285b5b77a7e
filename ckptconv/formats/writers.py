"""The formats that are written, behind one protocol. What a file says of itself is text under one key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import BinaryIO, Protocol

from ckptconv.errors import UsageError
from ckptconv.formats.interface import Piece, WriteProgress


class Writer(Protocol):
    """Writes one format.

    ``suffix`` is the ending of a file's name that means this format, '' for the format of every other name.
    ``has_sections`` says whether tensors can be put under a key: else they are all at the top level.
    """

    @property
    def suffix(self) -> str: ...

    @property
    def has_sections(self) -> bool: ...

    def write(
        self, file: BinaryIO, pieces: Sequence[Piece], metadata: Mapping[str, str], seen: WriteProgress, section: str
    ) -> None:
        """Write the pieces below ``section``, and the metadata. Raises UsageError for what the format cannot hold."""


class TorchWriter:
    """The zip format of torch.save."""

    suffix, has_sections = "", True

    def write(
        self, file: BinaryIO, pieces: Sequence[Piece], metadata: Mapping[str, str], seen: WriteProgress, section: str
    ) -> None:
        from ckptconv.formats import torch_writer

        torch_writer.write(file, pieces, metadata, seen, section)


class SafetensorsWriter:
    """safetensors, which has one flat table of tensors."""

    suffix, has_sections = ".safetensors", False

    def write(
        self, file: BinaryIO, pieces: Sequence[Piece], metadata: Mapping[str, str], seen: WriteProgress, section: str
    ) -> None:
        from ckptconv.formats import safetensors_writer

        assert not section, "a flat format has no sections"
        # transformers and others refuse a file whose metadata do not name the framework
        safetensors_writer.write(file, safetensors_writer.in_order(pieces), {"format": "pt", **metadata}, seen)


WRITERS: Mapping[str, Writer] = {"torch": TorchWriter(), "safetensors": SafetensorsWriter()}


def format_for(destination: PurePath, format: str | None) -> str:
    """The name of the format to write: the one asked for, or the one that a file's name means."""
    if format is not None:
        if format not in WRITERS:
            raise UsageError(f"there is no format '{format}'", f"Formats: {', '.join(WRITERS)}.", "format")
        return format
    named = (name for name, writer in WRITERS.items() if writer.suffix and destination.suffix == writer.suffix)
    return next(named, "torch")
