"""Two checkpoints in MoCo's layout: a ResNet-18 that was really trained, for minutes, and one that was not.

There is no COCO and no released checkpoint here, so the images are generated, others than verify-ap's, and the
pretraining is supervised: a small detector is trained, and all of it but the backbone is thrown away. The names of the
tensors are those of `moco/builder.py` of facebookresearch/moco.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from mmdet.models.backbones import ResNet

from benchmarks.recipe import ROW
from ckptconv import convert
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.config import python_source
from ckptconv.mmdetection.verify import config_edits, lift
from ckptconv.mmdetection.verify.config_edits import SyntheticTraining
from ckptconv.mmdetection.verify.data import synthetic
from ckptconv.mmdetection.verify.request import Request
from ckptconv.mmdetection.verify.run import launch
from ckptconv.mmdetection.verify.verify_ap import planned

_TRAINING = SyntheticTraining(train_images=1000, val_images=1, epochs=4, val_interval=4)
_SEED = 1  # of images and training; verify-ap's is 0


def untrained(path: Path) -> None:
    """Write a checkpoint of a ResNet-18 with random weights, as `lift.from_random` has them."""
    torch.manual_seed(2)
    net = ResNet(18, zero_init_residual=False)
    with runtime.quiet():
        net.init_weights()
    _save(path, net.state_dict())


def trained(path: Path, folder: Path) -> None:
    """Train a detector from random weights, in a folder of its own, and write its backbone."""
    work = prepare(folder, _TRAINING, random=True)
    subprocess.run([sys.executable, "-m", launch.WORKER, str(work)], check=True, stdout=subprocess.DEVNULL)
    detector = torch.load(work / f"epoch_{_TRAINING.epochs}.pth", weights_only=False)["state_dict"]  # our own file
    head = "backbone."
    _save(path, {name.removeprefix(head): value for name, value in detector.items() if name.startswith(head)})


def prepare(folder: Path, training: SyntheticTraining, random: bool, hooks: dict[str, Any] | None = None) -> Path:
    """The work dir of one training of the smoke tier's detector, ready for the worker; nothing is trained yet.

    ``random``: from random weights, else from a converted checkpoint, which is made, too.
    """
    folder.mkdir(exist_ok=True)
    untrained(folder / "raw.pth")
    convert(folder / "raw.pth", folder / "r18.pth", "moco", force=True)
    (run,) = planned(Request(ROW, "smoke", pretrained=str(folder / "r18.pth"), gpus=0, seed=_SEED)).runs
    config = config_edits.shrink(dict(run.config), training, folder / "data", synthetic.CLASSES)
    config = lift.from_random(config, runtime.constructor_arguments(config)) if random else config
    config["default_hooks"] |= hooks or {}
    synthetic.make(folder / "data", training.train_images, training.val_images, training.image_size, _SEED)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    (work / "config.py").write_text(python_source.assignments(config), encoding="utf-8")
    run.job.save(work)
    return work


def _save(path: Path, backbone: dict[str, torch.Tensor]) -> None:
    state: dict[str, Any] = {}
    for encoder in ("encoder_q", "encoder_k"):
        state |= {f"module.{encoder}.{name}": value for name, value in backbone.items()}
        state |= {f"module.{encoder}.fc.{layer}.weight": torch.zeros(128, 512) for layer in (0, 2)}
        state |= {f"module.{encoder}.fc.{layer}.bias": torch.zeros(128) for layer in (0, 2)}
    state |= {"module.queue": torch.zeros(128, 4096), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    torch.save({"epoch": _TRAINING.epochs, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}}}, path)
