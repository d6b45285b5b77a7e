"""Where a report is written: beside nothing else, and over nothing that was not to be replaced."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ckptconv.errors import UsageError
from ckptconv.sources.atomic import check_destination, write_atomically

_SUFFIXES = (".html", ".htm")


def check_report(report: Path, force: bool, inputs: Iterable[Path], other: Path | None = None) -> Path:
    """The real path of the page to write. Raises UsageError, before any work is done, if it may not be written.

    ``inputs`` are never written over; ``other`` is a file that the same call writes.
    """
    if report.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"{report} does not have the name of an HTML page",
            f"Give a name that ends in .html, such as {report.stem or 'report'}.html.",
            "report",
        )
    real = check_destination(report, force, inputs)
    if real == other:
        raise UsageError(f"{report} is the file to write, too", "Give another name for one of them.", "report")
    return real


def write_report(path: Path, force: bool, page: str) -> None:
    """Write the page, complete or not at all."""
    with write_atomically(path, force) as draft:
        draft.file.write(page.encode("utf-8", "backslashreplace"))
        draft.file.flush()
        draft.commit()
