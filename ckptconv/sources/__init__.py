"""Where a checkpoint comes from: a path, an address, or the name of a release. Everything else is read from `formats`.

Nothing here knows what a checkpoint is, and nothing but `formats` knows how to read one. What talks to a network is
imported when there is an address, and not before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ckptconv import registry
from ckptconv.errors import UnreadableError
from ckptconv.formats.source import Place
from ckptconv.methods.interface import Method, Release
from ckptconv.sources.interface import Digest, Fetching

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Found:
    """A source: where it is, what it is called without anything secret, and whose release it is, if it is one."""

    path: Path | Place
    label: str
    method: Method | None = None
    release: Release | None = None


def find(source: str | Path, fetching: Fetching, methods: Iterable[Method] = ()) -> Found:
    """What a source's name stands for. A file of that name goes before a release."""
    if isinstance(source, Path):
        return Found(source, str(source))
    if _ADDRESS.match(source):
        from ckptconv.sources.places import Address

        address = Address(source, fetching)
        return Found(address, str(address))
    if os.sep in source or os.path.exists(source):
        return Found(Path(source), source)
    known = registry.releases(methods)
    if source in known:
        from ckptconv.sources.places import Address

        method, release = known[source]
        digest = Digest("sha256", release.sha256) if release.sha256 else None
        digest = digest or (Digest("md5", release.md5) if release.md5 else None)
        return Found(Address(release.url, fetching, digest), source, method, release)
    from difflib import get_close_matches

    near = get_close_matches(source, known, 3)
    if near and not Path(source).suffix:
        raise UnreadableError(
            f"there is no file {source}, and no release of that name", f"Did you mean {' or '.join(near)}?"
        )
    return Found(Path(source), source)


__all__ = ["Digest", "Fetching", "Found", "find"]
