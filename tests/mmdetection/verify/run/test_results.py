"""The measured AP of a run is on the disk, and is found again where its detections are not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from ckptconv.errors import UsageError
from ckptconv.mmdetection.verify.measure import NAMES, Measured
from ckptconv.mmdetection.verify.run import results

pytestmark = pytest.mark.mmdet
FOUND = Measured({"box": {**dict.fromkeys(NAMES, 38.25), "APl": None}}, 8, 8, 30)


def gone() -> Measured:
    raise FileNotFoundError(2, "No such file or directory", "detections.bbox.json")


def test_what_is_measured_is_kept_and_found_again(tmp_path):
    notes: list[str] = []
    assert results.measure_and_save(tmp_path, lambda: FOUND, notes.append) == FOUND
    assert json.loads((tmp_path / "ap.json").read_text()) == asdict(FOUND)
    assert notes == []
    assert results.measure_and_save(tmp_path, gone, notes.append) == FOUND
    assert notes == [f"{tmp_path.name}: its detections cannot be read; the AP is the one in ap.json, measured earlier"]


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"ap": {}}'])
def test_where_nothing_was_kept_it_is_said_what_to_do(tmp_path, text):
    if text is not None:
        (tmp_path / "ap.json").write_text(text)
    with pytest.raises(UsageError) as error:
        results.measure_and_save(tmp_path, gone, print)
    assert error.value.message.startswith(
        f"{tmp_path}: the run has ended, but its detections cannot be read: FileNotFound"
    )
    assert (
        error.value.hint == f"Remove {tmp_path}/result.json: the same command then evaluates the last checkpoint again."
    )


def test_a_full_disk_costs_the_file_only(tmp_path, monkeypatch):
    def full(path: Path, body: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_whole", full)
    notes: list[str] = []
    assert results.measure_and_save(tmp_path, lambda: FOUND, notes.append) == FOUND
    assert notes == [f"{tmp_path}/ap.json could not be written: OSError: [Errno 28] No space left on device"]
