"""Modules of a detector that start from a checkpoint, as their ``init_cfg`` says. Knows torch and mmengine's dicts."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from ckptconv import backbones
from ckptconv.backbones import Backbone
from ckptconv.backbones.resnet import STEP_COUNTER
from ckptconv.mmdetection.check.mmdet_classes import own_prefix
from ckptconv.mmdetection.type_names import loads_checkpoint
from ckptconv.proof.tensors import specs
from ckptconv.spec import StateSpec

LoadedBy = Literal["init_cfg", "load_from", "code"]
"""What loads a checkpoint: mmengine's initialisation, its Runner over the whole detector, or the code of a class."""


@dataclass(frozen=True)
class LoadedModule:
    """A module that starts from a checkpoint.

    ``path``: where it is in the detector, '' for the detector itself. ``checkpoint``: the file, as the config says it.
    ``prefix``: what is taken off the file's names.
    """

    path: str
    torch_module: torch.nn.Module
    checkpoint: str
    prefix: str
    loaded_by: LoadedBy = "init_cfg"

    @functools.cached_property
    def specs(self) -> StateSpec:
        """Shape and type of each of its parameters and buffers."""
        return specs(self.torch_module)

    @functools.cached_property
    def backbone(self) -> Backbone | None:
        """The network that it is, read from its names and shapes."""
        return backbones.read(self.specs)

    def full_name(self, name: str) -> str:
        """The name in the detector of one of its entries."""
        return f"{self.path}.{name}" if self.path else name


def is_optional(name: str) -> bool:
    """Whether no network needs this entry: batch norm's step counters."""
    return name.endswith(STEP_COUNTER)


def modules_with_init_cfg(model: torch.nn.Module, path: str = "") -> list[LoadedModule]:
    """Every module whose ``init_cfg`` names a checkpoint, in the order in which mmengine loads them: outer ones last.

    Source: `BaseModule.init_weights` of mmengine/model/base_module.py, 0.10.7.
    """
    modules: list[LoadedModule] = []
    for name, child in model.named_children():
        modules += modules_with_init_cfg(child, f"{path}.{name}" if path else name)
    init_cfgs = getattr(model, "init_cfg", None)
    for init_cfg in init_cfgs if isinstance(init_cfgs, list | tuple) else [init_cfgs]:
        if isinstance(init_cfg, Mapping) and loads_checkpoint(init_cfg):
            prefix = init_cfg.get("prefix")
            dotted = "" if prefix is None else prefix if str(prefix).endswith(".") else f"{prefix}."  # as mmengine
            modules.append(LoadedModule(path, model, str(init_cfg["checkpoint"]), dotted or own_prefix(model)))
    return modules
