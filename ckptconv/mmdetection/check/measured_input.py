"""What a detector's network gets of an image, measured: known colours go through the pipeline and the preprocessor.

A `Normalize` in the pipeline, the preprocessor, the detector's own code or a class of the user's may normalise or swap
channels: only the numbers that the first convolution gets count. `colour_transforms` has the transforms of a pipeline.
Knows torch and mmengine; judges nothing.
"""

from __future__ import annotations

import contextlib
import copy
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check.colour_transforms import BuiltTransform, Pipeline, pipelines

_SIDE, _STEP, _AT = 64, 128.0, 8
_DRAWS, _NEAR = 32, 24


@dataclass(frozen=True)
class ModelInput:
    """What the network gets of an image: the ``order`` of its channels, and ``mean`` and ``std`` of 0…255.

    ``steps``: the transforms of the pipeline that change it; ``removals``: the lines that remove them from the config.
    ``inside``: whether the detector's own code changes what its preprocessor gives. ``batch``: whether the preprocessor
    has batch augmentations of the user's. ``unknown``: why it could not be measured, or ''.
    ``also``: what other pipelines of the same training give, where that differs.
    """

    order: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    steps: tuple[str, ...] = ()
    removals: tuple[str, ...] = ()
    preprocessor: str = ""
    inside: bool = False
    batch: bool = False
    unknown: str = ""
    also: tuple[ModelInput, ...] = ()

    def like(self, other: ModelInput) -> bool:
        """Whether the channels have the same order and the same statistics, to a twentieth of a grey level."""
        mine, theirs = (*self.mean, *self.std), (*other.mean, *other.std)
        return (
            self.order == other.order
            and len(mine) == len(theirs)
            and all(abs(a - b) < 0.05 for a, b in zip(mine, theirs, strict=True))
        )


class _InputReached(BaseException):
    """Raised where the first convolution gets its input: the rest need not run."""


def measured(model: Any, settings: Any, part: str = "train") -> ModelInput:
    """What the network gets in a training, or in the evaluation of a ``part`` ('val', 'test'). No data set is read."""
    with runtime.quiet(), _same_random_numbers():
        first, *others = [_measured(model, pipeline, part == "train") for pipeline in pipelines(settings, part)]
    return replace(first, also=tuple(other for other in others if other.unknown or not other.like(first)))


@contextlib.contextmanager
def _same_random_numbers() -> Iterator[None]:
    """The caller's random numbers stay as they were."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _measured(model: Any, pipeline: Pipeline, training: bool) -> ModelInput:
    preprocessor = getattr(model, "data_preprocessor", None)
    preprocessor = getattr(preprocessor, "data_preprocessor", preprocessor)  # of several branches, or of one
    augments = getattr(preprocessor, "batch_augments", None) or ()
    got = _unmeasured(pipeline.steps, preprocessor)
    got = replace(got, batch=any(not type(one).__module__.startswith("mmdet.") for one in augments))
    if pipeline.unknown:
        return replace(got, unknown=pipeline.unknown)
    try:
        with tempfile.TemporaryDirectory() as folder:
            steps = [step for step in pipeline.steps if not _only_augments(step.transform, Path(folder))]
            transforms = [step.transform for step in steps]
            out = [_pixel(transforms, model, preprocessor, colour, Path(folder), training) for colour in _colours()]
    except Exception as error:  # a user's own transform may raise anything
        return replace(got, unknown=runtime.error_line(error))
    got = replace(got, steps=tuple(step.name for step in steps), removals=tuple(step.removal for step in steps))
    return _statistics([pixel for pixel, _ in out], replace(got, inside=any(inside for _, inside in out)))


def _unmeasured(steps: Sequence[BuiltTransform], preprocessor: Any) -> ModelInput:
    return ModelInput(
        steps=tuple(step.name for step in steps),
        removals=tuple(step.removal for step in steps),
        preprocessor=type(preprocessor).__name__,
    )


def _colours() -> Iterator[tuple[float, float, float]]:
    """Black, and each channel as OpenCV has them, blue first, alone."""
    yield (0.0, 0.0, 0.0)
    for i in range(3):
        yield (_STEP * (i == 0), _STEP * (i == 1), _STEP * (i == 2))


def _statistics(out: list[list[float]], got: ModelInput) -> ModelInput:
    """Order, mean and std that turn the colours into these pixels."""
    black, *lit = out
    if len(black) != 3:
        return replace(got, unknown=f"the network gets {len(black)} channels")
    gain = [[(colour[row] - black[row]) / _STEP for colour in lit] for row in range(3)]
    sources = [[i for i, value in enumerate(row) if abs(value) > 1e-6] for row in gain]
    if sources not in ([[0], [1], [2]], [[2], [1], [0]]):
        return replace(got, unknown="its channels are neither RGB nor BGR")
    scale = [row[source[0]] for row, source in zip(gain, sources, strict=True)]
    return replace(
        got,
        order="BGR" if sources[0] == [0] else "RGB",
        mean=tuple(round(-value / by, 4) + 0.0 for value, by in zip(black, scale, strict=True)),
        std=tuple(round(1 / by, 4) for by in scale),
    )


def _pixel(
    transforms: list[Any],
    model: Any,
    preprocessor: Any,
    colour: tuple[float, float, float],
    folder: Path,
    training: bool,
) -> tuple[list[float], bool]:
    """The pixel that comes out, and whether the detector's own code had a part in it."""
    import torch

    image = _after(transforms, colour, folder)
    if image.ndim != 3:
        raise ValueError("the pipeline gives images without colours")
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1).contiguous()

    def batch(training: bool) -> Any:
        return preprocessor({"inputs": [tensor.clone()], "data_samples": [_sample()]}, training=training)["inputs"]

    try:
        images = batch(training)
    except Exception:  # some need more of an annotation than is known here
        images = batch(False)
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"{type(preprocessor).__name__} does not give a batch of images")
    got, given = (batch[0, :, _AT, _AT] for batch in (_first_input(model, images), images))
    return [float(value) for value in got], not torch.equal(got, given)


def _first_input(model: Any, images: Any) -> Any:
    """What the first layer of a backbone gets of a batch; the batch where that is not known."""
    import torch

    from ckptconv.mmdetection.check.coverage import backbone_modules

    got: list[Any] = []

    def take(_: Any, args: Any) -> None:
        got.extend(args[:1])
        raise _InputReached

    modules = [module for _, backbone in backbone_modules(model) for module in backbone.modules()]
    layers = [module for module in modules if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    handles = [layer.register_forward_pre_hook(take) for layer in layers]
    try:
        with torch.no_grad(), contextlib.suppress(Exception, _InputReached):
            model.extract_feat(images)
    finally:
        for handle in handles:
            handle.remove()
        for buffer, value in buffers:
            buffer.copy_(value)
    alike = got and isinstance(got[0], torch.Tensor) and got[0].dim() == 4 and got[0].shape[1] == images.shape[1]
    return got[0] if alike and min(got[0].shape[2:]) > _AT else images


def _sample() -> Any:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    sample = DetDataSample(metainfo={"img_shape": (_SIDE, _SIDE), "ori_shape": (_SIDE, _SIDE)})
    sample.gt_instances = InstanceData()
    return sample


def _after(transforms: list[Any], colour: tuple[float, float, float], folder: Path) -> Any:
    """The image, rows by columns by channels, that the transforms give."""
    import cv2
    import numpy as np
    from mmdet.structures.bbox import HorizontalBoxes

    image = np.zeros((_SIDE, _SIDE, 3), np.uint8) + np.array(colour, np.uint8)
    tiff = any(getattr(transform, "imdecode_backend", None) == "tifffile" for transform in transforms)
    path = folder / ("image.tif" if tiff else "image.png")
    cv2.imwrite(str(path), image, [cv2.IMWRITE_TIFF_COMPRESSION, 1] if tiff else [])
    results: dict[str, Any] = {
        "img": image,
        "img_path": str(path),
        "img_id": 0,
        "img_shape": (_SIDE, _SIDE),
        "ori_shape": (_SIDE, _SIDE),
        "height": _SIDE,
        "width": _SIDE,
        "instances": [],
        "scale_factor": (1.0, 1.0),
        "gt_bboxes": HorizontalBoxes(np.array([[8, 8, 40, 40]], np.float32)),
        "gt_bboxes_labels": np.zeros(1, np.int64),
        "gt_ignore_flags": np.zeros(1, bool),
    }
    for transform in transforms:
        results = transform(results) or results
    return results["img"]


def _only_augments(transform: Any, folder: Path) -> bool:
    """Whether a transform is random, and sometimes leaves colours nearly as they are.

    Raises ValueError for a random one that never does: what it gives differs from image to image.
    """
    import numpy as np
    import torch

    colour = (40.0, 80.0, 120.0)
    before = _drawn(random.getstate(), np.random.get_state(), torch.get_rng_state())
    copied = copy.deepcopy(transform)
    images = [_after([copied], colour, folder) for _ in range(_DRAWS)]
    drew = before != _drawn(random.getstate(), np.random.get_state(), torch.get_rng_state())
    middle = [image[image.shape[0] // 2, image.shape[1] // 2] for image in images]
    near = any(pixel.shape == (3,) and np.abs(pixel - np.array(colour)).max() <= _NEAR for pixel in middle)
    if all(np.array_equal(pixel, middle[0], equal_nan=True) for pixel in middle) and not (drew and near):
        return False
    if near:
        return True
    raise ValueError(f"{type(transform).__name__} changes the colours of each image differently")


def _drawn(*states: Any) -> str:
    return repr([state.tolist() if hasattr(state, "tolist") else state for state in states])
