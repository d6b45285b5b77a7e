"""Which published file a source is: the one at its address, or the one whose name and digest it has.

A file that has a release's name alone may be any file. Reading a digest costs as much as reading the file, so it is
computed only for a file of such a name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from ckptconv.methods import registry
from ckptconv.methods.interface import Method, Release
from ckptconv.sources.file import Source
from ckptconv.sources.interface import Digest

_BLOCK = 1 << 22


def digest_of(release: Release) -> Digest | None:
    """The digest that the authors print; None if they print none."""
    if release.sha256:
        return Digest("sha256", release.sha256)
    return Digest("md5", release.md5) if release.md5 else None


def at(address: str, methods: Iterable[Method] = ()) -> Release | None:
    """The release at an https:// or hf:// address; None for any other address."""
    url = _https(address.partition("?")[0])
    return next((release for release in registry.releases_ending(url, methods) if _https(release.url) == url), None)


def _https(address: str) -> str:
    """The address that the Hugging Face Hub gives a file of hf://; any other one as it is."""
    if not address.startswith("hf://") or address.count("/") < 4:
        return address
    organisation, repository, file = address.removeprefix("hf://").split("/", 2)
    file, _, revision = file.partition("@")
    return f"https://huggingface.co/{organisation}/{repository}/resolve/{revision or 'main'}/{file}"


def recognised(sources: Sequence[Source], methods: Iterable[Method] = ()) -> Release | None:
    """The release that a single file on this machine is, by its name and its digest; None for anything else."""
    if len(sources) != 1 or not sources[0].is_local:
        return None
    (source,) = sources
    digits: dict[str, str] = {}
    for release in registry.releases_ending(f"/{source.name}", methods):
        digest = digest_of(release)
        if release.file_name != source.name or digest is None:
            continue
        if digest.algorithm not in digits:
            digits[digest.algorithm] = _digits(source, digest.algorithm)
        if digits[digest.algorithm].startswith(digest.digits):
            return release
    return None


def _digits(source: Source, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    for start in range(0, source.size, _BLOCK):
        digest.update(source.read(start, min(_BLOCK, source.size - start)))
    return digest.hexdigest()
