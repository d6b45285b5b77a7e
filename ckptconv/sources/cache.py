"""Whole files, kept for the next time. The cache holds a file complete and checked, or not at all.

Each file has its own folder, named by a digest of its address, with the file and a note about it. During a fetch the
folder's name ends in `.part`; the last step is one rename. An interrupted fetch continues where it stopped, if the file
is still the same.

The content of the cache is untrusted input, as a checkpoint is. The cache is used only if no one else can write to it;
links in it are not followed, names in notes are checked, and a digest is computed each time before a receipt names it.
`safe_folder` opens what this module reads and writes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO

from platformdirs import user_cache_path

from ckptconv.arguments import argument
from ckptconv.errors import EnvironmentMissingError, UnreadableError
from ckptconv.sources.file import Source, Transfer
from ckptconv.sources.interface import MAX_NAME_BYTES, Digest, Fetching, RemoteFile, UnreachableError
from ckptconv.sources.ranged import disk_space_for
from ckptconv.sources.safe_folder import SafeFolder, opened
from ckptconv.sources.web_page import is_html

_NOTE = "~note.json"
"""No cached file has this name: see `Address.name`."""
_PART = ".part"
_KEY = re.compile("[0-9a-f]{24}")
_NAME = re.compile(r"[\w.+=@-]+")
_UNUSABLE = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS}
_UNUSABLE |= {errno.ENOTEMPTY}
_MAX_NOTE = 1 << 16
_ANOTHER = f"Name another folder: {argument('cache_dir')}."


@dataclass(frozen=True)
class CacheEntry:
    """A file of the cache: its address without secrets, its server's version, the published digest.

    ``fetched`` is less than ``size`` after an interrupted fetch.
    """

    address: str
    name: str
    size: int
    version: str
    published: str = ""
    fetched: int = 0

    @property
    def whole(self) -> bool:
        return self.fetched == self.size


def default_cache_dir() -> Path:
    """`CKPTCONV_CACHE_DIR`, or the folder of this platform: `$XDG_CACHE_HOME/ckptconv`, `~/.cache/ckptconv`, …"""
    named = os.environ.get("CKPTCONV_CACHE_DIR")
    if named:
        return Path(named)
    with contextlib.suppress(RuntimeError):  # of a home folder that nothing names; older releases return "~"
        folder = user_cache_path("ckptconv", appauthor=False)
        if folder.is_absolute():
            return folder
    raise EnvironmentMissingError("there is no home folder for the cache", _ANOTHER)


class CachedSource(Source):
    """A file of the cache, which `evict` removes from it."""

    def __init__(self, cache: Cache, key: str, descriptor: int, entry: CacheEntry, checked: bool) -> None:
        super().__init__(cache.folder / key / entry.name, descriptor)
        self.transfer = Transfer(entry.address, self.size, entry.version, entry.published, checked, whole=True)
        self._cache, self._key = cache, key

    def evict(self) -> None:
        self._cache.remove(self._key)


class Cache:
    """The files under a folder, by default `default_cache_dir`. Raises EnvironmentMissingError if it is unusable."""

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = Path(folder) if folder is not None else default_cache_dir()

    def entries(self) -> list[CacheEntry]:
        """The files, complete or not, in order of address."""
        with self._root() as root:
            entries = [_entry(root, name) for name in _keys(root)] if root else []
        return sorted((entry for entry in entries if entry), key=lambda e: (e.address, e.fetched))

    def clear(self) -> tuple[int, int]:
        """Remove everything that has an entry's name. Returns how many files and bytes there were."""
        entries = self.entries()
        with self._root() as root:
            if root is not None:
                for name in _keys(root):
                    root.remove(name)
        return len(entries), sum(entry.fetched for entry in entries)

    def remove(self, key: str) -> None:
        with self._root() as root:
            if root:
                root.remove(key)

    def find(self, url: str, remote: RemoteFile | None, published: Digest | None = None) -> Source | None:
        """The whole file of an address, if the cache has the version of ``remote``, or any if that is None.

        Its digest is computed each time. If it is not the published one, the file is removed from the cache.
        """
        key = _key(url)
        with self._root() as root:
            entry = _entry(root, key) if root else None
            if root is None or entry is None or not entry.whole:
                return None
            if remote is not None and remote.size not in (None, entry.size):
                return None
            if remote is not None and (not remote.version or remote.version != entry.version):
                return None
            with root.folder(key) as folder:
                descriptor = folder.open(entry.name, os.O_RDONLY) if folder else None
            if descriptor is None:
                return None
            published = remote.published if remote is not None else published
            entry = replace(entry, published=str(published) if published else "")
            if published is not None and not _digits(descriptor, published).startswith(published.digits):
                os.close(descriptor)
                root.remove(key)
                return None
            return CachedSource(self, key, descriptor, entry, published is not None)

    def fetch(self, url: str, label: str, name: str, remote: RemoteFile, fetching: Fetching) -> Source:
        """Fetch all of a file, or what is missing of it, and check it."""
        assert _NAME.fullmatch(name)
        key = _key(url)
        part = key + _PART
        while True:
            with (
                contextlib.suppress(FileNotFoundError),  # another process has moved or removed the folder
                disk_space_for(f"the cache in {self.folder} ({argument('cache_dir')})"),
                self._root(create=True) as root,
                _there(root).folder(part, create=True) as folder,
                _there(folder).file(name) as file,
            ):
                assert root is not None
                assert folder is not None
                fcntl.flock(file, fcntl.LOCK_EX)
                if not (root.holds(part, folder) and folder.holds(name, file)):
                    continue  # the process that had it locked has moved it
                source = self.find(url, remote)
                if source is not None:
                    root.remove(part)
                    return source
                try:
                    entry = _filled(file, folder, label, name, remote, fetching)
                except BaseException as error:
                    refused = isinstance(error, UnreadableError) and not isinstance(error, UnreachableError)
                    if refused or not (remote.ranged and remote.version):  # otherwise the next fetch continues
                        root.remove(part)
                    raise
                root.rename(part, key)
                source = CachedSource(self, key, os.dup(file.fileno()), entry, remote.published is not None)
                assert source.transfer is not None
                source.transfer.fetched, source.transfer.requests = remote.received, remote.requests
                return source

    @contextlib.contextmanager
    def _root(self, create: bool = False) -> Iterator[SafeFolder | None]:
        """The cache's folder; None if there is none and ``create`` is False."""
        with _usable(self.folder), opened(self.folder, create) as root:
            yield root


def _there(folder: SafeFolder | None) -> SafeFolder:
    assert folder is not None
    return folder


def _filled(
    file: BinaryIO, folder: SafeFolder, label: str, name: str, remote: RemoteFile, fetching: Fetching
) -> CacheEntry:
    """Fetch the missing bytes, check the file, and write its note."""
    published = str(remote.published) if remote.published else ""
    before = _noted(folder)
    done = os.fstat(file.fileno()).st_size
    same = before is not None and (before.version, before.size, before.name) == (remote.version, remote.size, name)
    if not (same and remote.ranged and remote.version and done <= (remote.size or 0)):
        done = 0
        file.truncate(0)
    file.seek(0, os.SEEK_END)
    _note(folder, CacheEntry(label, name, remote.size or 0, remote.version, published))
    for block in remote.read(done, remote.size):
        if not done and is_html(block[:512]):
            raise UnreadableError(
                f"{label} is a web page, not a checkpoint", "It may be a login page: open it in a browser."
            )
        file.write(block)
        done += len(block)
        if fetching.progress is not None and remote.size:
            fetching.progress(done, remote.size)
    file.flush()
    os.fsync(file.fileno())
    if not done:
        raise UnreadableError(f"{label} is empty", "Nothing was uploaded there, or it is another file.")
    remote.require_unchanged()
    if remote.published is not None:
        digits = _digits(file.fileno(), remote.published)
        if not digits.startswith(remote.published.digits):
            raise UnreadableError(
                f"{label} is not the file its authors published: its {remote.published.algorithm} is "
                f"{digits}, theirs {remote.published.digits}",
                "It was deleted. Do not use it. Ask its authors.",
            )
    entry = CacheEntry(label, name, done, remote.version, published, done)
    _note(folder, entry)
    return entry


def _digits(descriptor: int, published: Digest) -> str:
    digest = hashlib.new(published.algorithm, usedforsecurity=False)
    at = 0
    while block := os.pread(descriptor, 1 << 20, at):
        digest.update(block)
        at += len(block)
    return digest.hexdigest()


def _note(folder: SafeFolder, entry: CacheEntry) -> None:
    """Write the note, complete or not at all."""
    draft = f"{_NOTE}.draft"
    folder.remove(draft)
    with folder.file(draft) as file:
        file.write(json.dumps(asdict(entry)).encode())
        file.flush()
        os.fsync(file.fileno())
    folder.rename(draft, _NOTE)


def _keys(root: SafeFolder) -> list[str]:
    return [name for name in root.names() if _KEY.fullmatch(name.removesuffix(_PART))]


def _entry(root: SafeFolder, name: str) -> CacheEntry | None:
    """The entry of a folder, with the number of bytes that it has; None for any other folder."""
    with root.folder(name) as folder:
        entry = _noted(folder) if folder else None
        there = folder.size(entry.name) if folder and entry else None
    if entry is None or there is None or (not name.endswith(_PART) and there != entry.fetched):
        return None  # somebody has changed it
    return replace(entry, fetched=there)


def _noted(folder: SafeFolder) -> CacheEntry | None:
    """A folder's note, if this module could have written it."""
    content = folder.read(_NOTE, _MAX_NOTE)
    try:
        note = json.loads(content or b"")
    except (ValueError, RecursionError):
        return None
    kinds = {field.name: int if field.name in ("size", "fetched") else str for field in fields(CacheEntry)}
    if not isinstance(note, dict) or note.keys() != kinds.keys():
        return None
    if any(type(note[name]) is not kind for name, kind in kinds.items()):
        return None
    entry = CacheEntry(**note)
    plain = _NAME.fullmatch(entry.name) and entry.name.strip(".") and len(entry.name.encode()) <= MAX_NAME_BYTES
    return entry if plain and 0 <= entry.fetched <= entry.size else None


def _key(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:24]


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise
        raise EnvironmentMissingError(f"the cache in {folder} cannot be used: {error.strerror}", _ANOTHER) from None
