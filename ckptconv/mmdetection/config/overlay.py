"""What a config changes of its base, by dotted path, and the comment above each change. Pure; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckptconv.arguments import argument
from ckptconv.errors import UsageError
from ckptconv.mmdetection.config import fixed_size, large_scale_jitter
from ckptconv.mmdetection.config.backbone_args import DEFAULTS
from ckptconv.mmdetection.config.batch_norm import few_images, set_batch_norm
from ckptconv.mmdetection.config.channels import ORDER
from ckptconv.mmdetection.config.checkpoint import Pretrained
from ckptconv.mmdetection.config.detectors import WARMUP, Detector, Schedule, among, value_at
from ckptconv.mmdetection.config.edits import ABSENT, Changes
from ckptconv.mmdetection.config.image_normalisation import feed, loading_for
from ckptconv.mmdetection.config.learning_rate import images_per_step, scale_learning_rate, set_optimizer
from ckptconv.mmdetection.config.network import TrainingRecipe
from ckptconv.mmdetection.config.options import NORMS, Choices
from ckptconv.mmdetection.config.own_data import Data
from ckptconv.mmdetection.config.python_source import Code, inline
from ckptconv.mmdetection.config.replace_backbone import place
from ckptconv.mmdetection.type_names import has_type

FILE_ORDER = "ckptconv.mmdetection.file_order"
GUARD = "ckptconv.mmdetection.guard"
LOADER = "ckptconv.mmdetection.loader"

_WRAPPER = "optim_wrapper.type"
_AMP = "float16 where it is safe, with a scaled loss."
_BFLOAT16 = " If the loss is not finite, add dtype='bfloat16'."

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


class Overlay(Changes):
    """What the config changes, by dotted path, and the comments above it."""

    def __init__(self, detector: Detector, found: Pretrained, choices: Choices, data: Data) -> None:
        super().__init__(detector.found)
        self._detector, self._found, self._choices, self._data = detector, found, choices, data
        self.images, self.lr = images_per_step(detector, choices), detector.lr
        self.batch_size = choices.batch_size or detector.batch_size
        self.advice: list[str] = []
        """Notes for the user."""

    def fill(self, schedule: Schedule | None) -> None:
        """Add all changes, in the order in which they are written."""
        self._names()
        self._backbone(schedule)
        feed(self, self._detector, self._found, self._choices)
        if self._found.network.fixed_size:
            load = loading_for(self._detector, self._found, self._choices)
            fixed_size.set_image_size(self, self._detector, load, self._found.network.fixed_size)
        if schedule is not None:
            if schedule.synced:
                self._synced()
            self._schedule(schedule)
        self._classes_and_data()
        self._optimizer()
        self._imports()

    def _names(self) -> None:
        """Top-level names that later lines use."""
        if self._data.root is not None:
            self.set("data_root", self._data.root)
        if self._data.classes:
            self.set("metainfo", {"classes": self._data.classes})
        if self.had("load_from") not in (ABSENT, None):
            self.set("load_from", None, "It would be loaded over the backbone.")

    def _backbone(self, schedule: Schedule | None) -> None:
        detector, choices, net = self._detector, self._choices, self._found.network
        at, had = "model.backbone", detector.backbone
        if not net.batch_norm:
            place(self, detector, self._found, choices)
            return
        why = NORMS[choices.norm][2]
        stages = 3 if detector.shared_head else had.get("num_stages", 4)
        frozen = stages if choices.freeze == "all" else choices.frozen
        if frozen is None:
            frozen = schedule.frozen_stages if schedule else 0
        if frozen > stages:
            given = "frozen_stages" if choices.freeze is None else "freeze"
            raise UsageError(
                f"{argument(given, frozen)}: the backbone of {detector.title} has {stages} stages",
                f"Give {'-1' if choices.freeze is None else '0'} to {stages}.",
                given,
            )
        resnet = has_type(had, "ResNet", "ResNeXt")
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
            self.set(f"{at}.{key}", value)
        if choices.norm != "frozen":
            why += self._few_images(f", or keep those of the pretraining: {argument('norm', 'frozen')}")
        note = "-1 freezes nothing, 0 conv1 and bn1, 1 also layer1. MMDetection's rows use 0."
        self.set(f"{at}.frozen_stages", frozen, note)
        set_batch_norm(self, at, choices, self._found.path, "_delete_" in changed)
        self.notes["model", "backbone", "norm_cfg"] = why
        for path, stages in detector.widths.items():
            width = among(net.channels, stages)
            if width != detector.width(path):
                self.set(path, width)
        if detector.shared_head:
            if net.arguments["depth"] != had.get("depth"):
                self.set(f"{detector.shared_head}.depth", net.arguments["depth"])
            if had.get("style") == "caffe":
                self.set(f"{detector.shared_head}.style", "pytorch")
            set_batch_norm(self, detector.shared_head, choices, self._found.path, False)

    def _few_images(self, instead: str = "") -> str:
        """The comment where batch norm sees few images; the user gets a note, too."""
        comment, note = few_images(self._detector, self._choices, instead)
        self.advice += [note] if note else []
        return comment

    def _synced(self) -> None:
        for path, value in self._detector.synced.items():
            self.set(path, value)
        if self._detector.synced_note:
            self.notes["model",] = self._detector.synced_note
        if self._detector.synced and not self.advice:
            self._few_images()

    def _schedule(self, schedule: Schedule) -> None:
        detector, net = self._detector, self._found.network
        if schedule.large_scale_jitter:
            load = loading_for(detector, self._found, self._choices)
            large_scale_jitter.set_schedule(self, detector, net, load)
            return
        if schedule.resize is not None and detector.scales and not net.fixed_size:
            load = loading_for(self._detector, self._found, self._choices)
            self.set(
                "train_pipeline",
                [
                    *load,
                    {"type": "LoadAnnotations", "with_bbox": True, **({"with_mask": True} if detector.masks else {})},
                    schedule.resize,
                    {"type": "RandomFlip", "prob": 0.5},
                    {"type": "PackDetInputs"},
                ],
            )
            self.set("train_dataloader.dataset.pipeline", Code("train_pipeline"))
        training = self._training
        if training is not None or schedule.epochs not in detector.bases:
            steps = {
                "type": "MultiStepLR",
                "begin": 0,
                "end": schedule.epochs,
                "by_epoch": True,
                "milestones": list(detector.milestones[schedule.epochs]),
                "gamma": 0.1,
            }
            if schedule.epochs not in detector.bases:
                self.set("train_cfg.max_epochs", schedule.epochs)
            warmup = {**WARMUP, "end": training.warmup} if training is not None else detector.warmup
            self.set("param_scheduler", [*([warmup] if warmup else []), steps])

    def _classes_and_data(self) -> None:
        detector, choices, data = self._detector, self._choices, self._data
        count = len(data.classes) or choices.num_classes
        for what, value, places in (
            ("the number of classes", count, detector.classes),
            (argument("classes"), data.classes or None, detector.datasets),
            (argument("data_root"), data.root, detector.datasets),
        ):
            if value is not None and not places:
                raise UsageError(f"{choices.base} has nothing that sets {what}", "Write it into the config yourself.")
        if count is not None:
            for path in detector.classes:
                self.set(path, count)
        for path in detector.datasets:
            if data.root is not None:
                self.set(f"{path}.data_root", Code("data_root"))
            part = data.parts.get("train" if path.startswith("train_") else "val")
            if part is not None:
                self.set(f"{path}.ann_file", part.ann)
                self.put(f"{path}.data_prefix", {"img": part.images})
            if data.classes:
                had = self.had(f"{path}.metainfo")
                more = isinstance(had, Mapping) and had.keys() - {"classes", "_scope_"}  # the old classes' colours
                self.set(f"{path}.metainfo", Code("dict(_delete_=True, **metainfo)" if more else "metainfo"))
        if data.root is not None:
            truth = data.parts.get("val")
            files = dict.fromkeys(detector.evaluators, truth.ann) if truth else detector.evaluated
            for path, file in files.items():
                self.set(path, file if Path(file).is_absolute() else Code(f"data_root + {inline(file)}"))

    @property
    def _training(self) -> TrainingRecipe | None:
        """The network's own optimizer, if the base's is SGD, which does not train it."""
        return self._found.network.training if self._detector.optimizer == "SGD" else None

    def _optimizer(self) -> None:
        detector, choices = self._detector, self._choices
        if self._training is not None:
            self.lr = set_optimizer(self, self._training, detector.images, self._found.backbone.family)
        transformer = self._found.network.training is not None
        if choices.amp:
            self.set("optim_wrapper.type", "AmpOptimWrapper", _AMP + _BFLOAT16 * transformer)
        elif transformer and "AmpOptimWrapper" not in (self.had(_WRAPPER), self._values.get(_WRAPPER)):
            self.advice.append(
                f"mixed precision makes this training faster and takes less memory: {argument('amp', True)}"
            )
        self.lr = scale_learning_rate(self, detector, choices, self.lr)

    def _imports(self) -> None:
        guarded = self._choices.guard
        modules = [LOADER] if guarded or self._found.format == "safetensors" else []
        swapped = self._found.in_channels == 4 and bool(self._choices.mean)
        modules += [GUARD] if guarded else []
        what = "The loader executes nothing that a checkpoint holds." * bool(modules)
        what += " The guard stops a training that does not start from this checkpoint." * guarded
        had = value_at(self._detector.found, "custom_imports.imports") or []
        needed = self._found.network.imports
        if self._found.network.of_timm:
            what = f"timm's network is the backbone: pip install timm. {what}"
        elif needed:
            package = needed[0].partition(".")[0]
            what = f"{package} holds the backbone: mim install {package}. {what}"
        if swapped:
            modules.append(FILE_ORDER)
            what = f"{what} {ORDER} undoes OpenCV's order of four channels.".strip()
        modules = [*needed, *modules]
        if modules:
            imports = [*([had] if isinstance(had, str) else had), *modules]
            self.put("custom_imports", {"imports": imports, "allow_failed_imports": False}, {"imports": what.strip()})
        if guarded:
            shared = "" if self._found.network.of_timm else self._detector.shared_head
            modules = ["backbone", shared.removeprefix("model.")]
            hook = {"type": "CheckpointGuard", "modules": list(filter(None, modules))}
            guard: list[Any] = [{**hook, "fingerprint": self._found.fingerprint}]
            before = [Code("*_base_.custom_hooks")] if value_at(self._detector.found, "custom_hooks") else []
            self.set("custom_hooks", [*before, *guard])
