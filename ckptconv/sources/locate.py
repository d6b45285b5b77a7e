"""What a source's name is: a path, an address, or a release.

What talks to a network is imported when there is an address, and not before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ckptconv.errors import UnreadableError
from ckptconv.methods import registry
from ckptconv.methods.interface import Method, Release
from ckptconv.sources.file import RemotePath
from ckptconv.sources.interface import Fetching
from ckptconv.sources.published import at as release_at
from ckptconv.sources.published import digest_of

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SUFFIXES = (".pth", ".pt", ".ckpt", ".tar", ".safetensors", ".bin", ".pkl", ".torch", ".pyth", ".npy", ".npz", ".json")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Located:
    """A source: its path, its name without secrets, and its release, if it is one.

    ``method`` is the release's, if it was asked for by its name.
    """

    path: Path | RemotePath
    label: str
    method: Method | None = None
    release: Release | None = None

    @property
    def typed(self) -> str:
        """What a command names: a file that its authors give after a login only has its own name then."""
        return self.path.name if self.method and self.release and self.release.login else self.label


def locate(source: str | Path, fetching: Fetching, methods: Iterable[Method] = ()) -> Located:
    """The source of a name. A file of that name has precedence over a release."""
    if isinstance(source, Path):
        return Located(source, str(source))
    if _ADDRESS.match(source):
        from ckptconv.sources.address import Address

        published = release_at(source, methods)
        address = Address(source, fetching, digest_of(published) if published else None)
        return Located(address, str(address), release=published)
    if os.sep in source or os.path.exists(source):
        _require_no_repository(source)
        return Located(Path(source), source)
    known = registry.releases(methods)
    if source in known:
        method, release = known[source]
        return Located(_path_of(method, release, fetching), source, method, release)
    from difflib import get_close_matches

    near = get_close_matches(source, known, 3)
    if near and not Path(source).suffix:
        raise UnreadableError(
            f"there is no file {source}, and no release of that name", f"Did you mean {' or '.join(near)}?"
        )
    return Located(Path(source), source)


def _path_of(method: Method, release: Release, fetching: Fetching) -> RemotePath:
    from ckptconv.sources.address import Address
    from ckptconv.sources.after_login import FileAfterLogin

    if release.login:
        return FileAfterLogin(method, release)
    return Address(release.url, fetching, digest_of(release))


def _require_no_repository(source: str) -> None:
    """Raises UnreadableError for a name that is not a file, and looks like a repository of the Hugging Face Hub."""
    if not _REPOSITORY.fullmatch(source) or Path(source).suffix in _SUFFIXES:
        return
    if not os.path.exists(source) and not os.path.isdir(os.path.dirname(source)):
        raise UnreadableError(
            f"there is no file {source}",
            f"A file of that repository of the Hugging Face Hub is written hf://{source}/FILE, "
            f"such as hf://{source}/model.safetensors",
        )
