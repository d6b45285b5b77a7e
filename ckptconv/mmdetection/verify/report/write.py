"""A report -> its files in a work dir."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ckptconv.mmdetection.runtime import error_line
from ckptconv.mmdetection.verify.report import html
from ckptconv.mmdetection.verify.report.detections import EvaluatedImages
from ckptconv.mmdetection.verify.report.markdown import markdown
from ckptconv.mmdetection.verify.report.report import VerificationReport, as_json
from ckptconv.mmdetection.verify.run.files import CONFIG, write_whole
from ckptconv.mmdetection.verify.run.supervisor import OUTPUT

Writer = Callable[[VerificationReport, Path, EvaluatedImages | None], None]


def _json(report: VerificationReport, path: Path, _: EvaluatedImages | None) -> None:
    write_whole(path, as_json(report))


def _markdown(report: VerificationReport, path: Path, _: EvaluatedImages | None) -> None:
    path.write_text(markdown([report]), encoding="utf-8", errors="backslashreplace")


def _html(report: VerificationReport, path: Path, images: EvaluatedImages | None) -> None:
    text = html.page(report, images, list(_files(report, path.parent)))
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _files(report: VerificationReport, folder: Path) -> Iterator[str]:
    """The configs and logs that are there, relative to the folder."""
    names = (CONFIG, *(f"{run.name}/{name}" for run in report.runs for name in (CONFIG, OUTPUT)))
    yield from (name for name in names if (folder / name).is_file())


WRITERS: dict[str, Writer] = {"report.json": _json, "report.md": _markdown, "report.html": _html}
"""What writes each file of a report, by its name."""


def write(
    report: VerificationReport, folder: Path, images: EvaluatedImages | None, stage: Callable[[str], None]
) -> None:
    """Write every file. ``stage`` is told of one that cannot be written, on a full disk or for any reason.

    Such a file is removed: an earlier one would hold another verdict.
    """
    for name, writer in WRITERS.items():
        path = folder / name
        try:
            writer(report, path, images)
        except Exception as error:  # drawing a page may fail in any way
            stage(
                f"{path} could not be written: {error_line(error)}; the same command writes it, without training again"
            )
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
