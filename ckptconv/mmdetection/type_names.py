"""The class that the `type` of a config's dict names, in all of its spellings. Pure; imports no torch.

mmengine takes a registered name, with a scope before it or without ('ResNet', 'mmdet.ResNet'), the path of a class
('mmdet.models.backbones.ResNet'), and the class itself; a config in its new style holds a `LazyObject` or a `LazyAttr`,
whose text is the last name of the path (`mmengine/registry/registry.py` and `mmengine/config/lazy.py`, 0.10.7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRETRAINED = ("Pretrained", "PretrainedInit")
"""The initializer that loads a checkpoint: its registered name and its class (`mmengine/model/weight_init.py`)."""
SYNC_BN = ("SyncBN", "SyncBatchNorm", "MMSyncBN")
"""torch's class and mmcv's, and their registered names (`mmcv/cnn/bricks/norm.py`, `mmcv/ops/sync_bn.py`, 2.1.0)."""


def type_name(node: Any) -> str:
    """The last name of a dict's ``type``; '' for anything without one.

    >>> type_name({"type": "mmdet.models.backbones.ResNet"})
    'ResNet'
    """
    configured = node.get("type") if isinstance(node, Mapping) else None
    if configured is None:
        return ""
    name = getattr(configured, "__name__", None)  # of a class; a LazyObject has every attribute, none of them a string
    return (name if isinstance(name, str) else str(configured)).rpartition(".")[2]


def has_type(node: Any, *names: str) -> bool:
    """Whether a dict's ``type`` is one of these, in any spelling.

    >>> has_type({"type": "mmdet.ResNet"}, "ResNet", "ResNeXt")
    True
    """
    return type_name(node) in names


def loads_checkpoint(init_cfg: Any) -> bool:
    """Whether an ``init_cfg`` takes values from a file. Some backbones of mmdet (PVT) need no ``type`` in it.

    >>> loads_checkpoint({"type": "Kaiming", "layer": "Conv2d"})
    False
    """
    if not isinstance(init_cfg, Mapping) or init_cfg.get("checkpoint") is None:
        return False
    return type_name(init_cfg) in ("", *PRETRAINED)
