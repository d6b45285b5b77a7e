"""What the numbers were made on, without host, user or path. Whatever cannot be told is None: no AP depends on it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from typing import Any, TypeVar

PACKAGES = ("torch", "mmengine", "mmcv", "mmdet", "numpy", "pycocotools", "ckptconv")
Found = TypeVar("Found")


def environment() -> dict[str, object]:
    """Every fact by its name; None for one that could not be collected. It raises nothing."""
    distributions = value_or_none(metadata.packages_distributions) or {}
    return {
        "python": value_or_none(platform.python_version),
        **{name: value_or_none(partial(version, name, distributions)) for name in PACKAGES},
        **{name: value_or_none(collect) for name, collect in _MACHINE.items()},
    }


def value_or_none(collect: Callable[[], Found]) -> Found | None:
    """What it returns; None if it raises anything but a wish to stop."""
    try:
        return collect()
    except Exception:  # whatever a platform, a driver or a package's metadata does
        return None


def version(module: str, distributions: Mapping[str, list[str]]) -> str | None:
    """A module's version: what it says itself, else what the distribution says that brought it; None if neither does.

    Forks install the same modules under other names (onedl-mmcv, mmcv-lite): these are told, too: '2.3.6 (onedl-mmcv)'.

    Args:
        module: its name.
        distributions: names of those that have a module, as `importlib.metadata.packages_distributions` returns them.
    """
    names = list(dict.fromkeys(distributions.get(module) or ()))
    said = getattr(sys.modules.get(module), "__version__", None)
    if not isinstance(said, str):
        said = next(filter(None, (value_or_none(partial(metadata.version, name)) for name in (*names, module))), None)
    other = ", ".join(name for name in names if name.lower() != module)
    return f"{said} ({other})" if said and other else said


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
