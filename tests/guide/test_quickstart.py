"""The quickstart's last command: the detector of its ViT takes two steps on the data that the page names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support import forked, transcripts

TEXT = transcripts.pages()["quickstart"].read_text(encoding="utf-8")
SECTION = TEXT[TEXT.index("## A ViT of today") : TEXT.index("## Look into a file")]
TRAIN = """\
from tests.support import pretrain, training
pretrain.module("timm")
training.train("vits16_rcnn.py", work_dir="work")
"""


def test_the_section_has_five_commands_and_none_is_about_a_clone() -> None:
    commands = [line.removeprefix("$ ") for line in SECTION.splitlines() if line.startswith(("$ ", "pip "))]
    assert [" ".join(command.split()[:2]) for command in commands] == [
        "pip install",
        "ckptconv convert",
        "ckptconv emit-config",
        "ckptconv check",
    ]
    assert SECTION.rpartition("$ ckptconv check")[2].count("tools/train.py vits16_rcnn.py\n") == 1  # on one GPU
    assert "git" not in SECTION


@pytest.mark.mmdet
def test_the_detector_takes_two_steps(tmp_path: Path) -> None:
    from tests.support import tiny_coco

    transcripts.make_dinov3(tmp_path / transcripts.DINOV3)
    tiny_coco.make(tmp_path / "my_data")
    for mmdetection in (False, True):
        for step in transcripts.steps(SECTION, mmdetection):
            if not step.command.startswith("ckptconv check"):
                assert "[exit" not in transcripts.run(step, tmp_path)
    env = {**os.environ, "PYTHONPATH": str(transcripts.ROOT), "OMP_NUM_THREADS": "1"}
    done = forked.run([sys.executable, "-c", TRAIN], cwd=tmp_path, env=env, server=forked.MMDETECTION)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "guard: " in done.stdout
    assert "Epoch(train) [1][2/2]" in done.stdout
