"""Addresses of files that lie elsewhere: what is shown of them, and how they are opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from ckptconv.errors import UsageError
from ckptconv.formats.source import Source
from ckptconv.sources.interface import Digest, Far, Fetching, UnreachableError

SCHEMES = ("https", "http", "hf", "s3", "gs")
_NAMED_BY_HASH = ("download.openmmlab.com", "download.pytorch.org")
"""Hosts whose files end in the first digits of their SHA-256, as `torch.hub` and OpenMMLab's publisher name them."""
_HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


@dataclass(frozen=True)
class Address:
    """Where a file is. ``url`` is never shown: it may hold a password or a signature; ``str()`` leaves them out."""

    url: str = field(repr=False)
    fetching: Fetching
    published: Digest | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in SCHEMES:
            raise UsageError(
                f"addresses of the kind {parts.scheme}:// are not known",
                "SRC is a path, https://, hf://, s3://, gs://, or a name of `ckptconv releases`.",
            )
        if not parts.netloc or not parts.path.strip("/"):
            raise UsageError(f"{self} names no file", "An address goes on after the host or bucket: …/FILE.")
        if parts.scheme == "hf" and parts.path.count("/") < 2:
            raise UsageError(f"{self} names no file", "It is hf://ORGANISATION/REPOSITORY/FILE[@REVISION].")

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}{'?…' if parts.query else ''}"

    @property
    def name(self) -> str:
        """The file's name, fit for a disk."""
        path = urlsplit(self.url).path
        if self.url.startswith("hf://"):
            path = path.partition("@")[0]
        name = re.sub(r"[^\w.+=@-]", "_", unquote(path.rpartition("/")[2]))[-150:]
        return name if name.strip(".") else "file"

    @property
    def digest(self) -> Digest | None:
        """What was published of the file's content: by its authors, or in its name where that is the rule."""
        parts = urlsplit(self.url)
        found = _HASH.search(parts.path) if parts.hostname in _NAMED_BY_HASH else None
        return self.published or (Digest("sha256", found[1]) if found else None)

    def beside(self, name: str) -> Address:
        parts = urlsplit(self.url)
        path, at, revision = parts.path.partition("@") if parts.scheme == "hf" else (parts.path, "", "")
        path = f"{path.rpartition('/')[0]}/{quote(name)}{at}{revision}"
        return Address(parts._replace(path=path).geturl(), self.fetching)

    def open(self) -> Source:
        """Parts of it, as they are asked for; or all of it, where that is wanted or its server sends no parts."""
        from ckptconv.sources.cache import Cache
        from ckptconv.sources.spool import Spooled

        cache = Cache(self.fetching.cache_dir)
        try:
            far = self._far()
        except UnreachableError:
            kept = cache.find(self.url, None)
            if kept is None:
                raise
            return kept
        try:
            kept = cache.find(self.url, far)
            if kept is None and not self.fetching.whole and far.ranged:
                return Spooled(self, far, self.fetching)
            source = kept or cache.fetch(self.url, str(self), self.name, far, self.fetching)
        except BaseException:
            far.close()
            raise
        far.close()
        return source

    def _far(self) -> Far:
        scheme, _, rest = self.url.partition("://")
        if scheme == "hf":
            from ckptconv.sources import hub

            return hub.connect(rest, str(self), self.digest)
        if scheme in ("s3", "gs"):
            from ckptconv.sources.objects import StoredObject

            return StoredObject(scheme, rest, str(self), self.digest)
        from ckptconv.sources.http import HttpFile

        return HttpFile(self.url, str(self), self.digest)
