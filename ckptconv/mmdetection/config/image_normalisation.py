"""What a detector feeds its backbone: the pixels' statistics, and how images with other than three channels are loaded.

Pure; imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptconv.arguments import argument
from ckptconv.errors import UsageError
from ckptconv.methods.interface import IMAGENET, Pixels
from ckptconv.mmdetection.config.channels import LOAD, adapted, fed, loading, on_base
from ckptconv.mmdetection.config.checkpoint import Pretrained
from ckptconv.mmdetection.config.detectors import Detector
from ckptconv.mmdetection.config.edits import ABSENT, Changes
from ckptconv.mmdetection.config.options import Choices
from ckptconv.mmdetection.config.python_source import Code

_BACKEND = Code("_base_.backend_args")
_AT = "model.data_preprocessor"


def feed(changes: Changes, detector: Detector, found: Pretrained, choices: Choices) -> None:
    """Add the pixels to the changes. Raises UsageError if their statistics are needed and not given."""
    mean, std = _statistics(detector, found, choices)
    count = found.in_channels
    if count == 3:
        _colours(changes, detector, found, mean, std)
    elif mean:
        _feed(changes, detector, fed(count, mean, std), f"Images of {count} channels, in the order of their files.")
        _load(changes, detector, found, mean, std)


def loading_for(detector: Detector, found: Pretrained, choices: Choices) -> list[dict[str, Any]]:
    """The first steps of a pipeline on MMDetection's own bases."""
    mean, std = _statistics(detector, found, choices)
    if found.in_channels == 3:
        return [{"type": LOAD, "backend_args": _BACKEND}]
    return loading(found.in_channels, mean, std, _BACKEND)


def _statistics(detector: Detector, found: Pretrained, choices: Choices) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, as the user gives them; () if none are given or needed."""
    count, images = found.in_channels, f"{found.path} takes images of {found.in_channels} channel"
    images += "s" * (count != 1)
    if not choices.mean:
        if found.colour or _fed_already(detector, count):
            return (), ()
        raise UsageError(
            f"{images}, and the mean and standard deviation of their pixels are not known",
            f"Give {argument('mean')} and {argument('std')}, {count} numbers each or one for all. "
            f"{argument('mean', (0,))} {argument('std', (1,))} leaves the pixels as they are.",
        )
    for parameter, values in (("mean", choices.mean), ("std", choices.std)):
        if len(values) not in (1, count):
            raise UsageError(
                f"{argument(parameter)} has {len(values)} numbers, and {images}",
                f"Give {count} numbers, or one for all.",
                parameter,
            )
    mean, std = (values * count if len(values) == 1 else values for values in (choices.mean, choices.std))
    return mean, std


def _fed_already(detector: Detector, count: int) -> bool:
    """Whether the base feeds a network of as many channels, which are not three: then its pipelines are right."""
    had = detector.backbone
    return count != 3 and had.get("in_channels", had.get("in_chans", 3)) == count


def _load(
    changes: Changes, detector: Detector, found: Pretrained, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Pipelines for images with other than three channels."""
    count = found.in_channels
    if detector.found is not None:
        for path, pipeline in adapted(detector.found, count, mean, std).items():
            changes.set(path, pipeline)
        return
    steps = loading(count, mean, std, _BACKEND)
    note = "" if count in (1, 4) else "tifffile reads any number of channels, which come last: pip install tifffile."
    for name in ("train_pipeline", "test_pipeline"):
        changes.set(name, on_base(steps, name), note if name == "train_pipeline" else "")
    for part in ("train", "val", "test"):
        changes.set(f"{part}_dataloader.dataset.pipeline", Code(f"{'train' if part == 'train' else 'test'}_pipeline"))


def _colours(
    changes: Changes, detector: Detector, found: Pretrained, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    pixels = found.pixels
    note = f"The pixels that {found.method} was trained with."
    if mean:
        pixels = Pixels((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
        note = "As mean and std were given, in the order of the files' channels."
    if pixels is None:
        pixels, note = IMAGENET, f"{found.method} does not tell what pixels it was trained with: ImageNet's."
    if pixels != detector.pixels:
        values = {"mean": list(pixels.mean), "std": list(pixels.std), "bgr_to_rgb": pixels.order == "RGB"}
        _feed(changes, detector, values, note)


def _feed(changes: Changes, detector: Detector, values: Mapping[str, Any], note: str) -> None:
    if detector.found is not None and not changes.had(_AT):
        changes.put(_AT, {"type": "DetDataPreprocessor", "pad_size_divisor": 32})
    elif detector.found is not None and changes.had(_AT) is ABSENT:
        changes.set(f"{_AT}.type", "DetDataPreprocessor")
        changes.set(f"{_AT}.pad_size_divisor", 32)
    for key, value in values.items():
        changes.set(f"{_AT}.{key}", value, note if key == "mean" else "")
