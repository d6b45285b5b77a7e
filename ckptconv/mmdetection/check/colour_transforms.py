"""The steps of a config's pipelines that may change colours, built: those are measured by `pixels`.

Steps of mmcv and mmdet that only move images, or read annotations, are left out. Knows mmengine's registries.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.config.channels import COLOURS
from ckptconv.mmdetection.type_names import named

_OWN = ("mmcv.", "mmdet.", "mmengine.", "mmpretrain.", "ckptconv.")
_COLOURS = (*COLOURS, "Normalize", "RandomGrayscale")
"""Transforms of mmcv 2.1.0 and mmdet 3.3.0 that change colours, of one image alone."""
_LOADS = "LoadImageFromFile"
_ALIKE = ("cv2", "pillow", "turbojpeg")
"""Readers of mmcv that give blue first, whatever is in the file: mmcv/image/io.py, 2.1.0."""
_CHOOSES = ("RandomApply", "RandomChoice")
_MAKES_IMAGES = ("__getitem__", "prepare_data")


@dataclass(frozen=True)
class Step:
    """A step, built; ``without``: the line of a config that takes it out, or takes mmcv's own reader for it."""

    run: Any
    without: str = ""

    @property
    def name(self) -> str:
        return type(self.run).__name__


@dataclass(frozen=True)
class Steps:
    """The steps of one pipeline; ``unknown`` says why they are not all that an image goes through, or ''."""

    built: tuple[Step, ...] = ()
    unknown: str = ""


_Said = list[tuple[Any, str]]
"""Steps as a config has them, and where: 'train_dataloader.dataset.pipeline[2]'."""


def pipelines(settings: Any, part: str) -> list[Steps]:
    """The steps of every pipeline that a training, or a ``part`` of the evaluation, takes its images through."""
    from mmengine.registry import init_default_scope

    init_default_scope(settings.get("default_scope", "mmdet"))
    loader = settings.get(f"{part}_dataloader") or {}
    said = list(_of_dataset(loader.get("dataset"), f"{part}_dataloader.dataset"))
    for i, hook in enumerate((settings.get("custom_hooks") or ()) if part == "train" else ()):
        if named(hook, "PipelineSwitchHook"):
            said.append((_numbered(hook.get("switch_pipeline"), f"custom_hooks[{i}].switch_pipeline"), ""))
    return [_built(steps, unknown) for steps, unknown in said] or [Steps()]


def _numbered(steps: Any, path: str) -> _Said:
    return [(step, f"{path}[{i}]") for i, step in enumerate(steps or ())]


def _of_dataset(dataset: Any, path: str) -> Iterator[tuple[_Said, str]]:
    """The steps that an image goes through: the inner data set's, then those of what is around it."""
    if not isinstance(dataset, Mapping):
        return
    inner = [(one, f"{path}.datasets[{i}]") for i, one in enumerate(dataset.get("datasets") or ())]
    inner = inner or [(dataset.get("dataset"), f"{path}.dataset")]
    outer, unknown = _pipeline(dataset, path)
    found = [one for each, at in inner for one in _of_dataset(each, at)] or [([], "")]
    for steps, why in found:
        yield [*steps, *outer], why or unknown


def _pipeline(dataset: Mapping[str, Any], path: str) -> tuple[_Said, str]:
    from mmengine.registry import DATASETS

    kind = dataset.get("type")
    with runtime.quiet():
        known = DATASETS.get(kind) if isinstance(kind, str) else kind
    steps = _numbered(dataset.get("pipeline"), f"{path}.pipeline")
    if not inspect.isclass(known) or not issubclass(known, _base()):
        return steps, ""
    own = [name for name in _MAKES_IMAGES if not _owner(known, name).startswith(_OWN)]
    default = inspect.signature(known.__init__).parameters.get("pipeline")
    if "pipeline" not in dataset and default is not None and isinstance(default.default, list | tuple):
        steps = [(step, "") for step in default.default]
    return steps, f"the data set {known.__name__} has {' and '.join(own)} of its own" if own else ""


def _base() -> Any:
    from mmengine.dataset import BaseDataset

    return BaseDataset


def _owner(kind: type, name: str) -> str:
    return next((base.__module__ for base in kind.__mro__ if name in vars(base)), "mmengine.")


def _built(said: _Said, unknown: str) -> Steps:
    from mmdet.registry import TRANSFORMS

    built: list[Step] = []
    for step, path in ((inner, path) for one, path in said for inner in _flat(one)):
        known = _class(step)
        if known is None:
            return Steps(tuple(built), f"there is no transform {step.get('type')}")
        if not _matters(step):
            continue
        try:
            run = TRANSFORMS.build(_filtered(step)) if isinstance(step, Mapping) else step
        except Exception as error:  # whatever its constructor does
            return Steps(tuple(built), f"{known.__name__} cannot be built: {runtime.told(error)}")
        built.append(Step(run, _without(known, path)))
    return Steps(tuple(built), unknown)


def _without(kind: type, path: str) -> str:
    if not path:
        return f"Give the data set a pipeline without {kind.__name__}"
    if any(base.__name__ == _LOADS for base in kind.__mro__):
        return f"{path}: type={_LOADS!r}, imdecode_backend='cv2', color_type='color'"
    return f"{path.rpartition('[')[0]}: without {kind.__name__}"


def _class(step: Any) -> Any:
    from mmdet.registry import TRANSFORMS

    kind = step.get("type") if isinstance(step, Mapping) else type(step)
    return TRANSFORMS.get(kind) if isinstance(kind, str) else kind


def _matters(step: Any) -> bool:
    """Whether a step may change colours."""
    if named(step, *_CHOOSES):
        return any(_matters(one) for one in _inside(step))
    known = _class(step)
    if known is None or not known.__module__.startswith(_OWN) or known.__name__ in _COLOURS:
        return True
    if not named(step, _LOADS):
        return False
    backend, colour = step.get("imdecode_backend") or "cv2", str(step.get("color_type") or "color")
    return backend not in _ALIKE or not colour.startswith("color")


def _inside(step: Mapping[str, Any]) -> Iterator[Any]:
    for one in step.get("transforms") or ():
        yield from one if isinstance(one, list | tuple) else [one]


def _filtered(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step without what only moves images inside of it."""
    found = dict(step)
    if named(step, *_CHOOSES):
        found["transforms"] = [
            [_filtered(one) for one in part if _matters(one)] if isinstance(part, list | tuple) else _filtered(part)
            for part in step.get("transforms") or ()
            if isinstance(part, list | tuple) or _matters(part)
        ]
    return found


def _flat(step: Any) -> Iterator[Any]:
    """A step, or those that it is made of, as mmcv's `TransformBroadcaster` is."""
    inside = step.get("transforms") if isinstance(step, Mapping) and not named(step, *_CHOOSES) else None
    if isinstance(inside, list | tuple):
        for one in inside:
            yield from _flat(one) if isinstance(one, Mapping) else ()
    else:
        yield step
