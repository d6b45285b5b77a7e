"""The data set of a config: its files as a user names them, and the classes that they hold. Imports no torch.

A file that is not here is not looked into: a config may be written where the data are not. Classes stand in the order
of the file, for MMDetection numbers categories as they stand there, whatever their ids are and however a config sorts
their names: `CocoDataset.load_data_list`, mmdet/datasets/coco.py 3.3.0.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from ckptconv.arguments import argument
from ckptconv.errors import UsageError, printable
from ckptconv.mmdetection.coco_file import NO_MASK, CocoFile, read
from ckptconv.mmdetection.config.detectors import Detector, value_at
from ckptconv.mmdetection.config.options import Choices
from ckptconv.small_file import is_file
from ckptconv.text import some

_WITHOUT_MASKS = {"mask-rcnn": "faster-rcnn", "mask-rcnn-c4": "faster-rcnn", "cascade-mask-rcnn": "cascade-rcnn"}
_ANNOTATIONS = ("annotations", "annotation", "labels")
"""Names of a folder that holds no images."""


@dataclass(frozen=True)
class Part:
    """An annotation file and the folder of its images, below the data set's root or absolute."""

    ann: str
    images: str


@dataclass(frozen=True)
class Data:
    """What a config says of its data set.

    ``root``: '' for paths from the current folder; None for what the base says.
    ``parts``: of 'train' and 'val', where they are not the base's own. ``classes``: likewise, in the order of the file.
    ``notes``: what the user should know.
    """

    root: str | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Seen:
    """A part as it is seen from the current folder; ``file`` is None where it is not here."""

    ann: Path
    images: Path
    file: CocoFile | None = None


def examine(choices: Choices, detector: Detector) -> Data:
    """The data set that is asked for, and what its files say.

    Raises UsageError for files that are not here while nobody names the classes, and for what contradicts them;
    UnreadableError for a file that is not in COCO's format.
    """
    notes: list[str] = []
    root = None if choices.data_root is None else _user(choices.data_root)
    if choices.own_data:
        _require_one_data_set(choices, detector)
        seen = {part: _part(part, root, choices, detector, notes) for part in ("train", "val")}
    elif root is not None and detector.files:
        seen = _usual(root, choices, detector, notes)
    else:
        seen = {}
    classes = _classes(choices, detector, seen, notes)
    if "train" in seen:
        _require_masks(detector, seen["train"])
    if not choices.own_data:
        return Data(None if root is None else _folder(root), {}, classes, tuple(notes))
    root = _common(seen.values()) if root is None else root
    parts = {part: Part(str(_below(one.ann, root)), _folder(_below(one.images, root))) for part, one in seen.items()}
    return Data(_folder(root), parts, classes, tuple(notes))


# Where the files are


def _user(path: str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 (that of pathlib raises for a user who is not known)


def _folder(path: Path) -> str:
    """As MMDetection's configs write a folder; '' is the one that paths are seen from."""
    return "" if path == Path() else f"{str(path).rstrip('/')}/"


def _common(parts: Iterable[_Seen]) -> Path:
    """The folder that holds all files; '.' where that is the current one, or paths of two kinds have none."""
    folders = [folder for one in parts for folder in (one.ann.parent, one.images)]
    return Path(os.path.commonpath(folders)) if len({folder.is_absolute() for folder in folders}) == 1 else Path()


def _below(path: Path, root: Path) -> Path:
    """A path as it is named below the root; absolute where it is elsewhere."""
    return path.relative_to(root) if path.is_relative_to(root) else path.absolute()


def _meant(path: str, root: Path | None) -> Path:
    """A path of the user's, seen from the current folder: below the root, but for one that is here and not there."""
    said = _user(path)
    below = said if root is None else root / said
    return said if os.path.lexists(said) and not os.path.lexists(below) else below


def _part(part: str, root: Path | None, choices: Choices, detector: Detector, notes: list[str]) -> _Seen:
    """A part of which the user names files; what is not named is where it usually is."""
    ann_said, images_said = getattr(choices, f"{part}_ann"), getattr(choices, f"{part}_images")
    if ann_said is None and root is None:
        raise UsageError(
            f"{argument(f'{part}_ann')} is missing: MMDetection trains on one file and measures on another",
            f"Give {argument('train_ann', 'FILE.json')} and {argument('val_ann', 'FILE.json')}.",
            f"{part}_ann",
        )
    usual_ann, usual_images = detector.files[part]
    ann = _meant(usual_ann if ann_said is None else ann_said, root)
    usual = [*([_meant(usual_images, root)] if ann_said is None else []), *_folders(ann)]
    images = None if images_said is None else _meant(images_said, root)
    if not is_file(ann):
        if not choices.classes:
            raise UsageError(
                f"there is no {ann}, and nobody names its classes",
                f"Give the file: {argument(f'{part}_ann', 'FILE.json')}. For data on another machine, give "
                f"{argument('classes', ('a', 'b', 'c'))}, too.",
            )
        notes.append(f"there is no {ann} here: nothing of it is checked")
        return _Seen(ann, images or usual[0])
    file = read(ann)
    first = next((str(image.file_name) for image in file.images), "")
    if images is None:
        images = next((folder for folder in usual if is_file(folder / first)), None)
        if images is None and not choices.classes:
            raise UsageError(
                f"the images of {ann} are not found: there is no {usual[0] / first}",
                f"Say where they are: --{part}-images DIR",
            )
        return _Seen(ann, images or usual[0], file)
    if not is_file(images / first) and not (choices.classes and not os.path.lexists(images)):
        raise UsageError(
            f"there is no {images / first}, the first image of {ann}",
            f"Give the folder from which the file_name of its images is seen: --{part}-images DIR",
        )
    return _Seen(ann, images, file)


def _folders(ann: Path) -> list[Path]:
    """Where the images of an annotation file usually are: as in COCO's layout, or beside it."""
    folder, name = ann.parent, ann.stem.removeprefix("instances_")
    if folder.name.lower() not in _ANNOTATIONS:
        return [folder]
    above = folder.parent
    return [above / name, above / "images" / name, above / "images", above]


def _usual(root: Path, choices: Choices, detector: Detector, notes: list[str]) -> dict[str, _Seen]:
    """The base's own names below a root, which may be on another machine."""
    seen = {part: _Seen(root / ann, root / images) for part, (ann, images) in detector.files.items()}
    here = {part: one for part, one in seen.items() if is_file(one.ann)}
    missing = next((one.ann for part, one in seen.items() if part not in here), None)
    if missing is not None:
        options = _layout(root)
        if options:
            raise UsageError(
                f"there is no {missing}",
                f"The data set is laid out in another way: {argument('data_root', root)} {options}",
            )
        what = "nothing of it" if here else "nothing of the data set"
        notes.append(f"there is no {missing} here: {what} is checked")
    quick = "val" in here and not choices.classes and choices.num_classes is None
    if quick and _usual_classes(_names(read(here["val"].ann)), detector):
        return {}  # COCO's training set alone takes seconds to read
    return {part: _Seen(one.ann, one.images, read(one.ann)) for part, one in here.items()}


def _layout(root: Path) -> str:
    """The options for the only two annotation files below a root that can be meant; '' where there are others."""
    with contextlib.suppress(OSError, ValueError):  # of a root that cannot be a folder's name
        files = [path.relative_to(root) for glob in ("*.json", "*/*.json") for path in root.glob(glob)]
        train = _only(path for path in files if "train" in str(path).lower())
        others = [path for path in files if "train" not in str(path).lower()]
        val = next(filter(None, (_only(p for p in others if word in str(p).lower()) for word in ("val", "test"))), None)
        if train and val:
            return f"{argument('train_ann', train)} {argument('val_ann', val)}"
    return ""


def _only(paths: Iterable[Path]) -> Path | None:
    """The only path; of several the only one that COCO's name says to have boxes."""
    found = list(paths)
    boxes = [path for path in found if path.stem.startswith("instances")]
    return next((some_[0] for some_ in (found, boxes) if len(some_) == 1), None)


# What they say


def _names(file: CocoFile) -> tuple[str, ...]:
    return tuple(category.name for category in file.categories)


def _own_classes(detector: Detector) -> tuple[str, ...] | None:
    """The classes of a base's data set as it says them; None for those of its data set's class."""
    path = next(iter(detector.datasets), "")
    said = value_at(detector.found, f"{path}.metainfo.classes") if "[" not in path else None
    return tuple(said) if isinstance(said, list | tuple) else None


def _usual_classes(names: tuple[str, ...], detector: Detector) -> bool:
    """Whether the base has these classes already: as it says, or COCO's, as its data set's class says."""
    own = _own_classes(detector)
    return names == own or (own is None and len(names) == 80 and (names[0], names[-1]) == ("person", "toothbrush"))


def _classes(choices: Choices, detector: Detector, seen: Mapping[str, _Seen], notes: list[str]) -> tuple[str, ...]:
    files = [one.file for one in seen.values() if one.file is not None]
    if choices.num_classes is not None and not choices.classes:
        _require_number(choices.num_classes, detector, files[0] if files else None)
    if not files:
        return choices.classes
    first, names = files[0], _names(files[0])
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice or not names:
        what = f"two categories '{twice[0]}'" if twice else "no categories"
        raise UsageError(f"{first.path} has {what}", "Give each category a name of its own.")
    spoken = {" ".join(name.split()): name for name in names}  # as a list of classes is read
    wanted = tuple(name if name in names else spoken.get(name, name) for name in choices.classes)
    for name in wanted:
        if name not in names:
            near = get_close_matches(name, names, 3) or [n for n in names if n.lower() == name.lower()]
            hint = f"Did you mean {' or '.join(map(printable, near))}?" if near else f"It has {some(names, 20)}."
            raise UsageError(f"{first.path} has no category '{name}'", hint)
    classes = tuple(name for name in names if not wanted or name in wanted)
    for other in files[1:]:
        theirs = tuple(name for name in _names(other) if name in classes)
        if theirs != classes:
            lacks = [name for name in classes if name not in theirs]
            what = f"has no category '{lacks[0]}'" if lacks else "has its categories in another order"
            raise UsageError(
                f"{other.path} {what}, and {first.path} numbers them {some(classes, 5)}: MMDetection numbers each "
                "file's by itself",
                "Write the same list of categories into both files.",
            )
    if choices.classes:
        if classes != wanted:
            notes.append(f"the classes are written in the order of {first.path}, by which MMDetection numbers them")
        return classes
    _note_empty(first, notes)
    return () if _usual_classes(classes, detector) else classes


def _note_empty(file: CocoFile, notes: list[str]) -> None:
    """Classes that nothing teaches, such as the supercategory with which Roboflow's exports begin."""
    used = {annotation.category_id for annotation in file.annotations}
    empty = [category.name for category in file.categories if category.id not in used]
    others = [category.name for category in file.categories if category.id in used]
    if empty and others:
        notes.append(
            f"no annotation of {file.path} is of {some(map(repr, empty), 3)}: a class of the detector all the same. "
            f"Without it: {_option(others)}"
        )


def _option(names: Iterable[str]) -> str:
    """The names as an option, or what to do where a comma would cut one."""
    names = list(names)
    if any("," in name or name != " ".join(name.split()) for name in names):
        return f"{argument('classes', 'FILE')} with one name on each line"
    return argument("classes", tuple(names))


def _require_number(number: int, detector: Detector, file: CocoFile | None) -> None:
    if file is not None:
        raise UsageError(
            f"{argument('num_classes', number)} does not say which classes, and {file.path} has {len(file.categories)}",
            f"Leave it out for all of them, or name them: {_option(_names(file))}",
        )
    own = _own_classes(detector)
    if number != (80 if own is None else len(own)):
        raise UsageError(
            f"{argument('num_classes', number)} does not say which classes: MMDetection would look for the base's own",
            f"Name them: {argument('classes', ('a', 'b', 'c'))} or a file with one name on each line; or give "
            f"{argument('train_ann')} and {argument('val_ann')}, which have them.",
        )


def _require_masks(detector: Detector, train: _Seen) -> None:
    if train.file is None or not train.file.annotations or not detector.masks:
        return
    if all(annotation.segmentation == NO_MASK for annotation in train.file.annotations):
        other = _WITHOUT_MASKS.get(detector.name)
        raise UsageError(
            f"{train.ann} has boxes and no masks, and {detector.title} learns masks",
            f"Choose a detector of boxes: {argument('detector', other)}"
            if other
            else "Choose a base without a mask head.",
        )


def _require_one_data_set(choices: Choices, detector: Detector) -> None:
    for part in ("train", "val"):
        if part not in detector.files:
            raise UsageError(
                f"{choices.base} has no place for {argument(f'{part}_ann')}: "
                f"its {part}_dataloader has not one data set of one file",
                "Write it into the config yourself.",
            )
    for path in detector.datasets:
        kind = str(value_at(detector.found, f"{path}.type", "CocoDataset")).rpartition(".")[2]
        if kind != "CocoDataset" and "[" not in path:
            raise UsageError(
                f"{choices.base} reads its data set with {kind}, and {argument('train_ann')} is a file in "
                "COCO's format",
                "Choose a base with CocoDataset, such as mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
            )
