"""mmpretrain and timm are there for the tests, and leave nothing behind that users would not have."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from tests.support import pretrain

pytestmark = pytest.mark.mmdet


def test_a_network_of_mmpretrain_runs() -> None:
    network = pretrain.models().ConvNeXt("atto", out_indices=[0, 3], gap_before_final_norm=False)
    shapes = [tuple(out.shape) for out in network(torch.zeros(1, 3, 64, 64))]
    assert shapes == [(1, 40, 16, 16), (1, 320, 2, 2)]
    vit = pretrain.models().VisionTransformer("deit-t", img_size=32, out_type="featmap")
    assert [tuple(out.shape) for out in vit(torch.zeros(1, 3, 32, 32))] == [(1, 192, 2, 2)]


def test_mmengine_still_reports_the_environment() -> None:
    pretrain.models()
    from mmengine.utils.dl_utils import collect_env

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert collect_env()["PyTorch"] == torch.__version__


def test_other_processes_do_not_find_it() -> None:
    pretrain.models()
    assert str(pretrain.FOLDER) not in sys.path
    found = "import importlib.util as u; print([m for m in ('mmpretrain', 'timm', 'torchvision') if u.find_spec(m)])"
    asked = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "[]"


def test_other_processes_import_timm_and_no_mmpretrain(tmp_path: Path) -> None:
    environment = {**os.environ, **pretrain.for_processes(tmp_path / "packages")}
    program = (
        "import importlib.util as i, timm; print(timm.is_model('vit_tiny_patch16_224'), i.find_spec('mmpretrain'))"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True None\n"
