"""The transforms of a config's pipelines that may change colours, built: `normalisation` measures what they do.

Transforms of mmcv and mmdet that only move images, or read annotations, are left out. Knows mmengine's registries.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.config.channels import COLOURS
from ckptconv.mmdetection.type_names import has_type

_OWN = ("mmcv.", "mmdet.", "mmengine.", "mmpretrain.", "ckptconv.")
_COLOURS = (*COLOURS, "Normalize", "RandomGrayscale")
"""Transforms of mmcv 2.1.0 and mmdet 3.3.0 that change colours, of one image alone."""
_LOADS = "LoadImageFromFile"
_BLUE_FIRST = ("cv2", "pillow", "turbojpeg")
"""Backends of mmcv that give blue first for every file: mmcv/image/io.py, 2.1.0."""
_CHOOSERS = ("RandomApply", "RandomChoice")
_IMAGE_METHODS = ("__getitem__", "prepare_data")


@dataclass(frozen=True)
class BuiltTransform:
    """A transform of a pipeline, built; ``removal``: the line that removes it, or takes mmcv's own reader for it."""

    transform: Any
    removal: str = ""

    @property
    def name(self) -> str:
        return type(self.transform).__name__


@dataclass(frozen=True)
class Pipeline:
    """The steps of one pipeline; ``unknown`` says why an image may go through others, or ''."""

    steps: tuple[BuiltTransform, ...] = ()
    unknown: str = ""


_Configured = list[tuple[Any, str]]
"""Steps as a config has them, and where: 'train_dataloader.dataset.pipeline[2]'."""


def pipelines(settings: Any, part: str) -> list[Pipeline]:
    """Every pipeline of a training, or of a ``part`` of the evaluation."""
    from mmengine.registry import init_default_scope

    init_default_scope(settings.get("default_scope", "mmdet"))
    loader = settings.get(f"{part}_dataloader") or {}
    configured = list(_of_dataset(loader.get("dataset"), f"{part}_dataloader.dataset"))
    for i, hook in enumerate((settings.get("custom_hooks") or ()) if part == "train" else ()):
        if has_type(hook, "PipelineSwitchHook"):
            configured.append((_numbered(hook.get("switch_pipeline"), f"custom_hooks[{i}].switch_pipeline"), ""))
    return [_built(steps, unknown) for steps, unknown in configured] or [Pipeline()]


def _numbered(steps: Any, path: str) -> _Configured:
    return [(step, f"{path}[{i}]") for i, step in enumerate(steps or ())]


def _of_dataset(dataset: Any, path: str) -> Iterator[tuple[_Configured, str]]:
    """The steps that an image goes through: those of the inner data set, then those of its wrappers."""
    if not isinstance(dataset, Mapping):
        return
    inner = [(one, f"{path}.datasets[{i}]") for i, one in enumerate(dataset.get("datasets") or ())]
    inner = inner or [(dataset.get("dataset"), f"{path}.dataset")]
    outer, unknown = _pipeline(dataset, path)
    pipelines = [pipeline for each, at in inner for pipeline in _of_dataset(each, at)] or [([], "")]
    for steps, why in pipelines:
        yield [*steps, *outer], why or unknown


def _pipeline(dataset: Mapping[str, Any], path: str) -> tuple[_Configured, str]:
    from mmengine.registry import DATASETS

    kind = dataset.get("type")
    with runtime.quiet():
        known = DATASETS.get(kind) if isinstance(kind, str) else kind
    steps = _numbered(dataset.get("pipeline"), f"{path}.pipeline")
    if not inspect.isclass(known) or not issubclass(known, _base()):
        return steps, ""
    own = [name for name in _IMAGE_METHODS if not _owner(known, name).startswith(_OWN)]
    default = inspect.signature(known.__init__).parameters.get("pipeline")
    if "pipeline" not in dataset and default is not None and isinstance(default.default, list | tuple):
        steps = [(step, "") for step in default.default]
    return steps, f"the data set {known.__name__} has its own {' and '.join(own)}" if own else ""


def _base() -> Any:
    from mmengine.dataset import BaseDataset

    return BaseDataset


def _owner(kind: type, name: str) -> str:
    return next((base.__module__ for base in kind.__mro__ if name in vars(base)), "mmengine.")


def _built(configured: _Configured, unknown: str) -> Pipeline:
    from mmdet.registry import TRANSFORMS

    built: list[BuiltTransform] = []
    for step, path in ((inner, path) for one, path in configured for inner in _flat(one)):
        known = _class(step)
        if known is None:
            return Pipeline(tuple(built), f"the transform {step.get('type')} is not registered")
        if not _matters(step):
            continue
        try:
            transform = TRANSFORMS.build(_filtered(step)) if isinstance(step, Mapping) else step
        except Exception as error:  # a constructor may raise anything
            return Pipeline(tuple(built), f"{known.__name__} cannot be built: {runtime.error_line(error)}")
        built.append(BuiltTransform(transform, _removal(known, path)))
    return Pipeline(tuple(built), unknown)


def _removal(kind: type, path: str) -> str:
    if not path:
        return f"Give the data set a pipeline without {kind.__name__}"
    if any(base.__name__ == _LOADS for base in kind.__mro__):
        return f"{path}: type={_LOADS!r}, imdecode_backend='cv2', color_type='color'"
    return f"{path.rpartition('[')[0]}: remove {kind.__name__}"


def _class(step: Any) -> Any:
    from mmdet.registry import TRANSFORMS

    kind = step.get("type") if isinstance(step, Mapping) else type(step)
    return TRANSFORMS.get(kind) if isinstance(kind, str) else kind


def _matters(step: Any) -> bool:
    """Whether a step may change colours."""
    if has_type(step, *_CHOOSERS):
        return any(_matters(one) for one in _inside(step))
    known = _class(step)
    if known is None or not known.__module__.startswith(_OWN) or known.__name__ in _COLOURS:
        return True
    if not has_type(step, _LOADS):
        return False
    backend, colour = step.get("imdecode_backend") or "cv2", str(step.get("color_type") or "color")
    return backend not in _BLUE_FIRST or not colour.startswith("color")


def _inside(step: Mapping[str, Any]) -> Iterator[Any]:
    for one in step.get("transforms") or ():
        yield from one if isinstance(one, list | tuple) else [one]


def _filtered(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step without the inner ones that only move images."""
    filtered = dict(step)
    if has_type(step, *_CHOOSERS):
        filtered["transforms"] = [
            [_filtered(one) for one in part if _matters(one)] if isinstance(part, list | tuple) else _filtered(part)
            for part in step.get("transforms") or ()
            if isinstance(part, list | tuple) or _matters(part)
        ]
    return filtered


def _flat(step: Any) -> Iterator[Any]:
    """A step, or those inside it, as mmcv's `TransformBroadcaster` has."""
    inside = step.get("transforms") if isinstance(step, Mapping) and not has_type(step, *_CHOOSERS) else None
    if isinstance(inside, list | tuple):
        for one in inside:
            yield from _flat(one) if isinstance(one, Mapping) else ()
    else:
        yield step
