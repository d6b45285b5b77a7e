"""What a converted file says of its conversion, for people: where it came from, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptconv.conversion.provenance import origin, statement
from ckptconv.formats.interface import Checkpoint

_LONGEST = 300
"""Characters of a name. What is longer, ckptconv did not write."""


@dataclass(frozen=True)
class ConversionRecord:
    """The conversion that wrote a file, as the file says it. '' and 0 are what it does not say.

    ``source`` and ``source_bytes`` are the converted checkpoint's file name and size, ``release`` its name in
    `ckptconv releases`. ``section`` is where its weights were, ``target`` whose names were written, ``network`` which
    backbone it is. ``tensors`` were written, ``dropped`` entries left out. ``dtype`` is set if numbers were rounded.
    """

    version: str
    method: str
    layout: str
    section: str
    target: str
    network: str
    source: str
    source_format: str
    source_bytes: int
    release: str
    tensors: int
    dropped: int
    dtype: str

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> ConversionRecord | None:
        """The record of an open file; None if ckptconv did not write it."""
        if origin(checkpoint) is None:
            return None
        found = statement(checkpoint)
        source, backbone = _mapping(found.get("source")), _mapping(found.get("backbone"))
        return cls(
            version=_text(found.get("version")),
            method=_text(found["method"]),
            layout=_text(found.get("layout")),
            section=_text(found.get("section")),
            target=_text(found["target"]),
            network=_text(backbone.get("name")),
            source=_text(source.get("name")),
            source_format=_text(source.get("format")),
            source_bytes=_count(source.get("bytes")),
            release=_text(source.get("release")),
            tensors=_count(found.get("tensors")),
            dropped=_count(found.get("dropped")),
            dtype=_text(found.get("dtype")),
        )


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _text(found: Any) -> str:
    return found if isinstance(found, str) and len(found) <= _LONGEST else ""


def _count(found: Any) -> int:
    return found if type(found) is int and found >= 0 else 0
