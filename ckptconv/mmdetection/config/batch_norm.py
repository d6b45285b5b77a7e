"""Batch norm of the backbone and of a shared head: trained, synchronised or frozen, and over how many images. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptconv.arguments import argument
from ckptconv.mmdetection.config.detectors import Detector
from ckptconv.mmdetection.config.edits import Changes
from ckptconv.mmdetection.config.options import NORMS, Choices

_FEW = 4
"""Images of which batch norm's statistics are poor: below 8 its error rises (arXiv:1803.08494, table 2)."""


def set_batch_norm(changes: Changes, module: str, choices: Choices, checkpoint: str, fresh: bool) -> None:
    """Batch norm and checkpoint of a module; ``fresh`` if nothing of the base's module is kept."""
    norm_cfg, norm_eval, _ = NORMS[choices.norm]
    put: Any = changes.set if fresh else changes.put
    put(f"{module}.norm_cfg", norm_cfg)
    changes.set(f"{module}.norm_eval", norm_eval)
    start: Mapping[str, Any] = {"type": "Pretrained", "checkpoint": checkpoint}
    put(f"{module}.init_cfg", start)


def few_images(detector: Detector, choices: Choices, instead: str = "") -> tuple[str, str]:
    """A comment and a note where batch norm sees the images of one GPU only, and those are few; '' and '' elsewhere.

    mmengine makes BN of SyncBN in a training of one process (`Runner.__init__`, mmengine/runner/runner.py 0.10.7).
    """
    gpus = choices.gpus or max(detector.images // detector.batch_size, 1)
    batch = choices.batch_size or detector.batch_size
    if gpus > 1 or batch > _FEW:
        return "", ""
    count = f"{batch} image{'s' * (batch != 1)}"
    note = (
        f"batch norm takes its statistics from the {count} of one GPU: give it more, "
        f"{argument('batch_size', 8)}{instead}"
    )
    return f" Here these are the {count} of one GPU.", note
