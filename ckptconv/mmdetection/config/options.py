"""What a user may choose of a config, checked as it comes in. Imports no torch."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptconv.arguments import argument
from ckptconv.errors import UsageError, unknown
from ckptconv.mmdetection.config.detectors import DETECTORS, SCHEDULES, DetectorName, ScheduleName
from ckptconv.small_file import is_file

STYLES = ("inherit", "flat")
_SYNCED = (
    "Batch norm trains, with statistics over all GPUs: those of one GPU's few images are poor, and features learnt "
    "without labels are not scaled as an ImageNet classifier's are (MoCo, arXiv:1911.05722, section 4.2)."
)
NORMS: Mapping[str, tuple[Mapping[str, Any], bool, str]] = {
    "SyncBN": (
        {"type": "SyncBN", "requires_grad": True},
        False,
        _SYNCED,
    ),
    "BN": (
        {"type": "BN", "requires_grad": True},
        False,
        "Batch norm trains, each GPU with the statistics of its own few images; SyncBN is what MMDetection's rows use.",
    ),
    "frozen": (
        {"type": "BN", "requires_grad": False},
        True,
        "Batch norm keeps the statistics of the pretraining; without labels these suit a detector less than SyncBN.",
    ),
}
"""For each choice of ``norm``: norm_cfg, norm_eval, and why."""

_DATA = {
    "train_ann": "a file in COCO's format",
    "val_ann": "a file in COCO's format",
    "train_images": "a folder of images",
    "val_images": "a folder of images",
}


@dataclass(frozen=True)
class Choices:
    """What a user may choose. None is the recipe's own value: of the schedule, the detector or MMDetection's base.

    ``base`` is a config to stand on instead of a detector and a schedule: 'mmdet::…' or a path.
    ``classes`` are the names of the data set's classes. ``train_ann`` and ``val_ann`` are files in COCO's format,
    ``train_images`` and ``val_images`` folders: below ``data_root``, or from the current folder.
    ``freeze`` is how much of the backbone is not trained: 'all', 'none', or a number of blocks or stages with the
    embeddings or the stem before them. ``batch_size`` is images a GPU. ``mean`` and ``std`` are those of the pixels, a
    number for each channel in the order of the file, or one for all.
    """

    detector: DetectorName = "mask-rcnn"
    schedule: ScheduleName = "1x"
    style: str = "inherit"
    base: str | None = None
    frozen_stages: int | None = None
    freeze: str | None = None
    norm: str = "SyncBN"
    num_classes: int | None = None
    classes: tuple[str, ...] = ()
    data_root: str | None = None
    train_ann: str | None = None
    val_ann: str | None = None
    train_images: str | None = None
    val_images: str | None = None
    batch_size: int | None = None
    gpus: int | None = None
    amp: bool = False
    guard: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for what, name, table in (
            ("detector", self.detector, DETECTORS),
            ("schedule", self.schedule, SCHEDULES),
            ("style", self.style, STYLES),
            ("norm", self.norm, NORMS),
        ):
            if name not in table:
                raise unknown(what, name, table)
        for parameter, value, least in (
            ("num_classes", self.num_classes, 1),
            ("batch_size", self.batch_size, 1),
            ("gpus", self.gpus, 1),
            ("frozen_stages", self.frozen_stages, -1),
        ):
            if value is not None and value < least:
                raise UsageError(f"{argument(parameter, value)} makes no sense", f"Give {least} or more.", parameter)
        if self.frozen_stages is not None and self.frozen_stages > 4:
            frozen = argument("frozen_stages", self.frozen_stages)
            raise UsageError(f"{frozen}: a ResNet has 4 stages", "Give -1 to 4.", "frozen_stages")
        if self.freeze is not None and self.freeze not in ("all", "none") and not self.freeze.isdecimal():
            raise UsageError(
                f"{argument('freeze', self.freeze)} is neither all, none nor a number of blocks",
                f"Such as {argument('freeze', 'all')} or {argument('freeze', '4')}",
                "freeze",
            )
        if self.freeze is not None and self.frozen_stages is not None:
            raise UsageError(
                f"{argument('freeze')} and {argument('frozen_stages')} say the same thing twice", "Give one.", "freeze"
            )
        if bool(self.mean) != bool(self.std):
            given, other = ("mean", "std") if self.mean else ("std", "mean")
            raise UsageError(f"{argument(given)} alone does not normalise", f"Give {argument(other)}, too.", given)
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std, default=1) <= 0:
            raise UsageError(
                f"{argument('mean')} and {argument('std')} cannot be those of pixels",
                f"Give finite numbers, and {argument('std')} above 0.",
            )
        for name, what in (("data_root", "the folder of the data set"), *_DATA.items()):
            if getattr(self, name) == "":
                raise UsageError(
                    f"{argument(name)} is empty",
                    f"Give {what}{'; . is the current folder' * ('folder' in what)}.",
                    name,
                )
        if self.classes and self.num_classes not in (None, len(self.classes)):
            raise UsageError(
                f"{argument('num_classes')} says {self.num_classes}, {argument('classes')} names {len(self.classes)}",
                f"Give {argument('classes')} alone.",
                "num_classes",
            )
        if len(set(self.classes)) != len(self.classes):
            raise UsageError(f"{argument('classes')} names a class twice", "Each class has one name.", "classes")

    @property
    def frozen(self) -> int | None:
        """``frozen_stages`` of a network of MMDetection or MMPretrain; None where nothing is said."""
        if self.freeze is None:
            return self.frozen_stages
        return {"none": -1, "all": 4}[self.freeze] if self.freeze in ("none", "all") else int(self.freeze)

    @property
    def own_data(self) -> bool:
        """Whether files of the data set are named, and not only its root."""
        return any(getattr(self, name) is not None for name in _DATA)


def choose(
    *,
    detector: str | None = None,
    schedule: str | None = None,
    classes: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    **others: Any,
) -> Choices:
    """Choices as a command line has them, where None is "not given". Raises UsageError for those that contradict."""
    named: dict[str, Any] = {
        key: value for key, value in (("detector", detector), ("schedule", schedule)) if value is not None
    }
    if others.get("base") is not None and named:
        raise UsageError(
            f"{argument('base')} is a whole config, and {argument(next(iter(named)))} would replace it",
            "Give one of the two.",
            "base",
        )
    for option, text in (("mean", mean), ("std", std)):
        if text is not None:
            named[option] = _numbers(option, text)
    return Choices(**named, classes=class_names(classes) if classes is not None else (), **others)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(
            f"{argument(option, text)} is not a list of numbers",
            f"Such as {argument(option, (0.5, 0.5, 0.5, 0.5))}",
            option,
        ) from None


def class_names(text: str) -> tuple[str, ...]:
    """Class names from ``a,b,c``, or from a file with one on each line. Raises UsageError for an empty list."""
    lines: Iterable[str] = text.split(",")
    with contextlib.suppress(OSError, ValueError):  # a list of names may be too long for a path
        if is_file(text):
            lines = _lines_of(Path(text))
    names = tuple(name for line in lines if (name := re.sub(r"\s+", " ", line).strip()))
    if not names:
        raise UsageError(
            f"{argument('classes', text)} names no class", "Give a,b,c or a file with one name on each line.", "classes"
        )
    return names


def _lines_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the class names in {path} cannot be read: {error}", "One name a line, in UTF-8.") from None
