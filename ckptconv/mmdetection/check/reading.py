"""A file's tensors as a module reads them: as mmengine does, or as the code of its class does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch

from ckptconv.conversion.converted import Converted
from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.storage import StoredTensor
from ckptconv.mmdetection.check import mmdet_classes
from ckptconv.mmdetection.check.init_cfg import LoadedModule
from ckptconv.proof.tensors import spec, tensor
from ckptconv.spec import StateSpec, TensorSpec

_T = TypeVar("_T")

Tensors = Mapping[str, StoredTensor | torch.Tensor]
"""A file's tensors under the names that a module has for them; those that a class's code has changed are in memory."""


def read(
    module: LoadedModule, checkpoint: Checkpoint, converted: Converted, convert_weights: bool | None = None
) -> Tensors:
    """The file's tensors as the module's class reads them, with its own ``convert_weights`` unless another is given."""
    own, section = mmdet_classes.own_loader(module.torch_module), converted.section
    if own and not section:  # its code looks there, too
        section = "model" if isinstance(checkpoint.tree, Mapping) and "model" in checkpoint.tree else ""
    stored = checkpoint.tensors(section) if section in checkpoint.sections else {}
    if convert_weights is None:
        convert_weights = bool(getattr(module.torch_module, "convert_weights", False))
    if own and convert_weights:
        state = {name: tensor(checkpoint, value) for name, value in stored.items()}
        return under(mmdet_classes.renamed(module.torch_module, state), module.prefix)
    return under(stored, module.prefix)


def under(names: Mapping[str, _T], prefix: str) -> dict[str, _T]:
    """The names as a module sees them. As mmengine: a prefix is cut; without one, a leading 'module.' is.

    Source: `load_checkpoint` (``revise_keys``) and `_load_checkpoint_with_prefix` of `mmengine/runner/checkpoint.py`.
    """
    if prefix:
        return {name[len(prefix) :]: value for name, value in names.items() if name.startswith(prefix)}
    return {name.removeprefix("module."): value for name, value in names.items()}


def fits_otherwise(module: LoadedModule, checkpoint: Checkpoint, converted: Converted) -> bool:
    """Whether the file would fit with the other ``convert_weights`` of a class that has one."""
    here = module.torch_module
    if not mmdet_classes.own_loader(here) or not hasattr(here, "convert_weights"):
        return False
    tensors = read(module, checkpoint, converted, convert_weights=not here.convert_weights)
    shapes = {name: tuple(value.shape) for name, value in here.named_parameters()}
    fitting = [name for name, shape in shapes.items() if name in tensors and spec_of(tensors[name]).shape == shape]
    return 2 * len(fitting) > len(shapes)


def provided(module: LoadedModule, checkpoint: Checkpoint, converted: Converted) -> set[str]:
    """The module's entries that the file has in their shapes."""
    tensors = read(module, checkpoint, converted)
    return {
        name
        for name, wanted in module.specs.items()
        if name in tensors and spec_of(tensors[name]).shape == wanted.shape
    }


def value_of(checkpoint: Checkpoint, value: StoredTensor | torch.Tensor) -> torch.Tensor:
    """The tensor itself, read where it is still in the file."""
    return value if isinstance(value, torch.Tensor) else tensor(checkpoint, value)


def spec_of(value: StoredTensor | torch.Tensor) -> TensorSpec:
    """Shape and type of a tensor, wherever it is."""
    return value.spec if isinstance(value, StoredTensor) else spec(value)


def specs_of(tensors: Tensors) -> StateSpec:
    """Shape and type of each tensor."""
    return {name: spec_of(value) for name, value in tensors.items()}
