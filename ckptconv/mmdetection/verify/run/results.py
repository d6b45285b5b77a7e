"""The measured AP of a run, written before it is used: ``ap.json`` in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ckptconv.errors import UsageError
from ckptconv.mmdetection.runtime import error_line
from ckptconv.mmdetection.verify.measure import Measured
from ckptconv.mmdetection.verify.run.files import RESULT, write_whole

AP = "ap.json"


def measure_and_save(folder: Path, measure: Callable[[], Measured], note: Callable[[str], None]) -> Measured:
    """Measure a finished run and save the AP; without its detections, return the AP that was saved before.

    If the file cannot be written, ``note`` says so, and the AP is returned. Raises UsageError if neither exists.
    """
    try:
        measured = measure()
    except (OSError, ValueError, LookupError) as error:
        saved = _saved(folder)
        if saved is None:
            raise UsageError(
                f"{folder}: the run has ended, but its detections cannot be read: {error_line(error)}",
                f"Remove {folder / RESULT}: the same command then evaluates the last checkpoint again.",
            ) from error
        note(f"{folder.name}: its detections cannot be read; the AP is the one in {AP}, measured earlier")
        return saved
    try:
        write_whole(folder / AP, asdict(measured))
    except OSError as error:
        note(f"{folder / AP} could not be written: {error_line(error)}")
    return measured


def _saved(folder: Path) -> Measured | None:
    try:
        return Measured(**json.loads((folder / AP).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
