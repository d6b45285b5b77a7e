"""Configs for networks without their files, where only text matters, and what mmengine makes of a config.

Expected arguments and channels are written down here by hand, not computed by the package.
"""

from __future__ import annotations

import functools
import tempfile
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import mmdet
import torch
from mmengine.config import Config
from mmengine.config import config as reading

import ckptconv
from ckptconv.backbones.resnet import ResNet
from ckptconv.methods.interface import IMAGENET, Pixels
from ckptconv.mmdetection.config import backbone_args
from ckptconv.mmdetection.config import emit as emit_config
from ckptconv.mmdetection.config.checkpoint import Pretrained
from ckptconv.mmdetection.config.options import choose

OWN = Path(mmdet.__file__).parent / ".mim" / "configs"
"""MMDetection's own configs, as the wheel has them."""
MARK = "0123456789abcdef" * 4

BASIC, BOTTLENECK = ((2, 2, 2, 2), False), ((3, 4, 6, 3), True)
NETWORKS: dict[str, ResNet] = {
    "r18": ResNet(*BASIC, 64, 64, 64, 1, 7, 3),
    "r50": ResNet(*BOTTLENECK, 64, 64, 64, 1, 7, 3),
    "r101": ResNet((3, 4, 23, 3), True, 64, 64, 64, 1, 7, 3),
    "r50w2": ResNet(*BOTTLENECK, 128, 128, 128, 1, 7, 3),
    "x50": ResNet(*BOTTLENECK, 64, 64, 128, 32, 7, 3),
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "r18": {"type": "ResNet", "depth": 18},
    "r50": {"type": "ResNet", "depth": 50},
    "r101": {"type": "ResNet", "depth": 101},
    "r50w2": {"type": "ResNet", "depth": 50, "stem_channels": 128, "base_channels": 128},
    "x50": {"type": "ResNeXt", "depth": 50, "groups": 32, "base_width": 4},
}
CHANNELS: dict[str, list[int]] = {
    "r18": [64, 128, 256, 512],
    "r50": [256, 512, 1024, 2048],
    "r101": [256, 512, 1024, 2048],
    "r50w2": [512, 1024, 2048, 4096],
    "x50": [256, 512, 1024, 2048],
}


def emit(
    network: str = "r50", path: str = "/w/r50.pth", method: str = "moco", pixels: Pixels | None = IMAGENET, **said: Any
) -> emit_config.Emitted:
    """What `emit-config` makes of a file that says so of itself; ``said`` is what the command line says."""
    folder = said.pop("folder", None)
    built = backbone_args.network(NETWORKS[network])
    assert built is not None
    file = Pretrained(
        path,
        "safetensors" if path.endswith(".safetensors") else "torch zip",
        method,
        NETWORKS[network],
        built,
        pixels,
        MARK,
    )
    with mock.patch.object(emit_config, "pretrained", return_value=file):
        return emit_config.emit(path, choose(**said), folder)


def read(path: Path) -> dict[str, Any]:
    """A config's values as mmengine has them. MMDetection's own are read once."""
    return _read_once(path) if path.is_relative_to(OWN) else _read(path)


def _read(path: Path) -> dict[str, Any]:
    with warnings.catch_warnings(), mock.patch.object(reading, "_get_external_cfg_path", _external):
        warnings.simplefilter("ignore")
        values: dict[str, Any] = Config.fromfile(str(path), import_custom_modules=False).to_dict()
        return values


_external = functools.cache(reading._get_external_cfg_path)  # reads a hundred YAML files, each time
_read_once = functools.cache(_read)


def resolve(text: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.py"
        path.write_text(text)
        return read(path)


def plain(node: Any, *without: str) -> Any:
    """Values without `_scope_` and other keys; tuples are lists, as mmengine treats them alike."""
    if isinstance(node, dict):
        return {key: plain(value, *without) for key, value in node.items() if key not in ("_scope_", *without)}
    return [plain(value, *without) for value in node] if isinstance(node, list | tuple) else node


def values(text: str) -> dict[str, Any]:
    """What the text of a flat config says, without mmengine."""
    names: dict[str, Any] = {}
    exec(text, {}, names)
    return names


def at(node: Any, path: str) -> list[Any]:
    """The values at a dotted path: one, or with ``[]`` one for each item of the list. KeyError where there is none."""
    start, mark, rest = path.partition("[]")
    for step in start.strip(".").split("."):
        node = node[step]
    return [value for item in node for value in at(item, rest)] if mark else [node]


def source(path: Path, network: str = "r18", seed: int = 0) -> Path:
    """A torch file with torchvision's names and small numbers."""
    torch.manual_seed(seed)
    state = {
        name: torch.tensor(0) if name.endswith("tracked") else torch.rand(shape) * 0.05 + 0.01
        for name, shape in NETWORKS[network].entries().items()
    }
    torch.save(state, path)
    return path


def convert(folder: Path, name: str = "r18.pth", **options: Any) -> Path:
    """A converted ResNet-18 of MoCo, which says so."""
    raw = source(folder / "raw.pth")
    state = torch.load(raw, weights_only=True)
    torch.save({"state_dict": {f"module.encoder_q.{k}": v for k, v in state.items()}}, raw)
    ckptconv.convert(raw, folder / name, "moco", **options)
    raw.unlink()
    return folder / name
