"""What a user sees where the data do not go with the config: before a training, and in a dry run."""

from __future__ import annotations

import json
import os
import sys

import pytest

import ckptconv
from tests.support import forked, tiny_coco
from tests.support.raw_files import moco

pytestmark = pytest.mark.mmdet

TEXT = (
    "{0}_dataloader.dataset sets no classes, so the 80 of CocoDataset apply (person, bicycle and 78 more), and "
    "none of them is a category of coco/annotations/instances_{0}2017.json (box)"
)
HINT = "Set {}_dataloader.dataset.metainfo = dict(classes=('box',))."


@pytest.fixture(scope="module")
def lift(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    tiny_coco.make(folder / "coco")
    ckptconv.convert(moco(folder / "raw.pth"), folder / "r18.pth", "moco")
    (folder / "c.py").write_text("_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'\n")

    def run(*args):
        said = ("c.py", "--pretrained", "r18.pth", "--tier", "lift", "--data-root", "coco", "--gpus", "0", *args)
        words = [sys.executable, "-m", "ckptconv", "verify-ap", *said]
        environment = {**os.environ, "COLUMNS": "80"}
        return folder, forked.run(words, cwd=folder, env=environment)

    return run


def test_nothing_is_trained(lift):
    folder, done = lift()
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error: {TEXT.format('train')}",
        f"hint: {HINT.format('train')}",
        f"hint: Also: {TEXT.format('val')}. {HINT.format('val')}",
    ]
    assert not (folder / "work_dirs").exists()


def test_a_dry_run_says_it(lift):
    _, done = lift("--dry-run")
    assert (done.returncode, done.stderr) == (2, "")
    lines = done.stdout.splitlines()
    at = lines.index(f"data      {TEXT.format('train')}")
    assert lines[at : at + 4] == [
        f"data      {TEXT.format('train')}",
        f"          {HINT.format('train')}",
        f"data      {TEXT.format('val')}",
        f"          {HINT.format('val')}",
    ]
    assert lines[-1] == "dry run   nothing was run"


def test_a_dry_run_says_it_as_json(lift):
    _, done = lift("--dry-run", "--json")
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout)["data"] == {
        "problems": [{"text": TEXT.format(part), "hint": HINT.format(part)} for part in ("train", "val")],
        "notes": [],
    }


def test_a_broken_file_is_unreadable_input(lift):
    folder, _ = lift("--dry-run")
    path = folder / "coco" / "annotations" / "instances_val2017.json"
    whole = path.read_text()
    path.write_text(whole[:-9])
    try:
        _, done = lift("--dry-run")
    finally:
        path.write_text(whole)
    assert done.returncode == 3
    assert done.stderr.startswith("error: coco/annotations/instances_val2017.json is not JSON: Expecting ")
