"""A step of an image pipeline, for configs to import: ``dict(type='FileOrder', channels=4)``.

MMDetection reads images with OpenCV, which gives the first three channels of a file in reverse order: blue, green, red.
`DetDataPreprocessor` reverses three channels again (``bgr_to_rgb``), but not four.
"""

from __future__ import annotations

from typing import Any

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class FileOrder(BaseTransform):  # type: ignore[misc]
    """Puts an image's channels into the order of its file. Raises ValueError for another number of channels."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        image = results["img"]
        channels = image.shape[2] if image.ndim > 2 else 1
        if channels != self.channels:
            raise ValueError(
                f"{results.get('img_path', 'an image')} has {channels} channels, and the network takes {self.channels}"
            )
        results["img"] = image[..., [2, 1, 0, *range(3, self.channels)]]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(channels={self.channels})"
