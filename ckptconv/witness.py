"""A second reader beside the writer: it verifies the source's checksums and takes the fingerprint of what is kept.

It reads the source by itself, on another core, so that neither waits for the other and nothing piles up between them.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

from ckptconv.formats.interface import Piece


class Witness:
    """Reads every piece once while the block it heads runs. Errors of the source are raised by `fingerprint`."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._lines: list[str] = []
        self._error: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            for piece in sorted(self._pieces, key=lambda p: p.name):
                digest = hashlib.sha256()
                for chunk in piece.read(True):
                    digest.update(chunk)
                    if self._stopped:
                        return
                self._lines.append(f"{piece.name} {piece.spec} {digest.hexdigest()}\n")
        except BaseException as error:  # whatever it is, it must not be lost in the thread
            self._error = error

    def fingerprint(self) -> str:
        """SHA-256 over one line a tensor, in order of name: name, type, shape, SHA-256 of its bytes; 64 hex digits."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return hashlib.sha256("".join(self._lines).encode()).hexdigest()

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()
