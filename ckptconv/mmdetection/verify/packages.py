"""The packages that a run needs, looked for before it: what is missed after a training costs the training."""

from __future__ import annotations

import importlib.util

from ckptconv.errors import EnvironmentMissingError

# MMDetection, and what it brings that ckptconv calls itself: to draw, to measure, for intervals and for curves.
_PACKAGES = ("torch", "mmengine", "mmcv", "mmdet", "cv2", "pycocotools", "scipy", "matplotlib")


def require_packages() -> None:
    """Raises EnvironmentMissingError, with all their names, where some are not there. Imports none of them."""
    missing = [name for name in _PACKAGES if not _is_there(name)]
    if missing:
        raise EnvironmentMissingError(
            f"verify-ap needs MMDetection and its dependencies; not installed here: {', '.join(missing)}",
            "See what is missing and how to fix it: ckptconv doctor",
        )


def gpus_here() -> int:
    """How many GPUs torch sees: none where it cannot be imported, which is said where it is needed."""
    try:
        import torch
    except Exception:  # a library that does not load, built for another numpy, …
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
