"""A second reader next to the writer: it verifies the source's checksums and takes the fingerprint of what is kept.

It reads the source by itself, on another core, so that neither waits for the other and nothing piles up between them.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence

from ckptconv.conversion.statistics import RunningStatistics, TensorStatistics
from ckptconv.formats.interface import Piece


def fingerprint(
    pieces: Iterable[Piece],
    stopped: Callable[[], bool] = lambda: False,
    statistics: dict[str, TensorStatistics] | None = None,
) -> str:
    """SHA-256 over one line a tensor, in order of name: name, type, shape, SHA-256 of its bytes; 64 hex digits.

    Checksums are verified on the way. When ``stopped`` says so, the work is given up and the result means nothing.
    ``statistics``, if given, gets those of each tensor.
    """
    whole = hashlib.sha256()
    for piece in sorted(pieces, key=lambda p: p.name):
        digest = hashlib.sha256()
        running = None if statistics is None else RunningStatistics(piece.spec.dtype)
        for chunk in piece.read(True):
            digest.update(chunk)
            if running is not None:
                running.add(chunk)
            if stopped():
                return ""
        whole.update(f"{piece.name} {piece.spec} {digest.hexdigest()}\n".encode())
        if statistics is not None and running is not None and (found := running.statistics()) is not None:
            statistics[piece.name] = found
    return whole.hexdigest()


class BackgroundFingerprint:
    """Reads every piece once while the block it heads runs. Errors of the source are raised by `fingerprint`.

    ``statistics``: whether to take those of each tensor, too; they are in ``statistics`` afterwards, by name.
    """

    def __init__(self, pieces: Sequence[Piece], statistics: bool = False) -> None:
        self._pieces = pieces
        self.statistics: dict[str, TensorStatistics] = {}
        self._wanted = self.statistics if statistics else None
        self._fingerprint = ""
        self._error: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._fingerprint = fingerprint(self._pieces, lambda: self._stopped, self._wanted)
        except BaseException as error:  # of any kind: it is raised again by `fingerprint`
            self._error = error

    def fingerprint(self) -> str:
        """The fingerprint of all pieces, once the thread has read them."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._fingerprint

    def __enter__(self) -> BackgroundFingerprint:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()
