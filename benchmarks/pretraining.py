"""Two checkpoints in MoCo's layout: a ResNet-18 that was really trained, for minutes, and one that was not.

There is no COCO and no released checkpoint here, so the images are generated, and the pretraining is a small one:
every stage of the backbone learns to say which shape stands at each of its positions. The names of the tensors are
those of `moco/builder.py` of facebookresearch/moco.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.models.backbones import ResNet
from pycocotools.coco import COCO
from torch import nn

from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.verify import shapes

_MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
_STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
_STRIDES = (4, 8, 16, 32)
_BATCH = 32


def trained(path: Path, folder: Path, images: int = 2000, epochs: int = 6, seed: int = 1) -> list[float]:
    """Pretrain and write the checkpoint; the mean loss of each epoch. The images get another seed than verify-ap's."""
    data, masks = _data(folder, images, seed)
    torch.manual_seed(seed)
    net, heads = ResNet(18), nn.ModuleList(nn.Conv2d(w, len(shapes.CLASSES) + 1, 1) for w in (64, 128, 256, 512))
    with runtime.quiet():
        net.init_weights()
    parameters = [*net.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-3, weight_decay=1e-4)
    steps = epochs * (images // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    net.train()
    went = []
    for _ in range(epochs):
        losses = []
        for batch, mask in _batches(data, masks):
            optimizer.zero_grad()
            loss = torch.stack(list(_losses(heads, net(batch), mask))).mean()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        went.append(sum(losses) / len(losses))
        print(f"pretraining: loss {went[-1]:.3f}", flush=True)
    _save(path, net.state_dict(), epochs)
    return went


def untrained(path: Path, seed: int = 2) -> None:
    """Write a checkpoint of a ResNet-18 as MMDetection initialises it."""
    torch.manual_seed(seed)
    net = ResNet(18)
    with runtime.quiet():
        net.init_weights()
    _save(path, net.state_dict(), 0)


def _save(path: Path, backbone: dict[str, torch.Tensor], epoch: int) -> None:
    state: dict[str, Any] = {}
    for encoder in ("encoder_q", "encoder_k"):
        state |= {f"module.{encoder}.{name}": value for name, value in backbone.items()}
        state |= {f"module.{encoder}.fc.{layer}.weight": torch.zeros(128, 512) for layer in (0, 2)}
        state |= {f"module.{encoder}.fc.{layer}.bias": torch.zeros(128) for layer in (0, 2)}
    state |= {"module.queue": torch.zeros(128, 4096), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    torch.save({"epoch": epoch, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}}}, path)


def _data(folder: Path, images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, 3, 128, 128] uint8, RGB, and the class at each pixel [N, 128, 128], 0 for none."""
    annotations = shapes.make(folder, images, 0, seed=seed) / "annotations" / "instances_train2017.json"
    described = json.loads(annotations.read_text())["images"]
    with runtime.quiet():
        coco = COCO(str(annotations))
    read = [cv2.imread(str(folder / "train2017" / image["file_name"]))[..., ::-1] for image in described]
    masks = np.zeros((len(read), *read[0].shape[:2]), np.int64)
    for i, image in enumerate(described):
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            masks[i][coco.annToMask(annotation) > 0] = annotation["category_id"]
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(masks)


def _batches(data: torch.Tensor, masks: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    order = torch.randperm(len(data))
    for start in range(0, len(order) - _BATCH + 1, _BATCH):
        chosen = order[start : start + _BATCH]
        batch, mask = (data[chosen].float() - _MEAN) / _STD, masks[chosen]
        turned = [axis for axis in (2, 3) if torch.rand(()) < 0.5]
        yield batch.flip(turned), mask.flip([axis - 1 for axis in turned])


def _losses(heads: nn.ModuleList, stages: tuple[torch.Tensor, ...], mask: torch.Tensor) -> Iterator[torch.Tensor]:
    for head, stage, stride in zip(heads, stages, _STRIDES, strict=True):
        middle = mask[:, stride // 2 :: stride, stride // 2 :: stride]
        yield nn.functional.cross_entropy(head(stage), middle)
