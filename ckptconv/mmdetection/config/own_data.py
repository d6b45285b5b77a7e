"""The data set of a config: its files and the classes in them. Imports no torch.

Classes are in the order of the file, because MMDetection numbers categories in that order, whatever their ids are and
however a config sorts their names: `CocoDataset.load_data_list`, mmdet/datasets/coco.py 3.3.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from ckptconv.arguments import argument
from ckptconv.errors import UsageError, printable
from ckptconv.mmdetection.coco_file import NO_MASK, CocoFile, read
from ckptconv.mmdetection.config.data_files import (
    DataFile,
    common_folder,
    folder_text,
    named_part,
    other_layout,
    relative_to,
    user_path,
)
from ckptconv.mmdetection.config.detectors import Detector, value_at
from ckptconv.mmdetection.config.options import Choices
from ckptconv.small_file import is_file
from ckptconv.text import some

_WITHOUT_MASKS = {"mask-rcnn": "faster-rcnn", "mask-rcnn-c4": "faster-rcnn", "cascade-mask-rcnn": "cascade-rcnn"}


@dataclass(frozen=True)
class DataSplit:
    """An annotation file and the folder of its images, below the data set's root or absolute."""

    ann: str
    images: str


@dataclass(frozen=True)
class Data:
    """The data set of a config.

    ``root``: '' for paths from the current folder; None for the base's own. ``parts``: 'train' and 'val', if they are
    not the base's own. ``classes``: likewise, in the order of the file. ``notes``: what the user should know.
    """

    root: str | None = None
    parts: Mapping[str, DataSplit] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def examine(choices: Choices, detector: Detector) -> Data:
    """The data set that is asked for, with the classes of its files.

    Raises UsageError for files that do not exist if no classes are given, and for options that contradict the files;
    UnreadableError for a file that is not in COCO's format.
    """
    notes: list[str] = []
    root = None if choices.data_root is None else user_path(choices.data_root)
    if choices.own_data:
        _require_one_data_set(choices, detector)
        seen = {part: named_part(part, root, choices, detector, notes) for part in ("train", "val")}
    elif root is not None and detector.files:
        seen = _usual(root, choices, detector, notes)
    else:
        seen = {}
    classes = _classes(choices, detector, seen, notes)
    if "train" in seen:
        _require_masks(detector, seen["train"])
    if not choices.own_data:
        return Data(None if root is None else folder_text(root), {}, classes, tuple(notes))
    root = common_folder(seen.values()) if root is None else root
    parts = {
        part: DataSplit(str(relative_to(one.ann, root)), folder_text(relative_to(one.images, root)))
        for part, one in seen.items()
    }
    return Data(folder_text(root), parts, classes, tuple(notes))


def _usual(root: Path, choices: Choices, detector: Detector, notes: list[str]) -> dict[str, DataFile]:
    """The base's own file names below a root, which may be on another machine."""
    seen = {part: DataFile(root / ann, root / images) for part, (ann, images) in detector.files.items()}
    here = {part: one for part, one in seen.items() if is_file(one.ann)}
    missing = next((one.ann for part, one in seen.items() if part not in here), None)
    if missing is not None:
        options = other_layout(root)
        if options:
            raise UsageError(
                f"there is no {missing}",
                f"The data set has another layout: {argument('data_root', root)} {options}",
            )
        what = "it" if here else "the data set"
        notes.append(f"there is no {missing} here, so {what} is not checked")
    quick = "val" in here and not choices.classes and choices.num_classes is None
    if quick and _usual_classes(_names(read(here["val"].ann)), detector):
        return {}  # COCO's training set alone takes seconds to read
    return {part: DataFile(one.ann, one.images, read(one.ann)) for part, one in here.items()}


# The classes


def _names(file: CocoFile) -> tuple[str, ...]:
    return tuple(category.name for category in file.categories)


def _own_classes(detector: Detector) -> tuple[str, ...] | None:
    """The classes of a base's data set; None for those of the data set's Python class."""
    path = next(iter(detector.datasets), "")
    classes = value_at(detector.found, f"{path}.metainfo.classes") if "[" not in path else None
    return tuple(classes) if isinstance(classes, list | tuple) else None


def _usual_classes(names: tuple[str, ...], detector: Detector) -> bool:
    """Whether the base has these classes already: its own, or COCO's, which are those of the data set's class."""
    own = _own_classes(detector)
    return names == own or (own is None and len(names) == 80 and (names[0], names[-1]) == ("person", "toothbrush"))


def _classes(choices: Choices, detector: Detector, seen: Mapping[str, DataFile], notes: list[str]) -> tuple[str, ...]:
    files = [one.file for one in seen.values() if one.file is not None]
    if choices.num_classes is not None and not choices.classes:
        _require_number(choices.num_classes, detector, files[0] if files else None)
    if not files:
        return choices.classes
    first, names = files[0], _names(files[0])
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice or not names:
        what = f"two categories '{twice[0]}'" if twice else "no categories"
        raise UsageError(f"{first.path} has {what}", "Give each category its own name.")
    by_words = {" ".join(name.split()): name for name in names}  # a list of classes is read without extra spaces
    wanted = tuple(name if name in names else by_words.get(name, name) for name in choices.classes)
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
                "file separately",
                "Write the same list of categories into both files.",
            )
    if choices.classes:
        if classes != wanted:
            notes.append(f"the classes are written in the order of {first.path}, in which MMDetection numbers them")
        return classes
    _note_empty(first, notes)
    return () if _usual_classes(classes, detector) else classes


def _note_empty(file: CocoFile, notes: list[str]) -> None:
    """Note classes without annotations, such as the supercategory at the start of Roboflow's exports."""
    used = {annotation.category_id for annotation in file.annotations}
    empty = [category.name for category in file.categories if category.id not in used]
    others = [category.name for category in file.categories if category.id in used]
    if empty and others:
        notes.append(
            f"no annotation of {file.path} is of {some(map(repr, empty), 3)}: it is still a class of the detector. "
            f"Without it: {_option(others)}"
        )


def _option(names: Iterable[str]) -> str:
    """The names as an option; as a file if a name has a comma or extra spaces."""
    names = list(names)
    if any("," in name or name != " ".join(name.split()) for name in names):
        return f"{argument('classes', 'FILE')} with one name on each line"
    return argument("classes", tuple(names))


def _require_number(number: int, detector: Detector, file: CocoFile | None) -> None:
    if file is not None:
        raise UsageError(
            f"{argument('num_classes', number)} does not say which classes, and {file.path} has {len(file.categories)}",
            f"Leave it out for all of them, or name them: {_option(_names(file))}",
            "num_classes",
        )
    own = _own_classes(detector)
    if number != (80 if own is None else len(own)):
        raise UsageError(
            f"{argument('num_classes', number)} does not say which classes: MMDetection would use the base's own",
            f"Name them: {argument('classes', ('a', 'b', 'c'))} or a file with one name on each line; or give "
            f"{argument('train_ann')} and {argument('val_ann')}, which have them.",
            "num_classes",
        )


def _require_masks(detector: Detector, train: DataFile) -> None:
    if train.file is None or not train.file.annotations or not detector.masks:
        return
    if all(annotation.segmentation == NO_MASK for annotation in train.file.annotations):
        other = _WITHOUT_MASKS.get(detector.name)
        raise UsageError(
            f"{train.ann} has boxes and no masks, and {detector.title} trains masks",
            f"Choose a detector of boxes: {argument('detector', other)}"
            if other
            else "Choose a base without a mask head.",
        )


def _require_one_data_set(choices: Choices, detector: Detector) -> None:
    for part in ("train", "val"):
        if part not in detector.files:
            raise UsageError(
                f"{choices.base} cannot take {argument(f'{part}_ann')}: "
                f"its {part}_dataloader does not have exactly one data set with one file",
                "Write it into the config yourself.",
                f"{part}_ann",
            )
    for path in detector.datasets:
        kind = str(value_at(detector.found, f"{path}.type", "CocoDataset")).rpartition(".")[2]
        if kind != "CocoDataset" and "[" not in path:
            raise UsageError(
                f"{choices.base} reads its data set with {kind}, and {argument('train_ann')} is a file in "
                "COCO's format",
                "Choose a base with CocoDataset, such as mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
                "train_ann",
            )
