"""The whole way in one stack of packages, OpenMMLab's or its forks': also run by `make test-onedl`.

From a raw file to configs that load, the proof, a training of two iterations behind guard and loader; and with a file
that holds code, which nothing here runs.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import forked, raw_files, tiny_coco
from tests.support.stack import FORKS

pytestmark = pytest.mark.mmdet

ROOT = Path(__file__).parents[2]
MARK = "ran.txt"
LOADER = "custom_imports = dict(imports=['ckptconv.mmdetection.loader'], allow_failed_imports=False)\n"


class Code:
    """Writes a file when it is unpickled by a loader that does what a pickle says."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({MARK!r}, 'w').close()",)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return forked.run([sys.executable, "-m", *words], cwd=folder, env=env)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stack")
    raw_files.moco(folder / "raw.pth.tar")
    tiny_coco.make(folder / "coco", images=2)
    done = run(folder, "ckptconv", "convert", "raw.pth.tar", "r18.pth")
    assert done.returncode == 0, done.stderr
    torch.save({"state_dict": raw_files.backbone_state(18), "more": Code()}, folder / "hostile.pth")
    return folder


OWN = ("--classes", "box", "--data-root", "coco", "--batch-size", "1", "--gpus", "1", "--norm", "BN")


def test_a_config_loads_trains_and_is_proved(folder):
    emitted = run(folder, "ckptconv", "emit-config", "r18.pth", "-o", "own.py", "-d", "retinanet", *OWN)
    assert emitted.returncode == 0, emitted.stderr
    loaded = run(folder, "ckptconv", "verify-ap", "own.py", "--tier", "load", "--gpus", "0")
    assert loaded.returncode == 0, loaded.stderr
    assert re.search(r"^proof     120/120 tensors equal .*r18\.pth$", loaded.stdout, re.M)
    assert loaded.stdout.splitlines()[-1].startswith("verdict   pass")
    trained = run(folder, "tests.support.training", "own.py", 'work_dir="work"')
    assert trained.returncode == 0, trained.stderr
    assert re.search(r"guard: 120/120 tensors of backbone equal .*r18\.pth$", trained.stdout, re.M)
    assert trained.stdout.count("Epoch(train)") == 2
    assert (folder / "work/epoch_1.pth").exists()


def test_a_flat_config_is_checked(folder):
    emitted = run(folder, "ckptconv", "emit-config", "r18.pth", "-o", "flat.py", "--style", "flat", *OWN)
    assert emitted.returncode == 0, emitted.stderr
    checked = run(folder, "ckptconv", "check", "flat.py")
    assert checked.returncode == 0, checked.stderr
    assert "equal     120/120" in checked.stdout


def test_doctor_names_what_is_installed(folder):
    found = json.loads(run(folder, "ckptconv", "doctor", "--json").stdout)
    by_name = {f["name"]: f for f in found["findings"]}
    assert found["can_detect"]
    for package, fork in (("mmengine", "mmengine"), ("mmcv", "mmcv"), ("mmdet", "mmdetection")):
        name = f"onedl-{fork}" if FORKS else package
        assert by_name[package]["version"] == importlib.metadata.version(name)
        assert by_name[package]["text"].endswith(f"(from {name})") == FORKS
    assert by_name["setuptools"]["text"] == "bases such as 'mmdet::…' are found"
    assert found["loading"] == ("runs code" if FORKS else "refuses")


BASE = "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n"
HOSTILE = (
    "model = dict(backbone=dict(depth=18, init_cfg=dict(type='Pretrained', checkpoint='hostile.pth')), "
    "neck=dict(in_channels=[64, 128, 256, 512]))\n"
    "train_dataloader = dict(batch_size=1, dataset=dict(data_root='coco/', metainfo=dict(classes=('box',))))\n"
    "default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))\n"
)


@pytest.mark.parametrize("loader", ["", LOADER])
def test_code_in_a_checkpoint_is_not_run(folder, loader):
    (folder / "hostile.py").write_text(BASE + loader + HOSTILE)
    done = run(folder, "ckptconv", "check", "hostile.py")
    assert (done.returncode, (folder / MARK).exists()) == (3, False)
    assert done.stderr.splitlines()[0].startswith("error: hostile.pth is not safe: unpickling it would call ")
    if loader:  # which reads the tensors and leaves the code
        trained = run(folder, "tests.support.training", "hostile.py", 'work_dir="hostile"')
        assert (trained.returncode, (folder / MARK).exists()) == (0, False), trained.stderr


@pytest.mark.skipif(not FORKS, reason="mmengine itself refuses, with torch 2.6 or newer")
def test_without_the_loader_the_forks_run_it(folder):
    (folder / "bare.py").write_text(BASE + HOSTILE)
    run(folder, "tests.support.training", "bare.py", 'work_dir="bare"')
    assert (folder / MARK).exists(), "the control: the file does run where a loader does what it says"
    (folder / MARK).unlink()
