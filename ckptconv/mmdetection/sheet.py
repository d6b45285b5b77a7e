"""What a config changes of its base, by dotted path, and the comment above each change. Pure; imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from ckptconv.errors import UsageError
from ckptconv.methods.interface import IMAGENET
from ckptconv.mmdetection import literal
from ckptconv.mmdetection.choices import NORMS, Choices
from ckptconv.mmdetection.detectors import Detector, Schedule, among, value_at
from ckptconv.mmdetection.literal import Code
from ckptconv.mmdetection.networks import DEFAULTS
from ckptconv.mmdetection.pretrained import Pretrained

GUARD = "ckptconv.mmdetection.guard"
LOADER = "ckptconv.mmdetection.loader"


_ABSENT = object()
_OF_THE_DETECTOR = (
    "num_stages",
    "strides",
    "dilations",
    "out_indices",
    "with_cp",
    "dcn",
    "stage_with_dcn",
    "multi_grid",
)
"""Arguments of a ResNet that the detector chooses; all others belong to the network, or are set here."""
_SET_HERE = ("type", "depth", "style", "frozen_stages", "norm_cfg", "norm_eval", "init_cfg", "pretrained", "_scope_")


class Sheet:
    """What the config changes, by dotted path, and the comments above it."""

    def __init__(self, detector: Detector, found: Pretrained, choices: Choices) -> None:
        self._detector, self._found, self._choices = detector, found, choices
        self._changes: dict[str, Any] = {}
        self.notes: dict[literal.Path, str] = {}
        self.images, self.lr = detector.images, detector.lr

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

    def _set(self, path: str, value: Any, note: str = "") -> None:
        self._changes[path] = value
        if note:
            self.notes[tuple(path.split("."))] = note

    def _put(self, path: str, values: Mapping[str, Any], notes: Mapping[str, str] | None = None) -> None:
        """Exactly these values at a path: what the base has beside them there goes."""
        had = self._had(path)
        if had is not _ABSENT and (not isinstance(had, Mapping) or had.keys() - values.keys() - {"_scope_"}):
            self._set(f"{path}._delete_", True)
        for key, value in values.items():
            self._set(f"{path}.{key}", value, (notes or {}).get(key, ""))

    def _had(self, path: str) -> Any:
        """What the base has at a path; absent, too, where it has not been read."""
        return value_at(self._detector.found, path, _ABSENT)

    def _names(self) -> None:
        """Top-level names that later lines use."""
        if self._choices.data_root is not None:
            self._set("data_root", f"{self._choices.data_root.rstrip('/')}/")
        if self._choices.classes:
            self._set("metainfo", {"classes": self._choices.classes})
        if self._had("load_from") not in (_ABSENT, None):
            self._set("load_from", None, "It would be loaded over the backbone.")

    def _backbone(self, schedule: Schedule | None) -> None:
        detector, choices, net = self._detector, self._choices, self._found.network
        at, had = "model.backbone", detector.backbone
        norm_cfg, norm_eval, why = NORMS[choices.norm]
        frozen = choices.frozen_stages
        if frozen is None:
            frozen = schedule.frozen_stages if schedule else 0
        stages = 3 if detector.shared_head else had.get("num_stages", 4)
        if frozen > stages:
            raise UsageError(
                f"--frozen-stages {frozen}: the backbone of {detector.title} has {stages} stages",
                f"Give -1 to {stages}.",
            )
        resnet = str(had["type"]).rpartition(".")[2] in ("ResNet", "ResNeXt")
        if had.get("dcn") and net.arguments["depth"] < 50:
            raise UsageError(
                f"{choices.base} has deformable convolutions; MMDetection's ResNet-{net.arguments['depth']} has none",
                "Take a base without dcn, or a ResNet-50.",
            )
        if resnet and not had.keys() - {*_OF_THE_DETECTOR, *_SET_HERE, *net.arguments}:
            changed = {k: v for k, v in net.arguments.items() if had.get(k, DEFAULTS[k]) != v}
        elif resnet:
            changed = {"_delete_": True, **net.arguments, **{k: had[k] for k in _OF_THE_DETECTOR if k in had}}
        else:
            changed = {"_delete_": True, **net.arguments, "num_stages": 4}
            changed |= {k: had[k] for k in ("out_indices",) if k in had}
        for key, value in changed.items():
            self._set(f"{at}.{key}", value)
        note = "-1 freezes nothing, 0 conv1 and bn1, 1 also layer1. MMDetection's rows use 0."
        self._set(f"{at}.frozen_stages", frozen, note)
        self._norm_and_start(at, norm_cfg, norm_eval, "_delete_" in changed)
        self.notes["model", "backbone", "norm_cfg"] = why
        for path, stages in detector.widths.items():
            width = among(net.channels, stages)
            if width != detector.width(path):
                self._set(path, width)
        if detector.shared_head:
            if net.arguments["depth"] != had.get("depth"):
                self._set(f"{detector.shared_head}.depth", net.arguments["depth"])
            if had.get("style") == "caffe":
                self._set(f"{detector.shared_head}.style", "pytorch")
            self._norm_and_start(detector.shared_head, norm_cfg, norm_eval, False)

    def _norm_and_start(self, module: str, norm_cfg: Mapping[str, Any], norm_eval: bool, fresh: bool) -> None:
        """Batch norm and checkpoint of a module; ``fresh`` if nothing of the base's is left of it."""
        put = self._set if fresh else self._put
        put(f"{module}.norm_cfg", norm_cfg)
        self._set(f"{module}.norm_eval", norm_eval)
        put(f"{module}.init_cfg", {"type": "Pretrained", "checkpoint": self._found.path})

    def _pixels(self) -> None:
        pixels = self._found.pixels
        note = f"The pixels that {self._found.method} was trained with."
        if pixels is None:
            pixels, note = IMAGENET, f"{self._found.method} does not tell what pixels it was trained with: ImageNet's."
        if pixels == self._detector.pixels:
            return
        at = "model.data_preprocessor"
        if self._detector.found is not None and not self._had(at):
            self._put(at, {"type": "DetDataPreprocessor", "pad_size_divisor": 32})
        elif self._detector.found is not None and self._had(at) is _ABSENT:
            self._set(f"{at}.type", "DetDataPreprocessor")
            self._set(f"{at}.pad_size_divisor", 32)
        self._set(f"{at}.mean", list(pixels.mean), note)
        self._set(f"{at}.std", list(pixels.std))
        self._set(f"{at}.bgr_to_rgb", pixels.order == "RGB")

    def _synced(self) -> None:
        for path, value in self._detector.synced.items():
            self._set(path, value)
        if self._detector.synced_note:
            self.notes["model",] = self._detector.synced_note

    def _schedule(self, schedule: Schedule) -> None:
        detector = self._detector
        if schedule.resize is not None and detector.scales:
            self._set(
                "train_pipeline",
                [
                    {"type": "LoadImageFromFile", "backend_args": Code("_base_.backend_args")},
                    {"type": "LoadAnnotations", "with_bbox": True, **({"with_mask": True} if detector.masks else {})},
                    schedule.resize,
                    {"type": "RandomFlip", "prob": 0.5},
                    {"type": "PackDetInputs"},
                ],
            )
            self._set("train_dataloader.dataset.pipeline", Code("train_pipeline"))
        if schedule.epochs not in detector.bases:
            steps = {
                "type": "MultiStepLR",
                "begin": 0,
                "end": schedule.epochs,
                "by_epoch": True,
                "milestones": list(detector.milestones[schedule.epochs]),
                "gamma": 0.1,
            }
            self._set("train_cfg.max_epochs", schedule.epochs)
            self._set("param_scheduler", [*([detector.warmup] if detector.warmup else []), steps])

    def _classes_and_data(self) -> None:
        detector, choices = self._detector, self._choices
        count = len(choices.classes) or choices.num_classes
        for option, value, places in (
            ("the number of classes", count, detector.classes),
            ("--classes", choices.classes or None, detector.datasets),
            ("--data-root", choices.data_root, detector.datasets),
        ):
            if value is not None and not places:
                raise UsageError(f"{choices.base} has no place for {option}", "Write it into the config yourself.")
        if count is not None:
            for path in detector.classes:
                self._set(path, count)
        for path in detector.datasets:
            if choices.data_root is not None:
                self._set(f"{path}.data_root", Code("data_root"))
            if choices.classes:
                had = self._had(f"{path}.metainfo")
                more = isinstance(had, Mapping) and had.keys() - {"classes", "_scope_"}  # the old classes' colours
                self._set(f"{path}.metainfo", Code("dict(_delete_=True, **metainfo)" if more else "metainfo"))
        if choices.data_root is not None:
            for path, file in detector.evaluated.items():
                self._set(path, Code(f"data_root + {file!r}"))

    def _optimizer(self) -> None:
        detector, choices = self._detector, self._choices
        if choices.amp:
            self._set("optim_wrapper.type", "AmpOptimWrapper", "float16 where it is safe, with a scaled loss.")
        if choices.batch_size is None and choices.gpus is None:
            return
        if detector.lr is None:
            raise UsageError(f"{choices.base} has no learning rate to scale", "Leave out --batch-size and --gpus.")
        batch = choices.batch_size or detector.batch_size
        gpus = choices.gpus or max(detector.images // detector.batch_size, 1)
        self.images = batch * gpus
        self.lr = float(f"{detector.lr * self.images / detector.images:.6g}")
        self._set("train_dataloader.batch_size", batch)
        self._set(
            "optim_wrapper.optimizer.lr",
            self.lr,
            f"Linear rule: {detector.lr:g} for {detector.images} images a step, here {gpus} x {batch} = {self.images}.",
        )
        note = "The rate above is scaled already."
        if self._had("auto_scale_lr") is None:
            self._put("auto_scale_lr", {"base_batch_size": self.images}, {"base_batch_size": note})
        else:
            self._set("auto_scale_lr.base_batch_size", self.images, note)

    def _imports(self) -> None:
        guarded = self._choices.guard
        modules = [LOADER] if guarded or self._found.format == "safetensors" else []
        modules += [GUARD] if guarded else []
        had = value_at(self._detector.found, "custom_imports.imports") or []
        if modules:
            what = "The loader executes nothing that a checkpoint holds."
            what += " The guard stops a training that does not start from this checkpoint." * guarded
            imports = [*([had] if isinstance(had, str) else had), *modules]
            self._put("custom_imports", {"imports": imports, "allow_failed_imports": False}, {"imports": what})
        if guarded:
            modules = ["backbone", self._detector.shared_head.removeprefix("model.")]
            hook = {"type": "CheckpointGuard", "modules": list(filter(None, modules))}
            guard: list[Any] = [{**hook, "fingerprint": self._found.fingerprint}]
            before = [Code("*_base_.custom_hooks")] if value_at(self._detector.found, "custom_hooks") else []
            self._set("custom_hooks", [*before, *guard])

    def tree(self) -> dict[str, Any]:
        """The changes as nested dicts. A list is replaced whole: by a copy with changes, or an expression over it."""
        tree: dict[str, Any] = {}
        lists: dict[str, dict[str, Any]] = {}
        for path, value in self._changes.items():
            start, inside, rest = path.partition("[")
            if inside:
                changed = lists.setdefault(start, {})
                changed[f"[{rest}"] = value
                had = self._had(start)
                value = _over_list(start, changed) if had is _ABSENT else _changed(had, changed)
            *steps, last = start.split(".")
            node = tree
            for step in steps:
                node = node.setdefault(step, {})
            node[last] = value
        return tree


def _over_list(path: str, changes: Mapping[str, Any]) -> Code:
    """An expression for the base's list at ``path``, each of whose items changes alike: keys are ``[].name``."""
    gap = "\n " if len(changes) > 1 else " "
    changed = "".join(f",{gap}{key[3:]!r}: {literal.inline(value)}" for key, value in changes.items())
    return Code(f"[\n{{**item{changed}}}\nfor item in _base_.{path}]")


def _changed(items: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of a list with changes: keys are ``[0].name``, ``[1].name[0].name`` and so on."""
    copy = deepcopy(items)
    for path, value in changes.items():
        *steps, last = (int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", path))
        node = copy
        for step in steps:
            node = node[step]
        node[last] = value
    return copy
