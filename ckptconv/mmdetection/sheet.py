"""What a config changes of its base, by dotted path, and the comment above each change. Pure; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptconv.methods.interface import IMAGENET
from ckptconv.mmdetection import literal
from ckptconv.mmdetection.choices import NORMS, Choices
from ckptconv.mmdetection.detectors import Detector, Schedule, among
from ckptconv.mmdetection.literal import Code
from ckptconv.mmdetection.networks import DEFAULTS
from ckptconv.mmdetection.pretrained import Pretrained

GUARD = "ckptconv.mmdetection.guard"
LOADER = "ckptconv.mmdetection.loader"


class Sheet:
    """What the config changes, by dotted path, and the comments above it."""

    def __init__(self, detector: Detector, found: Pretrained, choices: Choices) -> None:
        self._detector, self._found, self._choices = detector, found, choices
        self._changes: dict[str, Any] = {}
        self.notes: dict[literal.Path, str] = {}
        self.images: int | None = None
        self.lr: float | None = None

    def set(self, path: str, value: Any, note: str = "") -> None:
        self._changes[path] = value
        if note:
            self.notes[tuple(path.split("."))] = note

    def fill(self, schedule: Schedule | None) -> None:
        """Everything, in the order in which it will stand."""
        self._names()
        self._backbone(schedule)
        self._pixels()
        if schedule is not None:
            if schedule.synced:
                self._synced()
            self._schedule(schedule)
        self._classes_and_data()
        self._optimizer()
        self._imports()

    def _names(self) -> None:
        """Top-level names that later lines use."""
        if self._choices.data_root is not None:
            self.set("data_root", f"{self._choices.data_root.rstrip('/')}/")
        if self._choices.classes:
            self.set("metainfo", {"classes": self._choices.classes})

    def _backbone(self, schedule: Schedule | None) -> None:
        detector, choices, net = self._detector, self._choices, self._found.network
        at = "model.backbone"
        had = detector.backbone
        if had.get("type") not in ("ResNet", "ResNeXt"):
            kept = {key: had[key] for key in ("out_indices",) if key in had}
            self.set(f"{at}._delete_", True)
            had = {}
            for key, value in {**net.arguments, "num_stages": 4, **kept}.items():
                self.set(f"{at}.{key}", value)
        for key, value in net.arguments.items():
            if had and had.get(key, DEFAULTS[key]) != value:
                self.set(f"{at}.{key}", value)
        norm_cfg, norm_eval, why = NORMS[choices.norm]
        frozen = choices.frozen_stages
        if frozen is None:
            frozen = schedule.frozen_stages if schedule else 0
        self.set(
            f"{at}.frozen_stages",
            frozen,
            "-1 freezes nothing, 0 conv1 and bn1, 1 also layer1. MMDetection's rows use 0.",
        )
        self.set(f"{at}.norm_cfg", norm_cfg, why)
        self.set(f"{at}.norm_eval", norm_eval)
        self._init_cfg(at)
        for path, stages in detector.widths.items():
            width = among(net.channels, stages)
            if width != detector.width(path):
                self.set(path, width)
        if detector.shared_head:
            head = detector.shared_head
            if net.arguments["depth"] != detector.backbone.get("depth"):
                self.set(f"{head}.depth", net.arguments["depth"])
            if detector.backbone.get("style") == "caffe":
                self.set(f"{head}.style", "pytorch")
            self.set(f"{head}.norm_cfg", norm_cfg)
            self.set(f"{head}.norm_eval", norm_eval)
            self._init_cfg(head)

    def _init_cfg(self, module: str) -> None:
        if self._detector.prefixed:
            self.set(f"{module}.init_cfg._delete_", True)
        self.set(f"{module}.init_cfg.type", "Pretrained")
        self.set(f"{module}.init_cfg.checkpoint", self._found.path)

    def _pixels(self) -> None:
        pixels = self._found.pixels
        note = f"The pixels that {self._found.method} was trained with."
        if pixels is None:
            pixels, note = IMAGENET, f"{self._found.method} does not tell what pixels it was trained with: ImageNet's."
        if pixels != self._detector.pixels:
            at = "model.data_preprocessor"
            self.set(f"{at}.mean", list(pixels.mean), note)
            self.set(f"{at}.std", list(pixels.std))
            self.set(f"{at}.bgr_to_rgb", pixels.order == "RGB")

    def _synced(self) -> None:
        for path, value in self._detector.synced.items():
            self.set(path, value)
        if self._detector.synced_note:
            self.notes["model",] = self._detector.synced_note

    def _schedule(self, schedule: Schedule) -> None:
        detector = self._detector
        if schedule.resize is not None and detector.scales:
            self.set(
                "train_pipeline",
                [
                    {"type": "LoadImageFromFile", "backend_args": Code("_base_.backend_args")},
                    {"type": "LoadAnnotations", "with_bbox": True, **({"with_mask": True} if detector.masks else {})},
                    schedule.resize,
                    {"type": "RandomFlip", "prob": 0.5},
                    {"type": "PackDetInputs"},
                ],
            )
            self.set("train_dataloader.dataset.pipeline", Code("train_pipeline"))
        if schedule.epochs not in detector.bases:
            steps = {
                "type": "MultiStepLR",
                "begin": 0,
                "end": schedule.epochs,
                "by_epoch": True,
                "milestones": list(detector.milestones[schedule.epochs]),
                "gamma": 0.1,
            }
            self.set("train_cfg.max_epochs", schedule.epochs)
            self.set("param_scheduler", [*([detector.warmup] if detector.warmup else []), steps])

    def _classes_and_data(self) -> None:
        choices = self._choices
        count = len(choices.classes) or choices.num_classes
        if count is not None:
            for path in self._detector.classes:
                self.set(path, count)
        for path in self._detector.datasets:
            if choices.data_root is not None:
                self.set(f"{path}.data_root", Code("data_root"))
            if choices.classes:
                self.set(f"{path}.metainfo", Code("metainfo"))
        if choices.data_root is not None:
            for path, file in self._detector.evaluated.items():
                self.set(path, Code(f"data_root + {file!r}"))

    def _optimizer(self) -> None:
        detector, choices = self._detector, self._choices
        if choices.amp:
            self.set("optim_wrapper.type", "AmpOptimWrapper", "float16 where it is safe, with a scaled loss.")
        if choices.batch_size is None and choices.gpus is None:
            self.images, self.lr = detector.images, detector.lr
            return
        batch = choices.batch_size or detector.batch_size
        gpus = choices.gpus or max(detector.images // detector.batch_size, 1)
        self.images = batch * gpus
        self.lr = float(f"{detector.lr * self.images / detector.images:.6g}")
        self.set("train_dataloader.batch_size", batch)
        self.set(
            "optim_wrapper.optimizer.lr",
            self.lr,
            f"Linear rule: {detector.lr:g} for {detector.images} images a step, here {gpus} x {batch} = {self.images}.",
        )
        self.set("auto_scale_lr.base_batch_size", self.images, "The rate above is scaled already.")

    def _imports(self) -> None:
        modules = [LOADER] if self._choices.guard or self._found.path.endswith(".safetensors") else []
        modules += [GUARD] if self._choices.guard else []
        had = self._detector.imports
        if modules:
            what = "The loader executes nothing that a checkpoint holds."
            what += " The guard stops a training that does not start from this checkpoint." * self._choices.guard
            self.set("custom_imports.imports", [*had, *modules], what)
            self.set("custom_imports.allow_failed_imports", False)
        if self._choices.guard:
            guard: list[Any] = [{"type": "CheckpointGuard", "fingerprint": self._found.fingerprint}]
            self.set("custom_hooks", [*([Code("*_base_.custom_hooks")] if self._detector.hooks else []), *guard])

    def tree(self) -> dict[str, Any]:
        """The changes as nested dicts; those inside lists as expressions over the base's list."""
        tree: dict[str, Any] = {}
        lists: dict[str, dict[str, Any]] = {}
        for path, value in self._changes.items():
            start, mark, rest = path.partition("[")
            if mark:
                which, _, key = rest.partition("].")
                changed = lists.setdefault(path[: len(path) - len(key) - 1], {})
                changed[key] = value
                value, path = Code(_over_list(start, which, changed)), start
            *steps, last = path.split(".")
            node = tree
            for step in steps:
                node = node.setdefault(step, {})
            node[last] = value
        return tree


def _over_list(path: str, which: str, changes: Mapping[str, Any]) -> str:
    """An expression for the base's list at ``path`` with changes to each item, or to item ``which``."""
    changed = "".join(f", {key!r}: {literal.inline(value)}" for key, value in changes.items())
    if which:
        return f"[\n{{**_base_.{path}[{which}]{changed}}},\n*_base_.{path}[{int(which) + 1}:]]"
    return f"[\n{{**item{changed}}}\nfor item in _base_.{path}]"
