"""Raw checkpoints in MoCo's layout whose backbones compute: mmdet's own ResNet at random, under MoCo's names.

The names are those of `facebookresearch/moco` (`moco/builder.py`); `tests/cases/moco_v2_r50.txt` has them all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmdet.models.backbones import ResNet


def backbone_state(depth: int, seed: int = 0, width: int = 64) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    state = ResNet(depth, stem_channels=width, base_channels=width).state_dict()
    for name, value in state.items():
        if name.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1)
        if name.endswith(".weight") and value.dim() == 1:
            value.uniform_(0.8, 1.2)
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        if name.endswith("num_batches_tracked"):
            value.fill_(1000)
    return dict(state)


def moco(path: Path, depth: int = 18, seed: int = 0, width: int = 64) -> Path:
    """A training checkpoint of MoCo v2. ``width``: channels behind the stem; a ResNet has 64."""
    state: dict[str, Any] = {}
    for encoder, shift in (("encoder_q", 0), ("encoder_k", 100)):
        state |= {f"module.{encoder}.{k}": v for k, v in backbone_state(depth, seed + shift, width).items()}
        state |= {f"module.{encoder}.fc.{i}.{p}": torch.zeros(4) for i in (0, 2) for p in ("weight", "bias")}
    state |= {"module.queue": torch.zeros(4, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    torch.save({"epoch": 200, "arch": f"resnet{depth}", "state_dict": state}, path)
    return path
