"""A resolved config and its files -> findings. Reads annotation files and lists folders of images; nothing else."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ckptconv.mmdetection.coco_file import CocoFile, no_collection, read
from ckptconv.mmdetection.config.detectors import value_at
from ckptconv.mmdetection.verify.data import class_findings, coco_dataset, commands, ground_truth, images, remaining
from ckptconv.mmdetection.verify.data.coco_dataset import Fault, LoadedDataset
from ckptconv.mmdetection.verify.data.dataset_configs import DatasetConfig, EvaluatorConfig, datasets, evaluators
from ckptconv.mmdetection.verify.data.findings import DataFindings
from ckptconv.small_file import is_file
from ckptconv.text import some

_LARGE = 20_000_000  # bytes of a file that takes a second to read
Part = tuple[DatasetConfig, CocoFile, LoadedDataset]


def check_data(
    config: Mapping[str, Any],
    parts: Sequence[str] = ("train", "val"),
    first: int | None = None,
    stage: Callable[[str], None] = lambda _: None,
) -> DataFindings:
    """Whether a config and its data fit together; of each part only the ``first`` images, if that is given.

    Without any annotation file there are no findings: the data may be on another machine. Raises UnreadableError for a
    file that is not in COCO's format.
    """
    with no_collection():
        return _Check(config, first, stage).all(parts)


class _Check:
    def __init__(self, config: Mapping[str, Any], first: int | None, stage: Callable[[str], None]) -> None:
        self._config, self._first, self._stage = config, first, stage
        self._files: dict[str, CocoFile | None] = {}
        self._reported: set[tuple[str, str]] = set()
        self._findings = DataFindings()

    def all(self, parts: Sequence[str]) -> DataFindings:
        configs = {part: list(datasets(self._config, part)) for part in parts}
        known = [config for several in configs.values() for config in several if isinstance(config, DatasetConfig)]
        judges = list(evaluators(self._config))
        if not any(map(is_file, [config.ann_file for config in known] + [judge.ann_file for judge in judges])):
            return self._findings
        for unknown in (u for several in configs.values() for u in several if not isinstance(u, DatasetConfig)):
            if unknown.hint:
                self._findings.problem(unknown.why, unknown.hint)
            else:
                self._findings.note(f"{unknown.where} is not checked: {unknown.why}")
        loaded = {
            part: [self._load(config) for config in several if isinstance(config, DatasetConfig)]
            for part, several in configs.items()
        }
        tested = [t for t in loaded["val"] if t is not None]
        if tested and len(tested) == len(configs["val"]):
            self._judge([t for t in loaded.get("train", []) if t is not None], tested, judges)
        return self._findings

    # The files

    def _file(self, path: str, where: str) -> CocoFile | None:
        """The file, read once; None if it cannot be used, which is then a finding."""
        if path not in self._files:
            self._files[path] = self._read(path, where)
        return self._files[path]

    def _read(self, path: str, where: str) -> CocoFile | None:
        if not is_file(path):
            self._findings.problem(f"{where}.ann_file does not exist: {path}", "Check data_root and ann_file.")
            return None
        if Path(path).stat().st_size > _LARGE:
            self._stage(f"data: reading {path}")
        coco = read(path)
        faults = coco_dataset.identified(coco)
        if self._first is not None and not faults:
            if len({isinstance(image.id, str) for image in coco.images}) > 1:
                faults = (Fault(coco_dataset.MIXED.format("image"), len(coco.images), ""),)
            else:
                coco = _first_images(coco, self._first)
        for fault in faults:
            self._fault(path, fault)
        return None if faults else coco

    def _fault(self, path: str, fault: Fault) -> None:
        if (path, fault.what) in self._reported:
            return  # of another reader of the same file
        self._reported.add((path, fault.what))
        if not fault.first:
            self._findings.problem(
                f"{path}: {fault.what}", "Use numbers for all of them, or export the data set again."
            )
            return
        noun = fault.first.partition("[")[0]
        entries = f"{fault.entries:,} {noun} have" if fault.entries > 1 else f"1 of the {noun} has"
        hint = _HINTS.get(fault.what, "Correct or remove them, or export the data set again.")
        first = f": {fault.first}" if fault.entries == 1 else f"; the first is {fault.first}"
        self._findings.problem(f"{path}: {entries} {fault.what}{first}", hint(path) if callable(hint) else hint)

    # A data set

    def _load(self, dataset: DatasetConfig) -> Part | None:
        coco = self._file(dataset.ann_file, dataset.where)
        if coco is None:
            return None
        if dataset.images is None:
            self._findings.problem(
                f"{dataset.where}.data_prefix has no img",
                f"Set {dataset.where}.data_prefix = dict(img='…').",
            )
        loaded = coco_dataset.load(dataset, coco)
        for fault in loaded.faults:
            self._fault(coco.path, fault)
        if dataset.where.startswith("train_") and not loaded.faults:
            remaining.require_objects(dataset, coco, loaded, self._findings)
        if loaded.out_of_range:
            self._findings.problem(
                f"{loaded.out_of_range:,} of {dataset.where}.indices are out of range for the images of {coco.path}",
                f"Leave {dataset.where}.indices out.",
            )
        remaining.note_unusual(dataset, coco, loaded, self._findings)
        if dataset.images is not None and dataset.here:
            self._images(dataset, loaded)
        return dataset, coco, loaded

    def _images(self, dataset: DatasetConfig, loaded: LoadedDataset) -> None:
        assert dataset.images is not None
        join = os.path.join
        names = {join(dataset.images, i.file_name): i.file_name for i in loaded.images if isinstance(i.file_name, str)}
        missing = images.missing(list(names))
        if not missing:
            return
        hint = f"Check {dataset.where}.data_prefix, or copy them there."
        root = Path(dataset.ann_file).parent
        if len(missing) == len(names) and is_file(root / names[missing[0]]):
            prefix = f"{root.absolute()}/"
            hint = f"They are next to the annotations: set {dataset.where}.data_prefix = dict(img={prefix!r})."
        self._findings.problem(
            f"{len(missing):,} of the {len(names):,} images of {dataset.ann_file} are not in {dataset.images}: "
            f"{some((names[path] for path in missing), 3)}",
            hint,
        )

    # All data sets together

    def _judge(self, trained: Sequence[Part], tested: Sequence[Part], judges: Sequence[EvaluatorConfig]) -> None:
        names = [(coco.path, [c.name for c in loaded.labels]) for _, coco, loaded in trained]
        truth, path = None, ""
        for judge in judges:
            path = (
                judge.ann_file if self._first is None else tested[0][0].ann_file
            )  # whose file holds the first images, too
            coco = self._file(path, judge.where)
            if coco is None:
                continue
            truth = self._truth(coco, judge, tested[0][0])
            self._same_images(coco, judge.where, truth, tested)
            names.append((path, [c.name for c in truth.labels]))
        class_findings.same_labels(names, self._findings)
        class_findings.head_sizes(value_at(self._config, "model", {}), trained, truth, path, self._findings)

    def _truth(self, coco: CocoFile, judge: EvaluatorConfig, dataset: DatasetConfig) -> ground_truth.GroundTruth:
        truth = ground_truth.ground_truth(coco, dataset.classes, judge.masks)
        for fault in truth.faults:
            self._fault(coco.path, fault)
        if not truth.labels:
            self._findings.problem(*class_findings.no_class(dataset, coco))
        elif not truth.objects and not truth.faults:
            self._findings.problem(
                f"{coco.path} has no annotation of a class, except crowds: there is no AP", "Annotate its images."
            )
        if truth.zero:
            self._findings.note(f"{coco.path}: an annotation has the id 0, and COCOeval counts its object as missed")
        return truth

    def _same_images(self, coco: CocoFile, where: str, truth: ground_truth.GroundTruth, tested: Sequence[Part]) -> None:
        """Whether the images that are evaluated are those of the evaluator's file."""
        evaluated = [(image.id, image.file_name) for _, _, loaded in tested for image in loaded.images]
        counts = Counter(number for number, _ in evaluated)
        path, mine = tested[0][0].ann_file, tested[0][0].where
        missing = [number for number in counts if number not in truth.images]
        hint = f"Set {where}.ann_file = {path!r}." if len(tested) == 1 else "Give it one file with all images."
        if missing:
            self._findings.problem(
                f"{where} uses {coco.path}, which does not have {len(missing):,} of the {len(counts):,} images of "
                f"{path}",
                hint,
            )
        elif len(counts) < len(truth.images):
            filtered = path == coco.path
            self._findings.problem(
                f"{where} uses the {len(truth.images):,} images of {coco.path}, and only {len(counts):,} are evaluated",
                f"Set {mine}.test_mode = True, and leave out its indices." if filtered else hint,
            )
        elif len(evaluated) > len(counts):
            self._findings.problem(
                f"{len(evaluated) - len(counts):,} images of val_dataloader have the same id as another image",
                "Give each image its own id.",
            )
        elif 2 * ground_truth.other_names(evaluated, coco) > len(evaluated):
            self._findings.problem(
                f"{where} uses {coco.path}, where the same ids belong to other images than in {path}",
                hint,
            )


def _first_images(coco: CocoFile, count: int) -> CocoFile:
    """The first images by id, as `subset` writes them."""
    images = tuple(sorted(coco.images, key=lambda image: image.id)[:count])
    numbers = {image.id for image in images}
    return replace(coco, images=images, annotations=tuple(a for a in coco.annotations if a.image_id in numbers))


def _fill_in(path: str) -> str:
    return f"Fill them in: {commands.areas(path)}"


_WITHOUT_MASKS = (
    "Annotate masks, or use a detector without masks: `ckptconv.emit_config('CKPT', detector='faster-rcnn')`"
)
_HINTS: Mapping[str, str | Callable[[str], str]] = {
    coco_dataset.NO_AREA: _fill_in,
    ground_truth.NO_ISCROWD: _fill_in,
    coco_dataset.SAME_ID: lambda path: f"Number them: {commands.numbers(path)}",
    coco_dataset.NO_SEGMENTATION: _WITHOUT_MASKS,
    coco_dataset.NO_POLYGON: _WITHOUT_MASKS,
}
