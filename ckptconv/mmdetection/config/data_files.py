"""Finds a data set's annotation files and image folders, as a user names them. Imports no torch.

A file that does not exist is not read: a config may be written where the data are not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ckptconv.arguments import argument
from ckptconv.errors import UsageError
from ckptconv.mmdetection.coco_file import CocoFile, read
from ckptconv.mmdetection.config.detectors import Detector
from ckptconv.mmdetection.config.options import Choices
from ckptconv.small_file import is_file

_ANNOTATIONS = ("annotations", "annotation", "labels")
"""Names of a folder that holds no images."""


@dataclass(frozen=True)
class DataFile:
    """The annotation file and image folder of a part; ``file`` is None if the annotation file does not exist."""

    ann: Path
    images: Path
    file: CocoFile | None = None


def user_path(path: str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 (that of pathlib raises for a user who is not known)


def folder_text(path: Path) -> str:
    """A folder as MMDetection's configs write it; '' is the folder that paths are relative to."""
    return "" if path == Path() else f"{str(path).rstrip('/')}/"


def common_folder(parts: Iterable[DataFile]) -> Path:
    """The folder that holds all files; '.' if that is the current one, or if absolute and relative paths share none."""
    folders = [folder for one in parts for folder in (one.ann.parent, one.images)]
    return Path(os.path.commonpath(folders)) if len({folder.is_absolute() for folder in folders}) == 1 else Path()


def relative_to(path: Path, root: Path) -> Path:
    """A path relative to the root; absolute if it is elsewhere."""
    return path.relative_to(root) if path.is_relative_to(root) else path.absolute()


def _resolved(path: str, root: Path | None) -> Path:
    """A path that the user gave: below the root, or below the current folder if it only exists there."""
    own = user_path(path)
    below = own if root is None else root / own
    return own if os.path.lexists(own) and not os.path.lexists(below) else below


def named_part(part: str, root: Path | None, choices: Choices, detector: Detector, notes: list[str]) -> DataFile:
    """A part for which the user names files; a file that is not named is where it usually is."""
    named_ann, named_images = getattr(choices, f"{part}_ann"), getattr(choices, f"{part}_images")
    if named_ann is None and root is None:
        raise UsageError(
            f"{argument(f'{part}_ann')} is missing: MMDetection trains on one file and measures on another",
            f"Give {argument('train_ann', 'FILE.json')} and {argument('val_ann', 'FILE.json')}.",
            f"{part}_ann",
        )
    usual_ann, usual_images = detector.files[part]
    ann = _resolved(usual_ann if named_ann is None else named_ann, root)
    usual = [*([_resolved(usual_images, root)] if named_ann is None else []), *_image_folders(ann)]
    images = None if named_images is None else _resolved(named_images, root)
    if not is_file(ann):
        if not choices.classes:
            raise UsageError(
                f"there is no {ann}, and its classes are not given",
                f"Give the file: {argument(f'{part}_ann', 'FILE.json')}. For data on another machine, give "
                f"{argument('classes', ('a', 'b', 'c'))}, too.",
            )
        notes.append(f"there is no {ann} here, so it is not checked")
        return DataFile(ann, images or usual[0])
    file = read(ann)
    first = next((str(image.file_name) for image in file.images), "")
    if images is None:
        images = next((folder for folder in usual if is_file(folder / first)), None)
        if images is None and not choices.classes:
            raise UsageError(
                f"cannot find the images of {ann}: there is no {usual[0] / first}",
                f"Say where they are: --{part}-images DIR",
            )
        return DataFile(ann, images or usual[0], file)
    if not is_file(images / first) and not (choices.classes and not os.path.lexists(images)):
        raise UsageError(
            f"there is no {images / first}, the first image of {ann}",
            f"Give the folder from which the file_name of its images is seen: --{part}-images DIR",
        )
    return DataFile(ann, images, file)


def _image_folders(ann: Path) -> list[Path]:
    """Where the images of an annotation file usually are: as in COCO's layout, or beside it."""
    folder, name = ann.parent, ann.stem.removeprefix("instances_")
    if folder.name.lower() not in _ANNOTATIONS:
        return [folder]
    above = folder.parent
    return [above / name, above / "images" / name, above / "images", above]


def other_layout(root: Path) -> str:
    """The options for the only pair of annotation files below a root; '' if there are other files."""
    with contextlib.suppress(OSError, ValueError):  # the root may not be a valid name
        files = [path.relative_to(root) for glob in ("*.json", "*/*.json") for path in root.glob(glob)]
        train = _only(path for path in files if "train" in str(path).lower())
        others = [path for path in files if "train" not in str(path).lower()]
        val = next(filter(None, (_only(p for p in others if word in str(p).lower()) for word in ("val", "test"))), None)
        if train and val:
            return f"{argument('train_ann', train)} {argument('val_ann', val)}"
    return ""


def _only(paths: Iterable[Path]) -> Path | None:
    """The only path; of several the only one whose name is that of COCO's boxes."""
    found = list(paths)
    boxes = [path for path in found if path.stem.startswith("instances")]
    return next((some_[0] for some_ in (found, boxes) if len(some_) == 1), None)
