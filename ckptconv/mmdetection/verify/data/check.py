"""A resolved config and its files -> findings. It reads annotation files and lists folders of images; nothing else."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ckptconv.mmdetection.coco_file import CocoFile, no_collection, read
from ckptconv.mmdetection.config.detectors import value_at
from ckptconv.mmdetection.verify.data import classes, commands, dataset, evaluator, images, remaining
from ckptconv.mmdetection.verify.data.dataset import Fault, Loaded
from ckptconv.mmdetection.verify.data.datasets import Evaluator, Said, datasets, evaluators
from ckptconv.mmdetection.verify.data.findings import Findings
from ckptconv.small_file import is_file
from ckptconv.text import some

_LONG = 20 << 20  # bytes of a file that takes a second to read
Trained = tuple[Said, CocoFile, Loaded]


def check(
    config: Mapping[str, Any],
    parts: Sequence[str] = ("train", "val"),
    first: int | None = None,
    stage: Callable[[str], None] = lambda _: None,
) -> Findings:
    """Whether a config and its data go together, with the ``first`` images of each part if not with all.

    Nothing is found where no annotation file is there: the data may be on another machine. Raises UnreadableError for
    a file that is not in COCO's format.
    """
    with no_collection():
        return _Check(config, first, stage).all(parts)


class _Check:
    def __init__(self, config: Mapping[str, Any], first: int | None, stage: Callable[[str], None]) -> None:
        self._config, self._first, self._stage = config, first, stage
        self._files: dict[str, CocoFile | None] = {}
        self._told: set[tuple[str, str]] = set()
        self._found = Findings()

    def all(self, parts: Sequence[str]) -> Findings:
        said = {part: list(datasets(self._config, part)) for part in parts}
        known = [s for several in said.values() for s in several if isinstance(s, Said)]
        judges = list(evaluators(self._config))
        if not any(map(is_file, [s.ann_file for s in known] + [judge.ann_file for judge in judges])):
            return self._found
        for unknown in (u for several in said.values() for u in several if not isinstance(u, Said)):
            if unknown.hint:
                self._found.problem(unknown.why, unknown.hint)
            else:
                self._found.note(f"{unknown.where} is not checked: {unknown.why}")
        loaded = {part: [self._load(s) for s in several if isinstance(s, Said)] for part, several in said.items()}
        tested = [t for t in loaded["val"] if t is not None]
        if tested and len(tested) == len(said["val"]):
            self._judge([t for t in loaded.get("train", []) if t is not None], tested, judges)
        return self._found

    # The files

    def _file(self, path: str, where: str) -> CocoFile | None:
        """A file whose entries have ids, read once."""
        if path not in self._files:
            self._files[path] = self._read(path, where)
        return self._files[path]

    def _read(self, path: str, where: str) -> CocoFile | None:
        if not is_file(path):
            self._found.problem(f"{where}.ann_file is not there: {path}", "Check data_root and ann_file.")
            return None
        if Path(path).stat().st_size > _LONG:
            self._stage(f"data: {path} is read")
        coco = read(path)
        faults = dataset.identified(coco)
        if self._first is not None and not faults:
            if len({isinstance(image.id, str) for image in coco.images}) > 1:
                faults = (Fault(dataset.MIXED.format("image"), len(coco.images), ""),)
            else:
                coco = _beginning(coco, self._first)
        for fault in faults:
            self._fault(path, fault)
        return None if faults else coco

    def _fault(self, path: str, fault: Fault) -> None:
        if (path, fault.what) in self._told:
            return  # by another reader of the same file
        self._told.add((path, fault.what))
        if not fault.first:
            self._found.problem(f"{path}: {fault.what}", "Give all of them numbers, or export the data set again.")
            return
        noun = fault.first.partition("[")[0]
        entries = f"{fault.entries:,} {noun} have" if fault.entries > 1 else f"1 of the {noun} has"
        hint = _HINTS.get(fault.what, "Correct or remove them, or export the data set again.")
        first = f": {fault.first}" if fault.entries == 1 else f", the first of them {fault.first}"
        self._found.problem(f"{path}: {entries} {fault.what}{first}", hint(path) if callable(hint) else hint)

    # A data set

    def _load(self, said: Said) -> Trained | None:
        coco = self._file(said.ann_file, said.where)
        if coco is None:
            return None
        if said.images is None:
            self._found.problem(
                f"{said.where}.data_prefix does not say where the images are",
                f"Set {said.where}.data_prefix = dict(img='…').",
            )
        loaded = dataset.load(said, coco)
        for fault in loaded.faults:
            self._fault(coco.path, fault)
        if said.where.startswith("train_") and not loaded.faults:
            remaining.left(said, coco, loaded, self._found)
        if loaded.lost:
            self._found.problem(
                f"{loaded.lost:,} of {said.where}.indices are beyond the images of {coco.path}",
                f"Leave {said.where}.indices out.",
            )
        remaining.odd(said, coco, loaded, self._found)
        if said.images is not None and said.here:
            self._images(said, loaded)
        return said, coco, loaded

    def _images(self, said: Said, loaded: Loaded) -> None:
        assert said.images is not None
        join = os.path.join
        names = {join(said.images, i.file_name): i.file_name for i in loaded.images if isinstance(i.file_name, str)}
        gone = images.missing(list(names))
        if not gone:
            return
        hint = f"Check {said.where}.data_prefix, or copy them there."
        root = Path(said.ann_file).parent
        if len(gone) == len(names) and is_file(root / names[gone[0]]):
            prefix = f"{root.absolute()}/"
            hint = f"They are beside the annotations: set {said.where}.data_prefix = dict(img={prefix!r})."
        self._found.problem(
            f"{len(gone):,} of the {len(names):,} images of {said.ann_file} are not in {said.images}: "
            f"{some((names[path] for path in gone), 3)}",
            hint,
        )

    # All of them together

    def _judge(self, trained: Sequence[Trained], tested: Sequence[Trained], judges: Sequence[Evaluator]) -> None:
        names = [(coco.path, [c.name for c in loaded.labels]) for _, coco, loaded in trained]
        truth, path = None, ""
        for judge in judges:
            path = judge.ann_file if self._first is None else tested[0][0].ann_file  # which is cut to the first, too
            coco = self._file(path, judge.where)
            if coco is None:
                continue
            truth = self._truth(coco, judge, tested[0][0])
            self._same_images(coco, judge.where, truth, tested)
            names.append((path, [c.name for c in truth.labels]))
        classes.same_labels(names, self._found)
        classes.numbers(value_at(self._config, "model", {}), trained, truth, path, self._found)

    def _truth(self, coco: CocoFile, judge: Evaluator, said: Said) -> evaluator.Truth:
        truth = evaluator.truth(coco, said.classes, judge.masks)
        for fault in truth.faults:
            self._fault(coco.path, fault)
        if not truth.labels:
            self._found.problem(*classes.no_class(said, coco))
        elif not truth.objects and not truth.faults:
            self._found.problem(
                f"{coco.path} has no annotation of a class that is not a crowd: there is no AP", "Annotate its images."
            )
        if truth.zero:
            self._found.note(f"{coco.path}: an annotation has the id 0, and COCOeval counts it as not found")
        return truth

    def _same_images(self, coco: CocoFile, where: str, truth: evaluator.Truth, tested: Sequence[Trained]) -> None:
        """Whether the images that are evaluated are those of the evaluator's file."""
        seen = [(image.id, image.file_name) for _, _, loaded in tested for image in loaded.images]
        counts = Counter(number for number, _ in seen)
        path, mine = tested[0][0].ann_file, tested[0][0].where
        lost = [number for number in counts if number not in truth.images]
        hint = f"Set {where}.ann_file = {path!r}." if len(tested) == 1 else "Give it one file of all of them."
        if lost:
            self._found.problem(
                f"{where} compares with {coco.path}, which lacks {len(lost):,} of the {len(counts):,} images of {path}",
                hint,
            )
        elif len(counts) < len(truth.images):
            filtered = path == coco.path
            self._found.problem(
                f"{where} compares with the {len(truth.images):,} images of {coco.path}, and {len(counts):,} are "
                "evaluated",
                f"Set {mine}.test_mode = True, and leave out its indices." if filtered else hint,
            )
        elif len(seen) > len(counts):
            self._found.problem(
                f"{len(seen) - len(counts):,} images of val_dataloader have the id of another one",
                "Give each image its own.",
            )
        elif 2 * evaluator.other_names(seen, coco) > len(seen):
            self._found.problem(
                f"{where} compares with {coco.path}, whose ids are those of other images than in {path}",
                hint,
            )


def _beginning(coco: CocoFile, count: int) -> CocoFile:
    """The first images by id, as `subset` writes them."""
    kept = tuple(sorted(coco.images, key=lambda image: image.id)[:count])
    numbers = {image.id for image in kept}
    return replace(coco, images=kept, annotations=tuple(a for a in coco.annotations if a.image_id in numbers))


def _fill_in(path: str) -> str:
    return f"Fill them in: {commands.areas(path)}"


_WITHOUT_MASKS = "Annotate masks, or take a detector of boxes: ckptconv emit-config CKPT --detector faster-rcnn"
_HINTS: Mapping[str, str | Callable[[str], str]] = {
    dataset.NO_AREA: _fill_in,
    evaluator.NO_ISCROWD: _fill_in,
    dataset.SAME_ID: lambda path: f"Number them: {commands.numbers(path)}",
    dataset.NO_SEGMENTATION: _WITHOUT_MASKS,
    dataset.NO_POLYGON: _WITHOUT_MASKS,
}
