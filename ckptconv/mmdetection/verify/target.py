"""What a request names: a recipe or a config -> the resolved config, and the checkpoint that it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptconv.backbones.resnet import RESNET50
from ckptconv.errors import UnreadableError, UsageError, unknown
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.config import emit
from ckptconv.mmdetection.config.checkpoint import Pretrained, pretrained
from ckptconv.mmdetection.config.detectors import value_at
from ckptconv.mmdetection.config.options import Choices
from ckptconv.mmdetection.type_names import type_name
from ckptconv.mmdetection.verify import evaluators
from ckptconv.mmdetection.verify.recipes import RECIPES, Recipe
from ckptconv.mmdetection.verify.request import Request, is_config


@dataclass(frozen=True)
class Target:
    """``recipe``: the row that the request names; ``pretrained``: the config's checkpoint, if ckptconv wrote it."""

    title: str
    config: dict[str, Any]
    pretrained: Pretrained | None
    recipe: Recipe | None

    @property
    def method(self) -> str | None:
        """Whose weights it starts from; None where that is not known."""
        return self.pretrained.method if self.pretrained is not None else None


def target(request: Request) -> Target:
    """The target as it stands, before a tier changes its config. Raises UsageError for what is not a detector."""
    recipe = None if is_config(request.config) else _row(request.config)
    title, config, start = _resolved(request, recipe)
    if not isinstance(value_at(config, "model.backbone"), Mapping):
        raise UsageError(f"{request.config} has no model.backbone", "Give a detector's config.")
    if not isinstance(value_at(config, "train_dataloader.batch_size"), int):
        raise UsageError(
            f"{request.config} does not set train_dataloader.batch_size", "Set it to the number of images per GPU."
        )
    return Target(title, config, start, recipe)


def _row(name: str) -> Recipe:
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    recipe = RECIPES[name]
    if not recipe.digest:
        raise UsageError(
            f"{name} was trained with another framework ({recipe.source}): MMDetection cannot train its recipe",
            "To use its weights in MMDetection, give a config instead, and the AP that you expect with `expect`.",
        )
    if recipe.config:
        raise UsageError(
            f"{name} is the recipe of {recipe.config}, which the wheel of MMDetection does not have",
            "Give that file of a clone instead of the name. The AP applies if you change paths only.",
        )
    return recipe


def _resolved(request: Request, recipe: Recipe | None) -> tuple[str, dict[str, Any], Pretrained | None]:
    """Title, resolved config and checkpoint."""
    if recipe is None and request.pretrained is None:
        path = runtime.find_config(request.config)
        config: dict[str, Any] = runtime.read_config(path, shown=request.config, imports=False).to_dict()
        return type_name(value_at(config, "model")) or "?", config, _checkpoint(config)
    choices = Choices(base=request.config) if recipe is None else recipe.choices
    if request.pretrained is not None:
        emitted = emit.emit(request.pretrained, choices)
        start = emitted.pretrained
        if recipe is not None and request.tier in ("full", "eval") and start.method != recipe.method:
            raise UsageError(
                f"{request.pretrained} holds weights of {start.method}, and {recipe.name} was published for "
                f"{recipe.method}",
                "A published AP is of its own weights only. For others, give a config instead, and `expect`.",
            )
        return emitted.title, runtime.resolve(emitted.text), start
    assert recipe is not None
    if request.tier != "eval":
        raise UsageError(f"{recipe.name} needs a converted checkpoint", "Give it: `pretrained='CKPT'`.")
    text = emit.without_checkpoint(RESNET50, recipe.method, choices)
    return recipe.title, runtime.resolve(text), None  # a test initialises nothing


def _checkpoint(config: Mapping[str, Any]) -> Pretrained | None:
    """The checkpoint of the config's backbone, if ckptconv wrote it."""
    path = value_at(config, "model.backbone.init_cfg.checkpoint")
    if not isinstance(path, str):
        return None
    try:
        return pretrained(path)
    except (UsageError, UnreadableError, OSError):
        return None  # `check` will say what is wrong with it


def require_colour(request: Request, config: Mapping[str, Any]) -> None:
    """Raises UsageError for a backbone that cannot take the generated images, which have three channels."""
    backbone = value_at(config, "model.backbone")
    channels = backbone.get("in_channels", backbone.get("in_chans", 3))
    if channels != 3:
        raise UsageError(
            f"{request.config} takes images of {channels} channels, and the generated images have 3",
            "Use a data set of such images: `tier='lift'` `data_root='DIR'`.",
        )


def require_coco_ap(request: Request, config: Mapping[str, Any], own_data: bool) -> None:
    """Raises UsageError for an evaluator that does not measure what the request asks for."""
    evaluator = config["val_evaluator"]
    evaluators.require_box_ap(evaluator, request.config)
    if own_data:
        evaluators.require_measurable(evaluator, request.config)
    if "mask" in (request.expect or ()) and "segm" not in evaluator.get("metric", "bbox"):
        raise UsageError(f"{request.config} does not measure mask AP", "Leave mask out of `expect`.")
