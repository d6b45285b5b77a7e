"""A request -> what will be run: configs, commands, and what the AP is compared with. Nothing is written here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ckptconv.errors import UsageError, shell_word
from ckptconv.mmdetection.config.checkpoint import Pretrained
from ckptconv.mmdetection.config.detectors import value_at
from ckptconv.mmdetection.verify import adjustments, config_edits, evaluators, stand_in, tiers
from ckptconv.mmdetection.verify.compare_ap import Expected
from ckptconv.mmdetection.verify.config_edits import SyntheticTraining
from ckptconv.mmdetection.verify.expectation import expectation, how_to_compare, row_of
from ckptconv.mmdetection.verify.recipes import RECIPES, Recipe, digest
from ckptconv.mmdetection.verify.request import Request
from ckptconv.mmdetection.verify.run.files import Run
from ckptconv.mmdetection.verify.run.launch import RENDEZVOUS, Launch, launch
from ckptconv.mmdetection.verify.runs import runs
from ckptconv.mmdetection.verify.stand_in import StandIn
from ckptconv.mmdetection.verify.target import require_coco_ap, require_colour, target

# Few images per step and many steps: even a backbone without useful weights learns enough from 1800 images.
SMOKE = SyntheticTraining(train_images=200, val_images=60, epochs=9, val_interval=5, batch_size=4, lr=1e-3)
# A fine-tuning recipe: at the heads' rate, AdamW would overwrite the backbone's features within a hundred steps.
LIFT = SyntheticTraining(
    train_images=200, val_images=100, epochs=6, val_interval=3, batch_size=4, lr=2e-3, backbone_lr_mult=0.1
)


@dataclass(frozen=True)
class VerificationPlan:
    """What one call of `verify-ap` runs.

    ``config``: the target's, resolved; ``pretrained``: its checkpoint, if ckptconv wrote it.
    ``recipe``: the row that is named, or the one with this recipe and method; ``how_to_compare``: where no row is
    compared with, those that have the recipe, in words.
    ``digest`` of the recipe with ``images_per_step``: batch size x processes x ``accumulative_counts``.
    ``synthetic``: the training on generated images; None for own data, of which ``missing_files`` are missing.
    ``stand_in``: what is trained in place of the file's network, where that is too large.
    ``notes``: where the runs differ from the config.
    """

    request: Request
    title: str
    folder: Path
    config: Mapping[str, Any]
    pretrained: Pretrained | None
    recipe: Recipe | None
    digest: str
    images_per_step: int
    launch: Launch
    runs: tuple[Run, ...]
    expected: Expected | None
    synthetic: SyntheticTraining | None
    missing_files: tuple[str, ...]
    how_to_compare: str = ""
    stand_in: StandIn | None = None
    notes: tuple[str, ...] = ()

    @property
    def accumulative_counts(self) -> int:
        return 1 if self.synthetic is not None else adjustments.accumulated(self.config)

    @property
    def batch_size(self) -> int:
        """Images of one process, of which ``accumulative_counts`` batches make a step."""
        return self.images_per_step // (self.launch.processes * self.accumulative_counts)

    @property
    def data(self) -> Path:
        """The folder of generated or chosen data."""
        return self.folder / "data"

    @property
    def annotations(self) -> Path:
        """The file that the runs are evaluated on."""
        config = self.runs[0].config if self.runs else self.config
        return Path(value_at(config, "val_evaluator.ann_file", ""))

    @property
    def purpose(self) -> str:
        return tiers.purpose(self.request.tier, self.expected, self.stand_in is not None)

    @property
    def metrics(self) -> tuple[str, ...]:
        metric = value_at(self.config, "val_evaluator.metric", "bbox")
        return ("box", "mask") if "segm" in metric else ("box",)

    def commands(self) -> Iterator[str]:
        """The exact commands of the runs, as a user can type them once the folder exists."""
        for run in self.runs:
            words = self.launch.command(run.folder, "python")
            yield " ".join(word if word.startswith(RENDEZVOUS) else shell_word(word) for word in words)


def make_plan(request: Request, gpus_here: int) -> VerificationPlan:
    """What a request runs on a machine with this many GPUs.

    Raises UsageError for what contradicts itself, UnreadableError for a broken checkpoint, EnvironmentMissingError
    without MMDetection.
    """
    named = target(request)
    config, tier = named.config, request.tier
    own_data = tier in ("full", "eval") or request.data_root is not None
    if tier != "load":
        config = evaluators.with_single_metric(config, request.config)
        require_coco_ap(request, config, own_data)
        adjustments.require_supported(config, request.config, tier, not own_data)
    if request.data_root is not None:
        config = config_edits.with_data_root(config, request.data_root)
    if request.images is not None:
        _require_one_data_set(request, config)
    if request.amp:
        config = config_edits.with_mixed_precision(config)
    started = launch(request.launcher, request.gpus, request.nodes, gpus_here if own_data else min(gpus_here, 1))
    images, counts = _images_per_step(config, named.recipe), adjustments.accumulated(config)
    recipe_digest = digest(config_edits.with_batch_size(config, images // counts), 1)
    rows = [row for row in RECIPES.values() if row.digest == recipe_digest and tier in ("full", "eval")]
    recipe = named.recipe or row_of(rows, named.method)
    synthetic = None if own_data or tier == "load" else (LIFT if tier == "lift" else SMOKE)
    if synthetic is not None:
        require_colour(request, config)
        images, counts = max(synthetic.batch_size, started.processes), 1  # each process has at least one image
    if tier not in ("eval", "load"):
        _require_shares(images, started.processes, counts)
    notes: tuple[str, ...] = ()
    if tier != "load":
        config, notes = adjustments.adjusted(config, tier, synthetic is not None)
    if own_data and (others := list(evaluators.other_test_parts(config))):
        notes += (f"the AP is that of val_dataloader and val_evaluator; {', '.join(others)} would give another AP",)
    trained, in_place = config, None
    if tier == "smoke" and named.pretrained is not None:
        small = stand_in.replaced(config, named.pretrained.backbone, named.pretrained.network, started.gpus > 0)
        trained, in_place = small or (config, None)
        notes += (in_place.note,) if in_place else ()
    slow = in_place is not None or config_edits.decays_by_layer(config)
    expected = expectation(request, recipe, recipe_digest, slow)
    planned = VerificationPlan(
        request=request,
        title=named.title,
        folder=Path(request.work_dir or f"work_dirs/{_short(request.config)}-{tier}"),
        config=config,
        pretrained=named.pretrained,
        recipe=recipe,
        digest=recipe_digest,
        images_per_step=images,
        launch=started,
        runs=(),
        expected=expected,
        synthetic=synthetic,
        missing_files=tuple(_missing_files(config, tier)) if own_data else (),
        how_to_compare=how_to_compare(rows, named.method) if expected is None else "",
        stand_in=in_place,
        notes=notes,
    )
    compared = named.pretrained if in_place is None else None
    fingerprint = compared.fingerprint if compared is not None else None
    configured = runs(request, started, planned.folder, trained, fingerprint, synthetic, planned.batch_size)
    return replace(planned, runs=tuple(configured))


def _short(name: str) -> str:
    return Path(name.rpartition("::")[2]).name.removesuffix(".py")


def _images_per_step(config: Mapping[str, Any], recipe: Recipe | None) -> int:
    """Images per step of all processes together: those that the learning rate is meant for, on any number of GPUs."""
    if recipe is not None:
        return recipe.images
    usual = config["train_dataloader"]["batch_size"] * 8 * adjustments.accumulated(config)
    images: int = value_at(config, "auto_scale_lr.base_batch_size") or usual
    return images


def _require_shares(images: int, processes: int, counts: int) -> None:
    if images % counts:
        raise UsageError(
            f"{images} images per step cannot be divided into optim_wrapper.accumulative_counts={counts} batches",
            f"Set auto_scale_lr.base_batch_size to the images per step: batch size x GPUs x {counts}.",
        )
    if images // counts % processes:
        batches = f", each with {counts} batches" if counts > 1 else ""
        raise UsageError(
            f"{images} images per step cannot be divided among {processes} processes{batches}",
            f"Choose `gpus` and `nodes` whose product divides {images // counts}.",
        )


def _require_one_data_set(request: Request, config: Mapping[str, Any]) -> None:
    for part in ("train", "val"):
        if len(list(config_edits.datasets(config, part))) > 1:
            raise UsageError(
                f"{request.config} has several data sets in {part}_dataloader, and `images` takes from one",
                "Leave out `images`, or leave one data set in the config.",
                "images",
            )


def _missing_files(config: Mapping[str, Any], tier: str) -> Iterator[str]:
    """Files and folders of the data set that do not exist, relative to its root."""
    parts = ("val",) if tier == "eval" else ("train", "val")
    for part in parts:
        for dataset in config_edits.datasets(config, part):
            root = Path(dataset.get("data_root") or "")
            folder = (dataset.get("data_prefix") or {}).get("img", "")
            for below, exists in ((dataset["ann_file"], Path.is_file), (folder, Path.is_dir)):
                if isinstance(below, str) and "://" not in below and not exists(root / below):
                    yield str(below)
