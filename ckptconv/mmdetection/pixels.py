"""What a detector's backbone is fed, measured: images of known colours go through the pipeline and the preprocessor.

Whoever normalises, a `Normalize` in the pipeline, the detector's preprocessor or a class of the user's, and whatever
swaps the channels, it is the numbers that come out that count. Steps of mmcv and mmdet that only move or augment images
are passed over; a user's own step that is random, too. Knows torch and mmengine; judges nothing.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptconv.mmdetection import runtime

_OWN = ("mmcv.", "mmdet.", "mmengine.", "mmpretrain.", "ckptconv.")
_NORMALISES = "Normalize"
_LOADS = "LoadImageFromFile"
_SIDE, _STEP, _AT = 64, 128.0, 8


@dataclass(frozen=True)
class Fed:
    """What the network gets of an image: ``order`` of its channels, and ``mean`` and ``std`` of 0…255.

    ``steps``: the steps of the pipeline that have a part in it. ``unknown``: why it could not be measured, or ''.
    """

    order: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    steps: tuple[str, ...] = ()
    preprocessor: str = ""
    unknown: str = ""

    def like(self, other: Fed) -> bool:
        mine, theirs = (*self.mean, *self.std), (*other.mean, *other.std)
        return (
            self.order == other.order
            and len(mine) == len(theirs)
            and all(abs(a - b) < 0.05 for a, b in zip(mine, theirs, strict=True))
        )


def measured(model: Any, settings: Any, part: str = "train") -> Fed:
    """What a training, or the evaluation of a ``part`` ('val', 'test'), feeds. Nothing is read from the data set."""
    preprocessor = getattr(model, "data_preprocessor", None)
    preprocessor = getattr(preprocessor, "data_preprocessor", preprocessor)  # of several branches, or of one
    name = type(preprocessor).__name__
    with runtime.quiet():
        steps, broken = _steps(settings, part)
    shown = tuple(type(step).__name__ for step in steps)
    if broken:
        return Fed(steps=shown, preprocessor=name, unknown=broken)
    try:
        with runtime.quiet(), tempfile.TemporaryDirectory() as folder:
            taken = [step for step in steps if not _random(step, Path(folder))]
            out = [_through(taken, preprocessor, colour, Path(folder)) for colour in _colours()]
    except Exception as error:  # whatever a user's own step does
        return Fed(steps=shown, preprocessor=name, unknown=runtime.told(error))
    return _read(out, tuple(type(step).__name__ for step in taken), name)


def _colours() -> Iterator[tuple[float, float, float]]:
    """Black, and each channel as OpenCV has them, blue first, alone."""
    yield (0.0, 0.0, 0.0)
    for i in range(3):
        yield (_STEP * (i == 0), _STEP * (i == 1), _STEP * (i == 2))


def _read(out: list[list[float]], steps: tuple[str, ...], preprocessor: str) -> Fed:
    black, *lit = out
    if len(black) != 3:
        return Fed(steps=steps, preprocessor=preprocessor, unknown=f"{len(black)} channels come out")
    gain = [[(colour[row] - black[row]) / _STEP for colour in lit] for row in range(3)]
    sources = [[i for i, value in enumerate(row) if abs(value) > 1e-6] for row in gain]
    if sources not in ([[0], [1], [2]], [[2], [1], [0]]):
        return Fed(steps=steps, preprocessor=preprocessor, unknown="its channels are neither RGB nor BGR")
    scale = [row[source[0]] for row, source in zip(gain, sources, strict=True)]
    return Fed(
        order="BGR" if sources[0] == [0] else "RGB",
        mean=tuple(round(-value / by, 4) + 0.0 for value, by in zip(black, scale, strict=True)),
        std=tuple(round(1 / by, 4) for by in scale),
        steps=steps,
        preprocessor=preprocessor,
    )


def _through(steps: list[Any], preprocessor: Any, colour: tuple[float, float, float], folder: Path) -> list[float]:
    import torch

    image = _after(steps, colour, folder)
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1).contiguous()
    fed = preprocessor({"inputs": [tensor], "data_samples": [_sample()]}, training=False)["inputs"]
    if not isinstance(fed, torch.Tensor):
        raise TypeError(f"{type(preprocessor).__name__} gives no batch of images")
    return [float(value) for value in fed[0, :, _AT, _AT]]


def _sample() -> Any:
    from mmdet.structures import DetDataSample

    return DetDataSample(metainfo={"img_shape": (_SIDE, _SIDE), "ori_shape": (_SIDE, _SIDE)})


def _after(steps: list[Any], colour: tuple[float, float, float], folder: Path) -> Any:
    """The image, rows by columns by channels, that comes out of the steps."""
    import cv2
    import numpy as np

    image = np.zeros((_SIDE, _SIDE, 3), np.uint8) + np.array(colour, np.uint8)
    path = folder / "image.png"
    cv2.imwrite(str(path), image)
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
    }
    for step in steps:
        results = step(results) or results
    return results["img"]


def _random(step: Any, folder: Path) -> bool:
    """Whether a user's own step does something else each time: it augments."""
    import numpy as np

    if type(step).__name__ == _NORMALISES:
        return False
    seen = [_after([copy.deepcopy(step)], (40.0, 80.0, 120.0), folder) for _ in range(4)]
    return any(one.shape != seen[0].shape or not np.array_equal(one, seen[0]) for one in seen)


def _steps(settings: Any, part: str) -> tuple[list[Any], str]:
    """The steps that may change colours, built; and why one of them cannot be."""
    from mmdet.registry import TRANSFORMS
    from mmengine.registry import init_default_scope

    init_default_scope(settings.get("default_scope", "mmdet"))
    built: list[Any] = []
    for said in _pipeline((settings.get(f"{part}_dataloader") or {}).get("dataset")):
        kind = said.get("type") if isinstance(said, Mapping) else type(said)
        known = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
        if known is None:
            return built, f"there is no transform {kind}"
        if known.__module__.startswith(_OWN) and known.__name__ != _NORMALISES:
            continue
        try:
            built.append(TRANSFORMS.build(dict(said)) if isinstance(said, Mapping) else said)
        except Exception as error:  # whatever its constructor does
            return built, f"{known.__name__} cannot be built: {runtime.told(error)}"
    return built, ""


def _pipeline(dataset: Any) -> Iterator[Any]:
    """The steps that an image goes through: the inner data set's, then those of what is around it."""
    if not isinstance(dataset, Mapping):
        return
    inner = dataset.get("dataset") or next(iter(dataset.get("datasets") or ()), None)
    yield from _pipeline(inner)
    for step in dataset.get("pipeline") or ():
        yield from (_flat(step))


def _flat(step: Any) -> Iterator[Any]:
    """A step, or those that it is made of, as mmcv's `TransformBroadcaster` and `RandomApply` are."""
    inside = step.get("transforms") if isinstance(step, Mapping) else None
    if isinstance(inside, list | tuple):
        for one in inside:
            yield from _flat(one) if isinstance(one, Mapping) else ()
    else:
        yield step
