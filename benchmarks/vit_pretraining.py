"""Two checkpoints in DINO's layout: a small ViT that was really trained, for minutes, and one that was not.

There is no released checkpoint here, so the images are generated, others than verify-ap's, and the pretraining is
supervised: each token predicts what is drawn in its patch, in cells of 4x4 pixels. The head is thrown away. The names
of the tensors are those of `vision_transformer.py` and `main_dino.py` of facebookresearch/dino.
"""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ckptconv.mmdetection.verify.data import synthetic
from tests.support import pretrain

SIDE, PATCH, CELL = 128, 16, 4
"""Of an image, of a patch and of a cell, in pixels."""
WIDTH, DEPTH, HEADS = 128, 6, 2
IMAGES, STEPS, BATCH, RATE = 1500, 700, 32, 2e-3
_SEED = 1  # of images and training; verify-ap's is 0
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_CELLS = PATCH // CELL


def network() -> Any:
    """A ViT of timm for these images, with random weights: DINO's ViT has the same parts and names."""
    return pretrain.module("timm").create_model(
        "vit_tiny_patch16_224", img_size=SIDE, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0
    )


def untrained(path: Path) -> None:
    """Write a checkpoint of the ViT with random weights."""
    torch.manual_seed(2)
    _save(path, network())


def trained(path: Path, folder: Path, images: int = IMAGES, steps: int = STEPS) -> float:
    """Draw images into a folder, train the ViT on them, write it. Returns the share of cells that it gets right."""
    synthetic.make(folder, images, 1, SIDE, _SEED)
    pixels, cells = _data(folder)
    torch.manual_seed(_SEED)
    model, head = network(), nn.Linear(WIDTH, _CELLS**2 * (len(synthetic.CLASSES) + 1))
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    right = 0.0
    for step in range(steps):
        chosen = torch.randint(len(pixels), (BATCH,))
        x, wanted = _flipped(pixels[chosen], cells[chosen])
        tokens = head(model.forward_features(x)[:, 1:])
        scores = tokens.unflatten(-1, (_CELLS**2, -1))
        loss = cross_entropy(scores.flatten(0, 2), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        right += (float((scores.argmax(-1) == wanted).float().mean()) - right) / min(step + 1, 50)
        if step % 50 == 49:
            print(f"pretraining: step {step + 1} of {steps}, loss {loss.item():.3f}, cells {right:.3f}", flush=True)
    _save(path, model)
    return right


def _rate(step: int, steps: int) -> float:
    warm = max(steps // 10, 1)
    return (step + 1) / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2


def _data(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, 3, H, W] as a detector sees them, and the class of each cell of each patch [N, patches, cells]."""
    import cv2
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(folder / "annotations" / "instances_train2017.json")
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (_MEAN, _STD))
    pixels, cells = [], []
    for one in coco.loadImgs(sorted(coco.getImgIds())):
        image = np.asarray(cv2.imread(str(folder / "train2017" / one["file_name"])))[..., ::-1].copy()
        pixels.append((torch.from_numpy(image).permute(2, 0, 1).float() - mean) / std)
        drawn = np.zeros((SIDE, SIDE), np.int64)
        for annotation in coco.loadAnns(coco.getAnnIds(one["id"])):
            drawn[coco.annToMask(annotation) > 0] = annotation["category_id"]
        cells.append(torch.from_numpy(drawn[CELL // 2 :: CELL, CELL // 2 :: CELL]))
    return torch.stack(pixels), torch.stack(cells)


def _flipped(pixels: torch.Tensor, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Some of the batches mirrored; the cells by patch, [B, patches, cells of a patch]."""
    for axis in (1, 2):
        if torch.rand(()) < 0.5:
            pixels, cells = pixels.flip(axis + 1), cells.flip(axis)
    count = SIDE // PATCH
    by_patch = cells.view(-1, count, _CELLS, count, _CELLS).permute(0, 1, 3, 2, 4)
    return pixels, by_patch.reshape(len(cells), count**2, _CELLS**2)


def _save(path: Path, model: nn.Module) -> None:
    """Teacher and student as `main_dino.py` saves them, each with a projection head, which is not trained here."""
    head = {"mlp.0.weight": torch.zeros(256, WIDTH), "mlp.0.bias": torch.zeros(256)}
    head |= {"last_layer.weight_g": torch.ones(512, 1), "last_layer.weight_v": torch.zeros(512, 256)}
    teacher = {f"backbone.{name}": value for name, value in model.state_dict().items()}
    teacher |= {f"head.{name}": value for name, value in head.items()}
    student = {f"module.{name}": value for name, value in teacher.items()}
    torch.save({"student": student, "teacher": teacher, "optimizer": {"state": {}}, "epoch": 1, "args": None}, path)
