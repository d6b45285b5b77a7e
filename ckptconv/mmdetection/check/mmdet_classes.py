"""What MMDetection's Swin and PVT do to a checkpoint by code of their own, instead of what mmengine does.

Source: ``init_weights`` of `mmdet/models/backbones/swin.py` and `pvt.py`, 3.3.0.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

import torch

_CONVERTERS = {"SwinTransformer": "swin_converter", "PyramidVisionTransformer": "pvt_convert"}
"""The functions that rename the authors' tensors if ``convert_weights`` is set."""
_PREFIXES = {"SwinTransformer": "backbone."}
"""The prefix that a class removes, even if ``init_cfg`` has another."""


def own_loader(module: torch.nn.Module) -> str:
    """The class of MMDetection whose code loads the module's checkpoint; '' where mmengine or another class does."""
    loader = _loader(module)
    return loader.__name__ if loader else ""


def _loader(module: torch.nn.Module) -> type | None:
    loader = next((base for base in type(module).__mro__ if "init_weights" in vars(base)), type(module))
    return loader if loader.__name__ in _CONVERTERS and loader.__module__.startswith("mmdet.models.") else None


def own_prefix(module: torch.nn.Module) -> str:
    """The prefix that the module's class takes off; '' for none."""
    return _PREFIXES.get(own_loader(module), "")


def renamed(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The authors' tensors as the class renames them; {} for names that are not the authors'."""
    loader = _loader(module)
    assert loader is not None
    try:
        convert = getattr(sys.modules[loader.__module__], _CONVERTERS[loader.__name__])
        return dict(convert(state))
    except (KeyError, ValueError, RuntimeError, AttributeError):
        return {}


def resized(module: torch.nn.Module, name: str, value: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A Swin's relative position bias table for another window size, as the class resizes it; other tensors as is."""
    if own_loader(module) != "SwinTransformer" or not name.endswith(".relative_position_bias_table"):
        return value
    sides = [math.isqrt(rows) for rows in (len(value), shape[0])]
    fits = value.dim() == len(shape) == 2 and value.shape[1] == shape[1]
    if not fits or len(value) == shape[0] or [side**2 for side in sides] != [len(value), shape[0]]:
        return value
    grid = value.t().reshape(1, -1, sides[0], sides[0])
    grown = torch.nn.functional.interpolate(grid, size=(sides[1], sides[1]), mode="bicubic")
    return grown.reshape(shape[1], shape[0]).t().contiguous()
