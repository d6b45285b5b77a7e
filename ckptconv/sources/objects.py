"""Files of object stores, through fsspec: hf:// (huggingface_hub), s3:// (s3fs), gs:// (gcsfs).

Logins, endpoints and proxies are those packages' business, and so are retries. Each is an extra, imported when asked
for. What they raise is named by its kind and never quoted: it may hold a signed address.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from ckptconv.errors import CkptconvError, EnvironmentMissingError, UnreadableError
from ckptconv.sources.interface import HEAD, Digest, UnreachableError, changed

_PART = 1 << 24
_STORES = {
    "hf": ("huggingface_hub", "HfFileSystem", "hf auth login, or HF_TOKEN"),
    "s3": ("s3fs", "S3FileSystem", "aws configure, or AWS_PROFILE"),
    "gs": ("gcsfs", "GCSFileSystem", "gcloud auth application-default login"),
}
"""Package, class, and what to type for a login."""


class StoredObject:
    """A file of a store. ``path`` is what stands behind the scheme; for hf, a revision may follow as ``@revision``."""

    ranged = True

    def __init__(self, scheme: str, path: str, shown: str, published: Digest | None = None) -> None:
        package, kind, self._login = _STORES[scheme]
        try:
            store = getattr(importlib.import_module(package), kind)
        except ImportError:
            raise EnvironmentMissingError(
                f"{scheme}:// needs the package {package}", f"pip install 'ckptconv[{scheme}]'"
            ) from None
        self._shown = shown
        self.requests = self.received = 0
        self._options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        try:
            self._open(store, scheme, path)
        except CkptconvError:
            raise
        except Exception as error:
            if type(error).__name__ != "NoCredentialsError":
                raise self._failed(error) from None
            self._options["anon"] = True  # nobody is logged in: the bucket may be open to all
            try:
                self._open(store, scheme, path)
            except Exception as anonymous:
                raise self._failed(anonymous) from None
        self.published = published or self._digest()
        self.head = b"".join(self.read(0, HEAD))

    def _open(self, store: Any, scheme: str, path: str) -> None:
        self._store = store(**self._options)
        commit = ""
        if scheme == "hf":
            repo, _, file = path.partition("/")
            name, _, file = file.partition("/")
            file, _, revision = file.partition("@")
            commit = self._store._api.repo_info(f"{repo}/{name}", revision=revision or None).sha or ""
            path = f"{repo}/{name}@{commit}/{file}"
        self._path = path
        self._info: Mapping[str, Any] = self._store.info(path)
        if self._info.get("type") == "directory":
            raise UnreadableError(f"{self._shown} is a folder", "Give the checkpoint file inside it.")
        self.size: int | None = self._info["size"]
        self.version = f"commit {commit}" if commit else self._state(self._info)
        self._file = self._store.open(path, "rb", cache_type="none", block_size=_PART)
        self.requests += 1

    @staticmethod
    def _state(info: Mapping[str, Any]) -> str:
        for key in ("generation", "ETag", "etag", "LastModified", "mtime"):
            if info.get(key):
                return f"{key} {info[key]}"
        return ""

    def _digest(self) -> Digest | None:
        """The digest of a large file that the Hugging Face Hub keeps."""
        lfs = self._info.get("lfs")
        found = lfs.get("sha256") if isinstance(lfs, Mapping) else getattr(lfs, "sha256", None)
        return Digest("sha256", found) if found else None

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
                raise changed(self._shown)
            start += len(run)
            yield run

    def require_unchanged(self) -> None:
        if self.version.startswith("commit "):
            return
        try:
            now = self._store.info(self._path, refresh=True)
        except Exception as error:
            raise self._failed(error) from None
        self.requests += 1
        if (now["size"], self._state(now)) != (self.size, self.version):
            raise changed(self._shown)

    def _failed(self, error: Exception) -> CkptconvError:
        kind = type(error).__name__
        if kind == "FileExpired":
            return changed(self._shown)
        status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
        if isinstance(error, PermissionError) or kind == "GatedRepoError" or status in (401, 403):
            return UnreadableError(f"{self._shown} is not open to you", f"Log in: {self._login}.")
        if isinstance(error, FileNotFoundError) or kind.endswith("NotFoundError") or status == 404:
            return UnreadableError(
                f"{self._shown} is not there, or not for you to see", f"Check the address, or log in: {self._login}."
            )
        if isinstance(error, ValueError | NotImplementedError):
            return UnreadableError(f"{self._shown} is no address of a file there", "Check it.")
        return UnreachableError(f"{self._shown} cannot be fetched ({kind})", "Try again later.")

    def close(self) -> None:
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()
