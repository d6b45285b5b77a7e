"""How images with other than three channels are loaded and normalised, by what mmcv and mmdet have. Pure; no torch.

Facts of mmcv 2.1.0 and mmdet 3.3.0: `LoadImageFromFile` reads three channels unless its ``color_type`` is 'unchanged';
OpenCV reads files of one, three and four channels, and tifffile any number; a `DetDataPreprocessor` takes statistics of
one or three channels only (`ImgDataPreprocessor` of mmengine 0.10.7), so the pipelines hold those of others.
`LoadMultiChannelImageFromFiles` wants a list of files for each image, which `CocoDataset` does not make.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptconv.arguments import argument
from ckptconv.errors import UsageError
from ckptconv.mmdetection.config.python_source import Code
from ckptconv.mmdetection.type_names import has_type, type_name

LOAD, ORDER = "LoadImageFromFile", "FileOrder"
_OF_OPENCV = (1, 4)
COLOURS = (
    "PhotoMetricDistortion",
    "YOLOXHSVRandomAug",
    "ColorTransform",
    "Color",
    "Brightness",
    "Contrast",
    "Equalize",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Sharpness",
    "AutoContrast",
    "Invert",
)
"""Transforms of mmdet that change the colours of one image."""
_OF_COLOURS = (
    *COLOURS,
    "Mosaic",
    "CachedMosaic",
    "MixUp",
    "CachedMixUp",
    "CutOut",
    "Corrupt",
    "Albu",
    "AutoAugment",
    "RandAugment",
)
"""Transforms of mmdet that are written for three channels."""
_MOST_OF_PAD = 4  # numbers of a scalar of OpenCV, with which mmcv's Pad fills


def loading(channels: int, mean: Sequence[float], std: Sequence[float], backend_args: Any) -> list[dict[str, Any]]:
    """The steps that replace `LoadImageFromFile`."""
    load: dict[str, Any] = {"type": LOAD, "color_type": "unchanged", "to_float32": True}
    if channels not in _OF_OPENCV:
        load["imdecode_backend"] = "tifffile"
    steps = [{**load, "backend_args": backend_args}]
    if channels == 4:
        steps.append({"type": ORDER, "channels": channels})
    if channels > 1:
        steps.append({"type": "Normalize", "mean": list(mean), "std": list(std), "to_rgb": False})
    return steps


def fed(channels: int, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """What a `DetDataPreprocessor` says of the pixels."""
    if channels == 1:
        return {"mean": list(mean), "std": list(std), "bgr_to_rgb": False}
    return {"mean": None, "std": None, "bgr_to_rgb": False}


def on_base(steps: Sequence[Mapping[str, Any]], pipeline: str) -> list[Any]:
    """A pipeline of MMDetection's own bases with other steps for its first one, which loads."""
    return [*steps, Code(f"*_base_.{pipeline}[1:]")]


def adapted(config: Mapping[str, Any], channels: int, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """Every pipeline of a resolved config, by its path, with the steps for so many channels in it.

    Raises UsageError where none loads images as mmdet's configs do, and for what is written for three channels.
    """
    every = dict(pipelines(config, ""))
    loads = {path for path, steps in every.items() if any(has_type(step, LOAD) for step in steps)}
    if not any(path.startswith("train_dataloader") for path in loads):
        raise UsageError(
            f"its training has no {LOAD}, which an image of {channels} channels needs otherwise",
            "Write the loading into the config yourself; ckptconv check CONFIG proves its backbone.",
        )
    for steps in every.values():
        for step in transforms(steps):
            if has_type(step, *_OF_COLOURS) or (has_type(step, "Pad") and channels > _MOST_OF_PAD):
                raise UsageError(
                    f"its pipeline has {type_name(step)}, which images of {channels} channels do not go through",
                    f"Give a base without it: {argument('base')} takes any config.",
                )
    changed = {
        path: [new for step in steps for new in _replaced(step, channels, mean, std)] for path, steps in every.items()
    }
    return {path: steps for path, steps in changed.items() if steps != every[path]}


def _replaced(step: Any, channels: int, mean: Sequence[float], std: Sequence[float]) -> list[Any]:
    return loading(channels, mean, std, step.get("backend_args")) if has_type(step, LOAD) else [_filled(step)]


def _filled(node: Any) -> Any:
    """A step whose `Pad`, at any depth, fills with zeros where it has a number for each of three channels."""
    if isinstance(node, list | tuple):
        return type(node)(_filled(child) for child in node)
    if not isinstance(node, Mapping):
        return node
    fill = node.get("pad_val")
    if has_type(node, "Pad") and isinstance(fill, Mapping) and isinstance(fill.get("img"), list | tuple):
        return {**node, "pad_val": {**fill, "img": 0}}
    return {key: _filled(child) for key, child in node.items()}


def pipelines(node: Any, path: str) -> Iterator[tuple[str, list[Any]]]:
    """Every list that is called a pipeline, by its path: ``a.b[0].pipeline``."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            where = f"{path}.{name}" if path else str(name)
            if str(name).endswith("pipeline") and isinstance(child, list):
                yield where, child
            else:
                yield from pipelines(child, where)
    elif isinstance(node, list | tuple):
        for i, child in enumerate(node):
            yield from pipelines(child, f"{path}[{i}]")


def transforms(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every transform of a pipeline, those inside others, too."""
    if isinstance(node, Mapping):
        if "type" in node:
            yield node
        for child in node.values():
            yield from transforms(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from transforms(child)
