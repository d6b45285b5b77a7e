"""What the numbers were measured on, without host, user or path. Unknown values are None: no AP depends on them."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from typing import Any, TypeVar

PACKAGES = ("torch", "mmengine", "mmcv", "mmdet", "numpy", "pycocotools", "ckptconv")
T = TypeVar("T")


def environment() -> dict[str, object]:
    """Every fact by its name; None for one that could not be collected. It raises nothing."""
    distributions = value_or_none(metadata.packages_distributions) or {}
    return {
        "python": value_or_none(platform.python_version),
        **{name: value_or_none(partial(version, name, distributions)) for name in PACKAGES},
        **{name: value_or_none(collect) for name, collect in _MACHINE.items()},
    }


def value_or_none(collect: Callable[[], T]) -> T | None:
    """What ``collect`` returns; None if it raises an Exception."""
    try:
        return collect()
    except Exception:  # a platform, a driver or a package's metadata may raise anything
        return None


def version(module: str, distributions: Mapping[str, list[str]]) -> str | None:
    """A module's version: its own, else that of its distribution; None if both are unknown.

    Forks install the same modules under other names (onedl-mmcv, mmcv-lite), which are added: '2.3.6 (onedl-mmcv)'.

    Args:
        module: its name.
        distributions: names of those that have a module, as `importlib.metadata.packages_distributions` returns them.
    """
    names = list(dict.fromkeys(distributions.get(module) or ()))
    version_text = getattr(sys.modules.get(module), "__version__", None)
    if not isinstance(version_text, str):
        version_text = next(
            filter(None, (value_or_none(partial(metadata.version, name)) for name in (*names, module))), None
        )
    other = ", ".join(name for name in names if name.lower() != module)
    return f"{version_text} ({other})" if version_text and other else version_text


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _cuda() -> str | None:
    import torch

    return torch.version.cuda if torch.cuda.is_available() else None


def _processes() -> Any:
    from mmengine.dist import get_world_size

    return get_world_size()


_MACHINE: Mapping[str, Callable[[], object]] = {
    "device": _device,
    "cuda": _cuda,
    "processes": _processes,
    "cores": os.cpu_count,
    "system": lambda: f"{platform.system()} {platform.machine()}",
}
