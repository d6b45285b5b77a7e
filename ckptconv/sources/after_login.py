"""A published file that its authors give after a login only, on a page that is named."""

from __future__ import annotations

from ckptconv.arguments import DESTINATION, SOURCE, call
from ckptconv.errors import UnreadableError
from ckptconv.methods.interface import Method, Release
from ckptconv.sources.file import RemotePath, Source


class FileAfterLogin:
    """The path of such a file, which nothing here can open."""

    def __init__(self, method: Method, release: Release) -> None:
        self._method, self._release = method, release

    @property
    def name(self) -> str:
        return self._release.file_name

    def __str__(self) -> str:
        return self._release.name

    def open(self) -> Source:
        """Raises UnreadableError, with the page and what to type when the file is here."""
        method = None if self._method.guess else self._method.name
        raise UnreadableError(
            f"{self._release.name} cannot be fetched: its authors give it after a login only",
            f"Get {self.name} at {self._release.login}, then: {call('convert', SOURCE, DESTINATION, method=method)}",
        )

    def sibling(self, name: str) -> RemotePath:
        raise AssertionError(name)
