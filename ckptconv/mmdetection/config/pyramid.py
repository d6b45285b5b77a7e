"""A pyramid of maps from the one map of a plain transformer: `SimpleFeaturePyramid` in place of a base's neck. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptconv.arguments import argument
from ckptconv.errors import UsageError
from ckptconv.mmdetection.config.detectors import Detector, value_at
from ckptconv.mmdetection.config.edits import Changes

NORM: Mapping[str, Any] = {"type": "LayerNorm2d", "eps": 1e-6}
_SCALES = (4, 2, 1, 0.5)
_NECK = "model.neck"
_CHANNELS = 256


def add_pyramid(changes: Changes, detector: Detector, channels: int, stride: int) -> None:
    """Put the pyramid in place of the neck, and its strides wherever the base states those of its own neck.

    ``channels`` and ``stride`` are those of the one map. Raises UsageError for a base without a neck.
    """
    levels = detector.levels
    if not levels:
        raise UsageError(
            f"{detector.title} does not have a neck that gives a pyramid of maps",
            f"Choose a detector that has: {argument('detector', 'mask-rcnn')}",
        )
    path = next(iter(detector.widths)).removesuffix(".in_channels")
    had = value_at(detector.found, _NECK) if detector.found is not None else None
    had = had[0] if isinstance(had, list) else had
    scales = _scales(levels[0], stride)
    neck = {
        "type": "SimpleFeaturePyramid",
        "in_channels": channels,
        "out_channels": value_at(had, "out_channels", _CHANNELS),
        "scales": scales,
        "num_outs": len(levels),
        "norm_cfg": dict(NORM),
    }
    if path.endswith("]"):
        changes.set(path, neck)
    else:
        changes.set(f"{path}._delete_", True)
        for key, value in neck.items():
            changes.set(f"{path}.{key}", value)
    factor = stride / scales[0] / levels[0]
    if factor != 1:
        for where, strides in detector.level_strides.items():
            note = f"A patch has {stride} pixels: the maps of the pyramid have these strides."
            changes.set(where, [_plain(one * factor) for one in strides], note)


def _scales(finest: int, stride: int) -> tuple[float, ...]:
    """The scales whose first map has the stride that is nearest to ``finest``."""
    first = min(_SCALES, key=lambda scale: abs(stride / scale - finest))
    return _SCALES[_SCALES.index(first) :]


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number
