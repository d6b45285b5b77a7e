"""Whole files, kept for the next time. A file stands here complete and checked, or not at all.

Each has a folder of its own, named by a digest of its address: the file, and a note of what is known of it. While it
is fetched, the folder's name ends in `.part`; the last step is one rename. A fetch that broke off goes on where it
stopped if the file is still the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from ckptconv.errors import EnvironmentMissingError, UnreadableError
from ckptconv.formats import is_page
from ckptconv.formats.source import Source, Transfer
from ckptconv.sources.interface import Far, Fetching, UnreachableError
from ckptconv.sources.spool import room

_NOTE = "ckptconv.json"
_PART = ".part"
_KEY = 24


@dataclass(frozen=True)
class Entry:
    """A file of the cache: its address without secrets, what its keeper called this state of it, and what was checked.

    ``fetched`` is less than ``size`` where the fetch broke off.
    """

    address: str
    name: str
    size: int
    version: str
    published: str = ""
    hash_checked: bool = False
    fetched: int = 0

    @property
    def whole(self) -> bool:
        return self.fetched == self.size


def usual_folder() -> Path:
    """`CKPTCONV_CACHE_DIR`, or where this platform keeps what can be fetched again."""
    named = os.environ.get("CKPTCONV_CACHE_DIR")
    if named:
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ckptconv"
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "ckptconv"


class Cached(Source):
    """A file of the cache. It leaves it if it turns out not to be what it should."""

    def __init__(self, path: Path, entry: Entry) -> None:
        super().__init__(path)
        self.transfer = Transfer(
            entry.address, self.size, entry.version, entry.published, entry.hash_checked, whole=True
        )
        self._folder = path.parent

    def forget(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class Cache:
    """The files under a folder, None for the usual one. Raises EnvironmentMissingError if it cannot be used."""

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = Path(folder) if folder is not None else usual_folder()

    def entries(self) -> list[Entry]:
        """What is there, whole files and what of others was fetched, in order of address."""
        found = (_entry(folder) for folder in (self.folder.iterdir() if self.folder.is_dir() else ()))
        return sorted((entry for entry in found if entry), key=lambda e: (e.address, e.fetched))

    def clear(self) -> tuple[int, int]:
        """Remove everything that is an entry. Returns how many files and bytes there were."""
        entries = self.entries()
        for folder in list(self.folder.iterdir()) if entries else ():
            if _entry(folder):
                shutil.rmtree(folder, ignore_errors=True)
        return len(entries), sum(entry.fetched for entry in entries)

    def find(self, url: str, far: Far | None) -> Source | None:
        """The whole file of an address, if it is here in the state that ``far`` has; in any state if that is None."""
        folder = self.folder / _key(url)
        entry = _entry(folder)
        if entry is None or not entry.whole:
            return None
        if far is not None and (far.size not in (None, entry.size) or not far.version or far.version != entry.version):
            return None
        if far is not None and far.published and (str(far.published), True) != (entry.published, entry.hash_checked):
            return None
        return Cached(folder / entry.name, entry)

    def fetch(self, url: str, shown: str, name: str, far: Far, fetching: Fetching) -> Source:
        """Fetch all of a file, or what is missing of it, and check it."""
        final = self.folder / _key(url)
        part = final.with_name(final.name + _PART)
        while True:
            with _usable(self.folder), room(f"the cache in {self.folder} (--cache-dir)"):
                part.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError), open(part / name, "a+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    if not _is_at(file, part / name):
                        continue  # whoever held it is done, and has moved it
                    found = self.find(url, far)
                    if found is not None:
                        shutil.rmtree(part, ignore_errors=True)
                        return found
                    try:
                        entry = _filled(file, part, shown, name, far, fetching)
                    except BaseException as error:
                        refused = isinstance(error, UnreadableError) and not isinstance(error, UnreachableError)
                        if refused or not (far.ranged and far.version):  # else it goes on next time
                            shutil.rmtree(part, ignore_errors=True)
                        raise
                    shutil.rmtree(final, ignore_errors=True)
                    os.rename(part, final)
                    source = Cached(final / name, entry)
                    assert source.transfer is not None
                    source.transfer.fetched, source.transfer.requests = far.received, far.requests
                    return source


def _filled(file: BinaryIO, part: Path, shown: str, name: str, far: Far, fetching: Fetching) -> Entry:
    """Bring the file to its full length, check it, and put it and its note on the disk."""
    published = str(far.published) if far.published else ""
    before = _entry(part)
    done = os.fstat(file.fileno()).st_size
    same = before is not None and (before.version, before.size) == (far.version, far.size)
    if not (same and far.ranged and far.version and done <= (far.size or 0)):
        done = 0
        file.truncate(0)
    _note(part, Entry(shown, name, far.size or 0, far.version, published))
    for run in far.read(done, far.size):
        if not done and is_page(run[:512]):
            raise UnreadableError(
                f"{shown} is a web page, not a checkpoint", "It may be a login page: look at it in a browser."
            )
        file.write(run)
        done += len(run)
        if fetching.progress is not None and far.size:
            fetching.progress(done, far.size)
    file.flush()
    os.fsync(file.fileno())
    if not done:
        raise UnreadableError(f"{shown} is empty", "Nothing was uploaded there, or it is not the file.")
    far.require_unchanged()
    if far.published is not None:
        file.seek(0)
        digest = hashlib.new(far.published.algorithm, usedforsecurity=False)
        while run := file.read(1 << 20):
            digest.update(run)
        if not digest.hexdigest().startswith(far.published.digits):
            raise UnreadableError(
                f"{shown} is not the file its authors published: its {far.published.algorithm} is "
                f"{digest.hexdigest()}, theirs {far.published.digits}",
                "Nothing of it was kept. Do not use it; ask them.",
            )
    entry = Entry(shown, name, done, far.version, published, far.published is not None, done)
    _note(part, entry)
    return entry


def _note(folder: Path, entry: Entry) -> None:
    """Write the note, complete or not at all."""
    draft = folder / f"{_NOTE}.draft"
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(asdict(entry), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, folder / _NOTE)


def _entry(folder: Path) -> Entry | None:
    """What a folder's note says, with how much is there; None for a folder that is no entry."""
    key = folder.name.removesuffix(_PART)
    if len(key) != _KEY or set(key) - set("0123456789abcdef"):
        return None
    try:
        entry = Entry(**json.loads((folder / _NOTE).read_text(encoding="utf-8")))
        there = (folder / entry.name).stat().st_size
    except (OSError, ValueError, TypeError):
        return None
    if not folder.name.endswith(_PART) and there != entry.fetched:
        return None  # somebody has changed it
    return Entry(**{**asdict(entry), "fetched": there})


def _key(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:_KEY]


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise EnvironmentMissingError(
            f"the cache in {folder} cannot be used: {error.strerror}", "Name another folder: --cache-dir."
        ) from None
