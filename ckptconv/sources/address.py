"""Addresses of remote files: what messages show of them, and how they are opened."""

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
    """The address of a file. ``url`` is never shown: it may hold a signature; ``str()`` leaves it out.

    In the names of hf://, s3:// and gs://, %XX is an escaped byte, as in https://.
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
                f"{parsed.scheme}:// addresses are not supported",
                f"{argument('source')} is a path, https://, hf://, s3://, gs://, or a name of `ckptconv releases`.",
            )
        if not parsed.host or not parsed.path.strip("/"):
            raise UsageError(f"{self} does not name a file", "A path follows the host or bucket: …/FILE.")
        if parsed.scheme == "hf" and parsed.path.count("/") < 2:
            raise UsageError(
                f"{self} does not name a file", "The form is hf://ORGANISATION/REPOSITORY/FILE[@REVISION]."
            )
        if parsed.scheme in _STORES and "#" in self.url:
            raise UsageError(f"{self} contains a #", "Write # itself as %23.")
        if parsed.scheme in _STORES and not self._stored.isprintable():
            raise UsageError(f"{self} contains a control character", "Check it.")
        if parsed.scheme == "hf" and {".", ".."} & {*self._stored.split("/")}:
            raise UsageError(f"{self} leaves its folder", "The form is hf://ORGANISATION/REPOSITORY/FILE[@REVISION].")

    @cached_property
    def parsed(self) -> Url:
        return parse(self.url)

    @property
    def _stored(self) -> str:
        """A store's name of the file: the address without its scheme."""
        query = f"?{self.parsed.query}" if self.parsed.query else ""
        return unquote(f"{self.parsed.host}{self.parsed.path}{query}", errors="surrogateescape")

    def __str__(self) -> str:
        return self.parsed.shown

    @property
    def name(self) -> str:
        """The file's name, safe for a local folder."""
        path = self.parsed.path
        if self.parsed.scheme == "hf":
            path = path.partition("@")[0]
        name = re.sub(r"[^\w.+=@-]", "_", unquote(path.rpartition("/")[2]))
        name = name.encode()[-MAX_NAME_BYTES:].decode(errors="ignore")
        return name if name.strip(".") else "file"

    @property
    def digest(self) -> Digest | None:
        """The published digest of the file: from its authors, or from its name on hosts that write it there."""
        match = _HASH.search(self.parsed.path) if self.parsed.host in _NAMED_BY_HASH else None
        return self.published or (Digest("sha256", match[1]) if match else None)

    def sibling(self, name: str) -> Address:
        path = self.parsed.path
        path, at, revision = path.partition("@") if self.parsed.scheme == "hf" else (path, "", "")
        path = f"{path.rpartition('/')[0]}/{quote(name, errors='surrogateescape')}{at}{revision}"
        return Address(str(replace(self.parsed, path=path)), self.fetching)

    def open(self) -> Source:
        """Open it for reads of parts; or fetch it whole, if that is asked or the server sends no parts."""
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
