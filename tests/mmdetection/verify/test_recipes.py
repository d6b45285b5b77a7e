"""Published rows: their recipes are those of MMDetection's own configs, and of what `emit-config` writes for them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from ckptconv.backbones.vit import VisionTransformer
from ckptconv.methods import METHODS
from ckptconv.mmdetection.config.detectors import DETECTORS, SCHEDULES
from ckptconv.mmdetection.config.emit import without_checkpoint
from ckptconv.mmdetection.config.options import Choices
from ckptconv.mmdetection.verify.recipes import RECIPES, digest
from tests.mmdetection.config.test_timm import SIDE, VITDET
from tests.support.converted import OWN, at, emit, read, resolve

pytestmark = pytest.mark.mmdet

FILES = {
    "mocov2-mask-rcnn-r50-fpn-1x": "mask-rcnn_r50-mocov2-pre_fpn_1x_coco.py",
    "mocov2-mask-rcnn-r50-fpn-ms-2x": "mask-rcnn_r50-mocov2-pre_fpn_ms-2x_coco.py",
    "swav-mask-rcnn-r50-fpn-1x": "mask-rcnn_r50-swav-pre_fpn_1x_coco.py",
    "swav-mask-rcnn-r50-fpn-ms-2x": "mask-rcnn_r50-swav-pre_fpn_ms-2x_coco.py",
}
OF_MMDET = [RECIPES[name] for name in FILES]
HERE = [row for row in RECIPES.values() if row.digest]
EVERY = pytest.mark.parametrize("recipe", OF_MMDET, ids=lambda r: r.name)
# What configs/benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py of mmselfsup 1.0 changes of its base.
_SYNC = {"type": "SyncBN", "requires_grad": True}
MMSELFSUP = {
    "model.backbone": {"frozen_stages": -1, "norm_cfg": _SYNC, "norm_eval": False},
    "model.neck": {"norm_cfg": _SYNC},
    "model.roi_head.bbox_head": {"type": "Shared4Conv1FCBBoxHead", "norm_cfg": _SYNC},
    "model.roi_head.mask_head": {"norm_cfg": _SYNC},
}
SIZES = [(1333, short) for short in (640, 672, 704, 736, 768, 800)]


def test_the_table_starts_with_mmdetections_rows():
    assert list(RECIPES)[:4] == list(FILES)
    assert len(RECIPES) == len({row.title for row in RECIPES.values()})


def test_the_digest_of_mmselfsups_recipe_is_that_of_its_config():
    config = deepcopy(read(OWN / "mask_rcnn" / "mask-rcnn_r50_fpn_1x_coco.py"))
    for path, values in MMSELFSUP.items():
        at(config, path)[0].update(values)
    config["model"]["backbone"]["init_cfg"]["checkpoint"] = "weights.pth"
    config["train_dataloader"]["dataset"]["pipeline"][2] = {
        "type": "RandomChoiceResize",
        "scales": SIZES,
        "keep_ratio": True,
    }
    rows = [row for row in HERE if row.schedule == "mmselfsup"]
    assert len(rows) == 6
    assert {row.digest for row in rows} == {digest(config, gpus=8)}


def test_the_digest_of_vitdets_recipe_is_that_of_mmdetections_project():
    """projects/ViTDet/configs/vitdet_mask-rcnn_vit-b-mae_lsj-100e.py, which no wheel has: its facts on its base."""
    base = deepcopy(read(OWN / "mask_rcnn" / "mask-rcnn_r50_fpn_1x_coco.py"))
    norm = {"type": "LN2d", "requires_grad": True}
    augment = {"type": "BatchFixedSizePad", "size": SIDE, "pad_mask": True}
    model = base["model"]
    model["data_preprocessor"]["batch_augments"] = [augment]
    model["backbone"] = {
        "type": "ViT",
        "img_size": 1024,
        "patch_size": 16,
        "embed_dim": 768,
        "depth": 12,
        "num_heads": 12,
        "drop_path_rate": 0.1,
        "window_size": 14,
        "mlp_ratio": 4,
        "qkv_bias": True,
        "norm_cfg": {"type": "LN", "requires_grad": True},
        "window_block_indexes": [0, 1, 3, 4, 6, 7, 9, 10],
        "use_rel_pos": True,
        "init_cfg": {"type": "Pretrained", "checkpoint": "weights.pth"},
    }
    widths = {"backbone_channel": 768, "in_channels": [192, 384, 768, 768]}
    model["neck"] = {"type": "SimpleFPN", **widths, "out_channels": 256, "num_outs": 5, "norm_cfg": norm}
    model["rpn_head"]["num_convs"] = 2
    model["roi_head"]["bbox_head"] |= {"type": "Shared4Conv1FCBBoxHead", "conv_out_channels": 256, "norm_cfg": norm}
    model["roi_head"]["mask_head"]["norm_cfg"] = norm
    decay = {"decay_rate": 0.7, "decay_type": "layer_wise", "num_layers": 12}
    optimizer = {**VITDET["optim_wrapper"], "constructor": "LayerDecayOptimizerConstructor", "paramwise_cfg": decay}
    hook = {"type": "Fp16CompresssionHook"}
    config = {**base, **VITDET, "optim_wrapper": optimizer, "custom_hooks": [hook]}
    (row,) = (row for row in HERE if row.config)
    assert digest(config, gpus=16) == row.digest
    assert digest({**config, "custom_hooks": []}, gpus=16) != row.digest
    assert (row.images, row.lr) == (16 * 4, optimizer["optimizer"]["lr"])


def test_a_config_with_timms_network_is_not_compared_with_vitdets_row():
    """ViTDet's has relative positions in its windows."""
    text = without_checkpoint(VisionTransformer(768, 12, 3072, 16, 196), "mae", Choices("mask-rcnn", "vitdet"))
    assert digest(resolve(text), gpus=16) not in {row.digest for row in HERE}


def test_a_row_of_another_framework_has_no_digest():
    assert {row.name for row in RECIPES.values() if not row.digest} == {
        row.name for row in RECIPES.values() if row.name.endswith(("-detectron2", "-moby"))
    }


@EVERY
def test_the_digest_is_that_of_mmdetections_own_config(recipe):
    config = read(OWN / "selfsup_pretrain" / FILES[recipe.name])
    assert digest(config, gpus=8) == recipe.digest
    assert config["optim_wrapper"]["optimizer"]["lr"] == recipe.lr
    assert config["train_dataloader"]["batch_size"] * 8 == recipe.images


@EVERY
@pytest.mark.parametrize("style", ["inherit", "flat"])
def test_the_digest_is_that_of_the_emitted_config(recipe, style):
    said = {"detector": recipe.detector, "schedule": recipe.schedule, "style": style}
    emitted = emit("r50", path="elsewhere.safetensors", method=recipe.method, data_root="far/away", **said)
    assert digest(resolve(emitted.text), gpus=8) == recipe.digest
    split = emit("r50", method=recipe.method, batch_size=4, gpus=4, **said)
    assert digest(resolve(split.text), gpus=4) == recipe.digest  # as many images a step


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "2x"},
        {"schedule": "mmselfsup"},
        {"detector": "faster-rcnn"},
        {"norm": "BN"},
        {"frozen_stages": 1},
        {"batch_size": 1},
        {"amp": True},
        {"classes": "a,b,c"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_recipe_has_another_digest(change):
    recipe = RECIPES["mocov2-mask-rcnn-r50-fpn-1x"]
    emitted = emit("r50", **{"detector": recipe.detector, "schedule": recipe.schedule, **change})
    assert digest(resolve(emitted.text), gpus=8) != recipe.digest


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: r.name)
def test_a_row_is_whole(recipe):
    assert RECIPES[recipe.name] is recipe
    assert 0 < recipe.mask < recipe.box < 100
    assert recipe.tolerance > 0
    assert recipe.reason
    assert recipe.source


@pytest.mark.parametrize("recipe", HERE, ids=lambda r: r.name)
def test_a_row_that_can_be_trained_is_in_the_tables(recipe):
    if not recipe.config:
        assert recipe.choices == Choices(recipe.detector, recipe.schedule)
    assert recipe.detector in DETECTORS
    assert recipe.schedule in SCHEDULES
    assert recipe.method in {m.name for m in METHODS}


def test_a_hook_that_changes_the_weights_makes_another_recipe():
    config = read(OWN / "selfsup_pretrain" / FILES[OF_MMDET[0].name])
    assert digest(config, gpus=8) == OF_MMDET[0].digest
    assert digest({**config, "custom_hooks": [{"type": "EMAHook"}]}, gpus=8) != OF_MMDET[0].digest
    assert digest({**config, "load_from": "other.pth"}, gpus=8) != OF_MMDET[0].digest
    assert digest({**config, "val_cfg": {"type": "ValLoop", "fp16": True}}, gpus=8) != OF_MMDET[0].digest


def renamed(node: Any, library: str) -> Any:
    """A config whose types are written in another way; hooks and what no type is keep their names."""
    if isinstance(node, dict):
        changed = {key: renamed(value, library) for key, value in node.items()}
        return {**changed, "type": library + node["type"]} if isinstance(node.get("type"), str) else changed
    return [renamed(value, library) for value in node] if isinstance(node, list | tuple) else node


@pytest.mark.parametrize(
    ("library", "same"),
    [("mmdet.", True), ("mmdet.models.some.", True), ("torch.optim.", True), ("mmpretrain.", False), ("mine.", False)],
)
def test_a_recipe_is_itself_whatever_way_its_types_are_written(library, same):
    config = read(OWN / "selfsup_pretrain" / FILES[OF_MMDET[0].name])
    assert (digest(renamed(config, library), gpus=8) == OF_MMDET[0].digest) == same


def test_a_scope_beside_a_type_counts_as_one_before_it():
    config = read(OWN / "selfsup_pretrain" / FILES[OF_MMDET[0].name])
    for scope, same in (("mmdet", True), ("mmpretrain", False)):
        backbone = {**config["model"]["backbone"], "_scope_": scope}
        changed = {**config, "model": {**config["model"], "backbone": backbone}}
        assert (digest(changed, gpus=8) == OF_MMDET[0].digest) == same
