"""Addresses of files that lie elsewhere: what is shown of them, and how they are opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from urllib.parse import quote, unquote

from ckptconv.arguments import argument
from ckptconv.errors import UsageError
from ckptconv.sources.file import Source
from ckptconv.sources.interface import MAX_NAME_BYTES, Digest, Fetching, RemoteFile, UnreachableError
from ckptconv.sources.urls import Url, UrlError, parse, redacted

SCHEMES = ("https", "http", "hf", "s3", "gs")
_NAMED_BY_HASH = ("download.openmmlab.com", "download.pytorch.org")
"""Hosts whose files end in the first digits of their SHA-256, as `torch.hub` and OpenMMLab's publisher name them."""
_STORES = ("hf", "s3", "gs")
_HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


@dataclass(frozen=True)
class Address:
    """Where a file is. ``url`` is never shown: it may hold a signature; ``str()`` leaves that out.

    In the names of hf://, s3:// and gs://, %XX stands for a letter as it does behind https://.
    """

    url: str = field(repr=False)
    fetching: Fetching
    published: Digest | None = None

    def __post_init__(self) -> None:
        try:
            parsed = self.parsed
        except UrlError as error:
            raise UsageError(f"the address {redacted(self.url)} {error.what}", error.hint) from None
        if parsed.scheme not in SCHEMES:
            raise UsageError(
                f"addresses of the kind {parsed.scheme}:// are not known",
                f"{argument('source')} is a path, https://, hf://, s3://, gs://, or a name of `ckptconv releases`.",
            )
        if not parsed.host or not parsed.path.strip("/"):
            raise UsageError(f"{self} names no file", "An address goes on after the host or bucket: …/FILE.")
        if parsed.scheme == "hf" and parsed.path.count("/") < 2:
            raise UsageError(f"{self} names no file", "It is hf://ORGANISATION/REPOSITORY/FILE[@REVISION].")
        if parsed.scheme in _STORES and "#" in self.url:
            raise UsageError(f"{self} has a # in it", "Write # itself as %23.")
        if parsed.scheme in _STORES and not self._stored.isprintable():
            raise UsageError(f"{self} has a control character in it", "Check it.")
        if parsed.scheme == "hf" and {".", ".."} & {*self._stored.split("/")}:
            raise UsageError(f"{self} leads out of its folder", "It is hf://ORGANISATION/REPOSITORY/FILE[@REVISION].")

    @cached_property
    def parsed(self) -> Url:
        return parse(self.url)

    @property
    def _stored(self) -> str:
        """What a store calls the file: all that stands behind the scheme."""
        query = f"?{self.parsed.query}" if self.parsed.query else ""
        return unquote(f"{self.parsed.host}{self.parsed.path}{query}", errors="surrogateescape")

    def __str__(self) -> str:
        return self.parsed.shown

    @property
    def name(self) -> str:
        """The file's name, fit for a disk."""
        path = self.parsed.path
        if self.parsed.scheme == "hf":
            path = path.partition("@")[0]
        name = re.sub(r"[^\w.+=@-]", "_", unquote(path.rpartition("/")[2]))
        name = name.encode()[-MAX_NAME_BYTES:].decode(errors="ignore")
        return name if name.strip(".") else "file"

    @property
    def digest(self) -> Digest | None:
        """What was published of the file's content: by its authors, or in its name where that is the rule."""
        found = _HASH.search(self.parsed.path) if self.parsed.host in _NAMED_BY_HASH else None
        return self.published or (Digest("sha256", found[1]) if found else None)

    def sibling(self, name: str) -> Address:
        path = self.parsed.path
        path, at, revision = path.partition("@") if self.parsed.scheme == "hf" else (path, "", "")
        path = f"{path.rpartition('/')[0]}/{quote(name, errors='surrogateescape')}{at}{revision}"
        return Address(str(replace(self.parsed, path=path)), self.fetching)

    def open(self) -> Source:
        """Parts of it, as they are asked for; or all of it, where that is wanted or its server sends no parts."""
        from ckptconv.sources.cache import Cache
        from ckptconv.sources.ranged import RemoteSource

        cache = Cache(self.fetching.cache_dir)
        try:
            remote = self._connect()
        except UnreachableError:
            kept = cache.find(self.url, None, self.digest)
            if kept is None:
                raise
            return kept
        try:
            kept = cache.find(self.url, remote)
            if kept is None and not self.fetching.whole and remote.ranged:
                return RemoteSource(self, remote, self.fetching)
            source = kept or cache.fetch(self.url, str(self), self.name, remote, self.fetching)
        except BaseException:
            remote.close()
            raise
        remote.close()
        return source

    def _connect(self) -> RemoteFile:
        scheme = self.parsed.scheme
        if scheme == "hf":
            from ckptconv.sources import hub

            return hub.connect(self._stored, str(self), self.digest)
        if scheme in ("s3", "gs"):
            from ckptconv.sources.object_store import StoredObject

            return StoredObject(scheme, self._stored, str(self), self.digest)
        from ckptconv.sources.http import HttpFile

        return HttpFile(str(self.parsed), str(self), self.digest)
