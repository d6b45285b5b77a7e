"""What a detector's backbone is fed, measured: images of known colours go through the pipeline and the preprocessor.

Whoever normalises, a `Normalize` in the pipeline, the detector's preprocessor, its own code or a class of the user's,
and whatever swaps the channels, it is the numbers that the first convolution gets that count. `feeding_steps` has the
steps. Knows torch and mmengine; judges nothing.
"""

from __future__ import annotations

import contextlib
import copy
import random
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check.colour_transforms import Step, Steps, pipelines

_SIDE, _STEP, _AT = 64, 128.0, 8
_DRAWS, _NEAR = 32, 24


@dataclass(frozen=True)
class Fed:
    """What the network gets of an image: ``order`` of its channels, and ``mean`` and ``std`` of 0…255.

    ``steps``: the steps of the pipeline that have a part in it, ``without`` the lines that take them out. ``inside``:
    whether code of the detector's own changes what its preprocessor gives; ``batch``: whether the preprocessor has
    augmentations of the user's. ``unknown``: why it could not be measured, or ''.
    ``also``: what other pipelines of the same training feed, where that is something else.
    """

    order: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    steps: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    preprocessor: str = ""
    inside: bool = False
    batch: bool = False
    unknown: str = ""
    also: tuple[Fed, ...] = ()

    def like(self, other: Fed) -> bool:
        mine, theirs = (*self.mean, *self.std), (*other.mean, *other.std)
        return (
            self.order == other.order
            and len(mine) == len(theirs)
            and all(abs(a - b) < 0.05 for a, b in zip(mine, theirs, strict=True))
        )


class _Reached(BaseException):
    """Thrown where the first convolution gets its input, which is all that is wanted."""


def measured(model: Any, settings: Any, part: str = "train") -> Fed:
    """What a training, or the evaluation of a ``part`` ('val', 'test'), feeds. Nothing is read from the data set."""
    with runtime.quiet(), _undisturbed():
        found = [_measured(model, steps, part == "train") for steps in pipelines(settings, part)]
    first, *others = found
    return replace(first, also=tuple(one for one in others if one.unknown or not one.like(first)))


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """The random numbers of whoever called are as they were."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _measured(model: Any, steps: Steps, training: bool) -> Fed:
    preprocessor = getattr(model, "data_preprocessor", None)
    preprocessor = getattr(preprocessor, "data_preprocessor", preprocessor)  # of several branches, or of one
    augments = getattr(preprocessor, "batch_augments", None) or ()
    fed = _told(steps.built, preprocessor)
    fed = replace(fed, batch=any(not type(one).__module__.startswith("mmdet.") for one in augments))
    if steps.unknown:
        return replace(fed, unknown=steps.unknown)
    try:
        with tempfile.TemporaryDirectory() as folder:
            taken = [step for step in steps.built if not _only_augments(step.run, Path(folder))]
            runs = [step.run for step in taken]
            out = [_through(runs, model, preprocessor, colour, Path(folder), training) for colour in _colours()]
    except Exception as error:  # whatever a user's own step does
        return replace(fed, unknown=runtime.told(error))
    fed = replace(fed, steps=tuple(step.name for step in taken), without=tuple(step.without for step in taken))
    return _read([pixel for pixel, _ in out], replace(fed, inside=any(inside for _, inside in out)))


def _told(steps: Iterable[Step], preprocessor: Any) -> Fed:
    names, lines = zip(*((step.name, step.without) for step in steps), strict=True) if steps else ((), ())
    return Fed(steps=names, without=lines, preprocessor=type(preprocessor).__name__)


def _colours() -> Iterator[tuple[float, float, float]]:
    """Black, and each channel as OpenCV has them, blue first, alone."""
    yield (0.0, 0.0, 0.0)
    for i in range(3):
        yield (_STEP * (i == 0), _STEP * (i == 1), _STEP * (i == 2))


def _read(out: list[list[float]], fed: Fed) -> Fed:
    black, *lit = out
    if len(black) != 3:
        return replace(fed, unknown=f"{len(black)} channels come out")
    gain = [[(colour[row] - black[row]) / _STEP for colour in lit] for row in range(3)]
    sources = [[i for i, value in enumerate(row) if abs(value) > 1e-6] for row in gain]
    if sources not in ([[0], [1], [2]], [[2], [1], [0]]):
        return replace(fed, unknown="its channels are neither RGB nor BGR")
    scale = [row[source[0]] for row, source in zip(gain, sources, strict=True)]
    return replace(
        fed,
        order="BGR" if sources[0] == [0] else "RGB",
        mean=tuple(round(-value / by, 4) + 0.0 for value, by in zip(black, scale, strict=True)),
        std=tuple(round(1 / by, 4) for by in scale),
    )


def _through(
    steps: list[Any],
    model: Any,
    preprocessor: Any,
    colour: tuple[float, float, float],
    folder: Path,
    training: bool,
) -> tuple[list[float], bool]:
    """The pixel that comes out, and whether the detector's own code had a part in it."""
    import torch

    image = _after(steps, colour, folder)
    if image.ndim != 3:
        raise ValueError("images without colours come out of the pipeline")
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1).contiguous()

    def batch(training: bool) -> Any:
        return preprocessor({"inputs": [tensor.clone()], "data_samples": [_sample()]}, training=training)["inputs"]

    try:
        fed = batch(training)
    except Exception:  # some want more of an annotation than is known here
        fed = batch(False)
    if not isinstance(fed, torch.Tensor):
        raise TypeError(f"{type(preprocessor).__name__} gives no batch of images")
    seen, given = (one[0, :, _AT, _AT] for one in (_reached(model, fed), fed))
    return [float(value) for value in seen], not torch.equal(seen, given)


def _reached(model: Any, fed: Any) -> Any:
    """What the first convolution of a backbone gets of a batch; the batch where that cannot be told."""
    import torch

    from ckptconv.mmdetection.check.coverage import roots

    got: list[Any] = []

    def look(_: Any, args: Any) -> None:
        got.extend(args[:1])
        raise _Reached

    layers = [m for _, root in roots(model) for m in root.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    buffers = [(one, one.clone()) for one in model.buffers()]
    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        with torch.no_grad(), contextlib.suppress(Exception, _Reached):
            model.extract_feat(fed)
    finally:
        for handle in handles:
            handle.remove()
        for one, value in buffers:
            one.copy_(value)
    alike = got and isinstance(got[0], torch.Tensor) and got[0].dim() == 4 and got[0].shape[1] == fed.shape[1]
    return got[0] if alike and min(got[0].shape[2:]) > _AT else fed


def _sample() -> Any:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    sample = DetDataSample(metainfo={"img_shape": (_SIDE, _SIDE), "ori_shape": (_SIDE, _SIDE)})
    sample.gt_instances = InstanceData()
    return sample


def _after(steps: list[Any], colour: tuple[float, float, float], folder: Path) -> Any:
    """The image, rows by columns by channels, that comes out of the steps."""
    import cv2
    import numpy as np
    from mmdet.structures.bbox import HorizontalBoxes

    image = np.zeros((_SIDE, _SIDE, 3), np.uint8) + np.array(colour, np.uint8)
    tiff = any(getattr(step, "imdecode_backend", None) == "tifffile" for step in steps)
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
    for step in steps:
        results = step(results) or results
    return results["img"]


def _only_augments(step: Any, folder: Path) -> bool:
    """Whether a step does something else each time, and leaves colours at times nearly as they are.

    Raises ValueError for one that never does: what it feeds differs from image to image.
    """
    import numpy as np
    import torch

    colour = (40.0, 80.0, 120.0)
    before = _drawn(random.getstate(), np.random.get_state(), torch.get_rng_state())
    mine = copy.deepcopy(step)
    seen = [_after([mine], colour, folder) for _ in range(_DRAWS)]
    drew = before != _drawn(random.getstate(), np.random.get_state(), torch.get_rng_state())
    middle = [one[one.shape[0] // 2, one.shape[1] // 2] for one in seen]
    near = any(one.shape == (3,) and np.abs(one - np.array(colour)).max() <= _NEAR for one in middle)
    if all(np.array_equal(one, middle[0], equal_nan=True) for one in middle) and not (drew and near):
        return False
    if near:
        return True
    raise ValueError(f"{type(step).__name__} changes the colours of each image in another way")


def _drawn(*states: Any) -> str:
    return repr([state.tolist() if hasattr(state, "tolist") else state for state in states])
