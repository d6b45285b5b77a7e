"""The packages that a run needs, checked before it starts: a missing one would cost the training."""

from __future__ import annotations

import importlib.util

from ckptconv.errors import EnvironmentMissingError

# MMDetection, and its dependencies that ckptconv itself calls: for drawing, AP, intervals and curves.
_PACKAGES = ("torch", "mmengine", "mmcv", "mmdet", "cv2", "pycocotools", "scipy", "matplotlib")


def require_packages() -> None:
    """Raises EnvironmentMissingError, with all their names, where some are missing. Imports none of them."""
    missing = [name for name in _PACKAGES if not _is_installed(name)]
    if missing:
        raise EnvironmentMissingError(
            f"verify-ap needs MMDetection and its dependencies; not installed here: {', '.join(missing)}",
            "See what is missing and how to fix it: ckptconv doctor",
        )


def gpus_here() -> int:
    """How many GPUs torch sees; 0 where it cannot be imported, which is an error where it is needed."""
    try:
        import torch
    except Exception:  # such as a library that was built for another numpy
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
