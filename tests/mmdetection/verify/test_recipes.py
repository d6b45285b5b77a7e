"""Published rows: their recipes are those of MMDetection's own configs, and of what `emit-config` writes for them."""

from __future__ import annotations

import pytest

from ckptconv.methods import METHODS
from ckptconv.mmdetection.choices import Choices
from ckptconv.mmdetection.detectors import DETECTORS, SCHEDULES
from ckptconv.mmdetection.verify.recipes import RECIPES, digest
from tests.mmdetection.converted import OWN, emit, read, resolve

pytestmark = pytest.mark.mmdet

FILES = {
    "mocov2-mask-rcnn-r50-fpn-1x": "mask-rcnn_r50-mocov2-pre_fpn_1x_coco.py",
    "mocov2-mask-rcnn-r50-fpn-ms-2x": "mask-rcnn_r50-mocov2-pre_fpn_ms-2x_coco.py",
    "swav-mask-rcnn-r50-fpn-1x": "mask-rcnn_r50-swav-pre_fpn_1x_coco.py",
    "swav-mask-rcnn-r50-fpn-ms-2x": "mask-rcnn_r50-swav-pre_fpn_ms-2x_coco.py",
}
EVERY = pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: r.name)


def test_every_row_has_a_config_of_mmdetection():
    assert set(RECIPES) == set(FILES)


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
        {"num_classes": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_recipe_has_another_digest(change):
    recipe = RECIPES["mocov2-mask-rcnn-r50-fpn-1x"]
    emitted = emit("r50", **{"detector": recipe.detector, "schedule": recipe.schedule, **change})
    assert digest(resolve(emitted.text), gpus=8) != recipe.digest


@EVERY
def test_a_row_is_whole(recipe):
    assert recipe.choices == Choices(recipe.detector, recipe.schedule)
    assert recipe.detector in DETECTORS
    assert recipe.schedule in SCHEDULES
    assert recipe.method in {m.name for m in METHODS}
    assert 0 < recipe.mask < recipe.box < 100
    assert recipe.tolerance > 0
    assert recipe.reason
    assert recipe.source
