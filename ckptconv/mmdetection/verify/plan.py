"""A request -> what will be run: configs, commands, and what the AP is compared with. Nothing is written here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ckptconv.backbones.resnet import RESNET50
from ckptconv.errors import UnreadableError, UsageError, shell_word, unknown
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.config import emit as emitting
from ckptconv.mmdetection.config.checkpoint import Pretrained, pretrained
from ckptconv.mmdetection.config.detectors import value_at
from ckptconv.mmdetection.config.options import Choices
from ckptconv.mmdetection.type_names import kind
from ckptconv.mmdetection.verify import adjustments, arms, claims, config_edits, evaluators
from ckptconv.mmdetection.verify.packages import require_packages
from ckptconv.mmdetection.verify.recipes import RECIPES, Recipe, digest
from ckptconv.mmdetection.verify.request import Request, is_config
from ckptconv.mmdetection.verify.run.files import Job, Run
from ckptconv.mmdetection.verify.run.launch import MEETING, Launch, launch
from ckptconv.mmdetection.verify.verdict import FAIL, PASS, Expected

# Few images a step and many steps: a backbone that knows nothing learns enough from 1800 images, too.
SMOKE = config_edits.Training(train=200, val=60, epochs=9, val_every=5, batch=4, lr=1e-3)
# A fine-tuning recipe: with the heads' rate, AdamW would rewrite within a hundred steps what the backbone knows.
LIFT = config_edits.Training(train=200, val=100, epochs=6, val_every=3, batch=4, lr=2e-3, backbone=0.1)
CONVERTED, RANDOM = "converted", "random"  # the arms of a lift
_LEARNT = 20.0  # AP points: an untrained detector has 0
_TESTED = (
    0.07,
    (
        "the same weights, tested again: 0.05 for a figure with one decimal, 0.02 for another GPU, as detectron2's "
        "verify_results allows"
    ),
)
_TRAINED = (0.3, "a training of the same recipe: what mmdet's maintainers call noise")


@dataclass(frozen=True)
class Plan:
    """``config``: the target's, resolved; ``digest`` of its recipe with these images a step; ``start``: its checkpoint.

    ``recipe``: the row that is named, or whose recipe and method these are; ``known``: rows with the recipe alone.
    ``images`` a step: batch size x processes x ``accumulative_counts``. ``notes``: what is not as the config says.
    ``training``: sizes of the generated data set; None for one of the user's own, of which ``missing`` is not there.
    """

    request: Request
    title: str
    folder: Path
    config: Mapping[str, Any]
    start: Pretrained | None
    recipe: Recipe | None
    digest: str
    images: int
    launch: Launch
    runs: tuple[Run, ...]
    expected: Expected | None
    training: config_edits.Training | None
    missing: tuple[str, ...]
    known: str = ""
    notes: tuple[str, ...] = ()

    @property
    def accumulative_counts(self) -> int:
        return 1 if self.training is not None else adjustments.accumulated(self.config)

    @property
    def batch_size(self) -> int:
        """Images of one process, of which ``accumulative_counts`` batches make a step."""
        return self.images // (self.launch.processes * self.accumulative_counts)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def claim(self) -> str:
        return claims.claim(self.request.tier, self.expected)

    @property
    def metrics(self) -> tuple[str, ...]:
        said = value_at(self.config, "val_evaluator.metric", "bbox")
        return ("box", "mask") if "segm" in said else ("box",)

    def commands(self) -> Iterator[str]:
        """The exact commands of the runs, as they can be typed once the folder is there."""
        for run in self.runs:
            words = self.launch.command(run.folder, "python")
            yield " ".join(word if word.startswith(MEETING) else shell_word(word) for word in words)


def plan(request: Request, gpus_there: int) -> Plan:
    """What a request amounts to on a machine with this many GPUs.

    Raises UsageError for what contradicts itself, UnreadableError for a broken checkpoint, EnvironmentMissingError
    without MMDetection.
    """
    recipe = None
    if not is_config(request.target):
        if request.target not in RECIPES:
            raise unknown("recipe", request.target, RECIPES)
        recipe = RECIPES[request.target]
        if not recipe.digest:
            raise UsageError(
                f"{recipe.name} was trained by another framework ({recipe.source}): no run of MMDetection is the same",
                "Its weights on a recipe of MMDetection: a config as TARGET, with the AP that you expect: --expect.",
            )
    title, config, start = _target(request, recipe)
    _require_detector(request, config)
    own_data = request.tier in ("full", "eval") or request.data_root is not None
    if request.tier != "load":
        config = evaluators.with_one(config, request.target)
        _require_coco(request, config, own_data)
        adjustments.require_honoured(config, request.target, request.tier, not own_data)
    if request.data_root is not None:
        config = config_edits.moved(config, request.data_root)
    if request.images is not None and any(len(list(config_edits.datasets(config, p))) > 1 for p in ("train", "val")):
        raise UsageError(
            f"{request.target} has several data sets in a part", "Leave out --images, or give one of them."
        )
    if request.amp:
        config = config_edits.mixed(config)
    started = launch(request.launcher, request.gpus, request.nodes, gpus_there if own_data else min(gpus_there, 1))
    images = _images(config, recipe)
    counts = adjustments.accumulated(config)
    mark = digest(config_edits.batch(config, images // counts), 1)
    rows = [row for row in RECIPES.values() if row.digest == mark and request.tier in ("full", "eval")]
    method = start.method if start is not None else None
    recipe = recipe or claims.row_of(rows, method)
    expected = _expected(request, recipe, mark)
    folder = Path(request.work_dir or f"work_dirs/{_short(request.target)}-{request.tier}")
    training = None if own_data or request.tier == "load" else (LIFT if request.tier == "lift" else SMOKE)
    if training is not None:
        _require_colour(request, config)
        images, counts = max(training.batch, started.processes), 1  # each process has one
    if request.tier not in ("eval", "load"):
        _require_shares(images, started.processes, counts)
    notes: tuple[str, ...] = ()
    if request.tier != "load":
        config, notes = adjustments.adjusted(config, request.tier, training is not None)
    if own_data and (elsewhere := list(evaluators.other_test_parts(config))):
        notes += (f"val_dataloader and val_evaluator are measured; {', '.join(elsewhere)} would measure another AP",)
    made = Plan(
        request,
        title,
        folder,
        config,
        start,
        recipe,
        mark,
        images,
        started,
        (),
        expected,
        training,
        tuple(_missing(config, request.tier)) if own_data else (),
        claims.known(rows, method) if expected is None else "",
        notes,
    )
    return replace(made, runs=tuple(_runs(made)))


def _short(target: str) -> str:
    return Path(target.rpartition("::")[2]).name.removesuffix(".py")


def _target(request: Request, recipe: Recipe | None) -> tuple[str, dict[str, Any], Pretrained | None]:
    """Title, resolved config and checkpoint of the target."""
    if recipe is None and request.pretrained is None:
        path = runtime.find_config(request.target)
        config: dict[str, Any] = runtime.read_config(path, shown=request.target, imports=False).to_dict()
        return kind(value_at(config, "model")) or "?", config, _start(config)
    choices = Choices(base=request.target) if recipe is None else recipe.choices
    if request.pretrained is not None:
        emitted = emitting.emit(request.pretrained, choices)
        start = emitted.pretrained
        if recipe is not None and request.tier in ("full", "eval") and start.method != recipe.method:
            raise UsageError(
                f"{request.pretrained} is of {start.method}, and {recipe.name} was published for {recipe.method}",
                "A row speaks of its own weights only. Other weights: the same config as TARGET, with --expect.",
            )
        return emitted.title, runtime.resolve(emitted.text), start
    assert recipe is not None
    if request.tier != "eval":
        raise UsageError(f"{recipe.name} starts from a checkpoint", "Give the converted one: --pretrained CKPT.")
    text = emitting.without_checkpoint(RESNET50, recipe.method, choices)
    return recipe.title, runtime.resolve(text), None  # a test initialises nothing


def _start(config: Mapping[str, Any]) -> Pretrained | None:
    """What the config's backbone starts from, if ckptconv wrote it."""
    path = value_at(config, "model.backbone.init_cfg.checkpoint")
    if not isinstance(path, str):
        return None
    try:
        return pretrained(path)
    except (UsageError, UnreadableError, OSError):
        return None  # `check` will say what is wrong with it


def _require_detector(request: Request, config: Mapping[str, Any]) -> None:
    if not isinstance(value_at(config, "model.backbone"), Mapping):
        raise UsageError(f"{request.target} has no model.backbone", "Give a detector's config.")
    if not isinstance(value_at(config, "train_dataloader.batch_size"), int):
        raise UsageError(f"{request.target} does not say how many images a step", "Set train_dataloader.batch_size.")


def _require_colour(request: Request, config: Mapping[str, Any]) -> None:
    """The images that are drawn have three channels."""
    backbone = value_at(config, "model.backbone")
    channels = backbone.get("in_channels", backbone.get("in_chans", 3))
    if channels != 3:
        raise UsageError(
            f"{request.target} takes images of {channels} channels, and those that are drawn have 3",
            "Compare on a data set of such images: --tier lift --data-root DIR.",
        )


def _require_coco(request: Request, config: Mapping[str, Any], own_data: bool) -> None:
    evaluator = config["val_evaluator"]
    evaluators.require_boxes(evaluator, request.target)
    if own_data:
        evaluators.require_measurable(evaluator, request.target)
    if "mask" in (request.expected or ()) and "segm" not in evaluator.get("metric", "bbox"):
        raise UsageError(f"{request.target} has no mask AP", "Leave it out of --expect.")


def _images(config: Mapping[str, Any], recipe: Recipe | None) -> int:
    """Images a step, all processes together: those that the learning rate is meant for, on any number of GPUs."""
    if recipe is not None:
        return recipe.images
    usual = config["train_dataloader"]["batch_size"] * 8 * adjustments.accumulated(config)
    images: int = value_at(config, "auto_scale_lr.base_batch_size") or usual
    return images


def _require_shares(images: int, processes: int, counts: int) -> None:
    if images % counts:
        raise UsageError(
            f"{images} images a step cannot be made of optim_wrapper.accumulative_counts={counts} batches",
            f"Set auto_scale_lr.base_batch_size to the images of a step: batch size x GPUs x {counts}.",
        )
    if images // counts % processes:
        batches = f", each of which adds up {counts} batches" if counts > 1 else ""
        raise UsageError(
            f"{images} images a step cannot be shared by {processes} processes{batches}",
            f"Choose --gpus and --nodes whose product divides {images // counts}.",
        )


def _expected(request: Request, recipe: Recipe | None, mark: str) -> Expected | None:
    """What the AP is compared with: what the user expects, the row that is named and its recipe, or a floor."""
    tier, tolerance = request.tier, request.tolerance
    usual = _TESTED if tier == "eval" else _TRAINED
    reason = usual[1] if tolerance is None else "--tolerance"
    above = FAIL if tier == "eval" else "remark"
    if request.expected is not None:
        return Expected(request.expected, usual[0] if tolerance is None else tolerance, reason, claims.ASKED, above)
    if tier == "smoke":
        floor = {"box": _LEARNT}
        return Expected(floor, tolerance or 0, "an untrained detector has 0", "the floor of this tier", PASS)
    if tier not in ("full", "eval") or recipe is None:
        return None
    if recipe.digest != mark:
        changed = "--amp trains" if request.amp else "this is"
        raise UsageError(
            f"{changed} another recipe than that of {recipe.name}, whose AP says nothing about it",
            "Give the AP that you expect: --expect box=…,mask=…",
        )
    published = {"box": recipe.box, "mask": recipe.mask}
    points = usual[0] if tier == "eval" else recipe.tolerance
    why = usual[1] if tier == "eval" else recipe.reason
    if tolerance is not None:
        points, why = tolerance, "--tolerance"
    return Expected(published, points, why, recipe.source, above)


def _runs(made: Plan) -> Iterator[Run]:
    request, tier, processes = made.request, made.request.tier, made.launch
    cuda = processes.gpus > 0
    launcher = processes.launcher
    seeds = range(request.seed, request.seed + (request.seeds or (3 if tier == "lift" else 1)))
    config: dict[str, Any] = dict(made.config)
    if tier in ("smoke", "lift"):  # which ask the detector's classes
        require_packages()
    takes: arms.Takes = runtime.constructor_arguments(config) if tier in ("smoke", "lift") else lambda *_: ()
    if not cuda:
        config = config_edits.unsynced(config)
    if made.start is not None:
        config = config_edits.guarded(config, made.start.fingerprint)
    if tier == "eval":
        job = Job(False, request.seed, launcher, cuda, detector=request.detector)
        yield Run("test", made.folder / "test", config, job, "test", processes.local)
    if made.training is not None:
        from ckptconv.mmdetection.verify.data.synthetic import CLASSES

        config = config_edits.shrink(config, made.training, made.data, CLASSES)
        config = arms.unfrozen(config, takes)
        config["default_scope"] = config.get("default_scope") or "mmdet"  # in which its new parts are named
        config = config_edits.mixed(config) if request.amp else config
    elif tier == "lift":
        config = arms.unfrozen(config, takes)
        if request.images is not None:
            config = config_edits.annotated(config, *(made.data / f"{part}.json" for part in ("train", "val")))
    if tier in ("smoke", "lift", "full"):
        config = config_edits.batch(config, made.batch_size)
    for seed in seeds if tier in ("smoke", "lift", "full") else ():
        job = Job(True, seed, launcher, cuda, repeatable=made.training is not None)
        both = {CONVERTED: config, RANDOM: arms.from_random(config, takes)} if tier == "lift" else {"": config}
        for arm, changed in both.items():
            name = "-".join(filter(None, (arm, f"seed{seed}")))
            yield Run(name, made.folder / name, changed, job, arm or "trained", processes.local)


def _missing(config: Mapping[str, Any], tier: str) -> Iterator[str]:
    """Files and folders of the data set that are not there, below its root."""
    parts = ("val",) if tier == "eval" else ("train", "val")
    for part in parts:
        for dataset in config_edits.datasets(config, part):
            root = Path(dataset.get("data_root") or "")
            folder = (dataset.get("data_prefix") or {}).get("img", "")
            for below, there in ((dataset["ann_file"], Path.is_file), (folder, Path.is_dir)):
                if isinstance(below, str) and "://" not in below and not there(root / below):
                    yield str(below)
