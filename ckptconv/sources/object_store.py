"""Files of object stores, through fsspec and the stores' own packages: s3:// (s3fs) and gs:// (gcsfs).

These packages care for logins, endpoints, proxies and retries. Of their errors the class is shown, and not the text: it
may hold a signed address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ckptconv.errors import CkptconvError, UnreadableError
from ckptconv.sources.interface import FIRST_BYTES, Digest, UnreachableError, changed_while_read
from ckptconv.sources.optional import package

_PART = 1 << 24
_STORES = {
    "s3": ("s3fs", "S3FileSystem", "aws configure, or AWS_PROFILE"),
    "gs": ("gcsfs", "GCSFileSystem", "gcloud auth application-default login"),
}
"""Package, class, and the command to log in."""
_STATES = ("generation", "ETag", "etag", "LastModified", "mtime")


class StoredObject:
    """A file of a store. ``path`` is the address without its scheme."""

    ranged = True

    def __init__(self, scheme: str, path: str, label: str, published: Digest | None = None) -> None:
        name, kind, self._login = _STORES[scheme]
        store = getattr(package(name, scheme), kind)
        self._label, self._path, self.published = label, path, published
        self.requests = self.received = 0
        self._file: Any = None
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        try:
            self._store = store(**options)
            try:
                self._info: Mapping[str, Any] = self._store.info(path)
            except Exception as error:
                if type(error).__name__ != "NoCredentialsError":
                    raise
                self._store = store(anon=True, **options)  # without a login: the file may be public
                self._info = self._store.info(path)
            if self._info.get("type") == "directory":
                raise UnreadableError(f"{label} is a folder", "Give the checkpoint file inside it.")
            self._file = self._store.open(path, "rb", cache_type="none", block_size=_PART)
        except Exception as error:
            raise self._failed(error) from None
        self.requests += 1
        self.size: int | None = self._info["size"]
        self.version = self._state(self._info)
        self.head = b"".join(self.read(0, FIRST_BYTES))

    @staticmethod
    def _state(info: Mapping[str, Any]) -> str:
        return next((f"{key} {info[key]}" for key in _STATES if info.get(key)), "")

    def read(self, start: int, end: int | None) -> Iterator[bytes]:
        stop = self.size if end is None else min(end, self.size or 0)
        while stop is not None and start < stop:
            try:
                self._file.seek(start)
                run = self._file.read(min(_PART, stop - start))
            except Exception as error:
                raise self._failed(error) from None
            self.requests += 1
            self.received += len(run)
            if not run:
                raise changed_while_read(self._label)
            start += len(run)
            yield run

    def require_unchanged(self) -> None:
        try:
            now = self._store.info(self._path, refresh=True)
        except Exception as error:
            raise self._failed(error) from None
        self.requests += 1
        if (now["size"], self._state(now)) != (self.size, self.version):
            raise changed_while_read(self._label)

    def _failed(self, error: Exception) -> CkptconvError:
        kind = type(error).__name__
        if isinstance(error, CkptconvError):
            return error
        if kind == "FileExpired":
            return changed_while_read(self._label)
        status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
        if isinstance(error, PermissionError) or status in (401, 403):
            return UnreadableError(f"{self._label} cannot be fetched: access denied", f"Log in: {self._login}.")
        if isinstance(error, FileNotFoundError) or status == 404:
            return UnreadableError(
                f"{self._label} does not exist, or you have no access", f"Check the address, or log in: {self._login}."
            )
        if isinstance(error, ValueError | NotImplementedError):
            return UnreadableError(f"{self._label} is not a valid address", "Check it.")
        return UnreachableError(f"{self._label} cannot be fetched ({kind})", "Try again later.")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
