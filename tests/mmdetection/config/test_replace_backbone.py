"""`emit-config`, `check` and the guard with backbones that are no ResNets: Swin, ConvNeXt, ViT.

What is expected comes from MMDetection's own configs for these networks, and from its real Swin.
"""

from __future__ import annotations

import inspect
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models.backbones.swin import SwinTransformer

import ckptconv
from ckptconv.backbones import TargetName
from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.backbones.interface import Backbone
from ckptconv.backbones.resnet import ResNet
from ckptconv.backbones.swin import Swin
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.errors import UsageError
from ckptconv.mmdetection.check.run import check
from ckptconv.mmdetection.config import emit
from ckptconv.mmdetection.config.options import choose
from ckptconv.rules import keep
from tests.support.converted import OWN, plain, read, resolve, values

pytestmark = pytest.mark.mmdet

TINY = Swin(96, 384, (2, 2, 6, 2), (3, 6, 12, 24), (7, 7, 7, 7))
SMALL = Swin(8, 32, (2, 1, 1, 1), (1, 2, 4, 8), (7, 7, 7, 7))
CONVNEXT = ConvNeXt(
    (3, 3, 9, 3), (96, 192, 384, 768), grn=False, layer_scale=True, final_norm=True, patch_size=4, in_channels=3
)
VIT = VisionTransformer(384, 12, 1536, 16, 196)

VITDET = """
_base_ = "mmdet::_base_/models/mask-rcnn_r50_fpn.py"
custom_imports = dict(imports=["projects.ViTDet.vitdet"])
model = dict(
    backbone=dict(_delete_=True, type="ViT", img_size=1024, patch_size=16, embed_dim=768, depth=12, num_heads=12,
        drop_path_rate=0.1, window_size=14, mlp_ratio=4, qkv_bias=True, norm_cfg=dict(type="LN", requires_grad=True),
        window_block_indexes=[0, 1, 3, 4, 6, 7, 9, 10], use_rel_pos=True,
        init_cfg=dict(type="Pretrained", checkpoint="mae_pretrain_vit_base.pth")),
    neck=dict(_delete_=True, type="SimpleFPN", backbone_channel=768, in_channels=[192, 384, 768, 768], out_channels=256,
        num_outs=5))
train_dataloader = dict(batch_size=4, dataset=dict(ann_file="a.json"))
optim_wrapper = dict(type="AmpOptimWrapper", constructor="LayerDecayOptimizerConstructor",
    optimizer=dict(type="AdamW", lr=0.0001, betas=(0.9, 0.999), weight_decay=0.1))
"""
"""The parts that matter of projects/ViTDet/configs/vitdet_mask-rcnn_vit-b-mae_lsj-100e.py, which no wheel ships."""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def file_of(
    backbone: Backbone, method: str = "auto", name: str = "backbone.pth", prefix: str = "", seed: int = 0
) -> str:
    """A converted file of this network, from canonical names."""
    torch.manual_seed(seed)
    state = {f"{prefix}{n}": torch.rand(shape) * 0.1 for n, shape in backbone.entries().items()}
    torch.save({"state_dict" if method == "mocov3" else "model": state}, "raw.pth")
    target: TargetName | None = "vitdet" if isinstance(backbone, VisionTransformer) else None
    ckptconv.convert("raw.pth", name, method, target=target)
    return name


def emitted(path: str, **said: Any) -> emit.Emitted:
    return emit.emit(path, choose(**said))


def made(path: str, **said: Any) -> dict[str, Any]:
    out = Path("made.py").resolve()
    out.write_text(emitted(path, **said).text)
    return read(out)


def of_the_constructor(backbone: dict[str, Any]) -> dict[str, Any]:
    """Arguments that differ from what the constructor takes them for."""
    usual = {n: p.default for n, p in inspect.signature(SwinTransformer).parameters.items()}
    return {k: v for k, v in backbone.items() if k == "type" or plain(v) != plain(usual[k])}


def test_swin_is_trained_as_mmdetections_own_config_trains_it() -> None:
    path = file_of(TINY, "moby", prefix="encoder.")
    mine, own = made(path), read(OWN / "swin" / "mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py")
    for name in ("param_scheduler", "optim_wrapper", "train_cfg", "train_dataloader", "auto_scale_lr"):
        assert plain(mine[name]) == plain(own[name]), name
    start = {"type": "Pretrained", "checkpoint": str(Path(path).resolve())}
    assert plain(mine["model"]["backbone"].pop("init_cfg")) == start
    own["model"]["backbone"].pop("init_cfg")
    assert own["model"]["backbone"].pop("convert_weights") is True  # the official file; ours has the names already
    assert of_the_constructor(plain(mine["model"].pop("backbone"))) == of_the_constructor(
        plain(own["model"].pop("backbone"))
    )
    assert plain(mine["model"]) == plain(own["model"])


def test_convnext_is_trained_as_mmdetections_own_config_trains_it() -> None:
    path = file_of(CONVNEXT, "convnext")
    mine, own = made(path, amp=True), read(OWN / "convnext" / "mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py")
    assert plain(mine["optim_wrapper"]) == plain(own["optim_wrapper"])
    assert plain(mine["param_scheduler"])[0] == plain(own["param_scheduler"])[0]
    backbone, theirs = plain(mine["model"].pop("backbone")), plain(own["model"].pop("backbone"))
    assert backbone.pop("init_cfg") == {
        "type": "Pretrained",
        "checkpoint": str(Path(path).resolve()),
        "prefix": "backbone.",
    }
    assert theirs.pop("init_cfg")["prefix"] == "backbone."
    assert backbone.pop("arch") == {"depths": [3, 3, 9, 3], "channels": [96, 192, 384, 768]}
    assert theirs.pop("arch") == "tiny"
    assert backbone == theirs
    assert plain(mine["model"]) == plain(own["model"])
    assert own["custom_imports"]["imports"] == mine["custom_imports"]["imports"][:1]


@pytest.mark.parametrize("detector", ["retinanet", "fcos", "atss"])
def test_a_stage_that_the_neck_leaves_aside_is_not_handed_out(detector: str) -> None:
    """Its norm would get no gradient, on which DistributedDataParallel stops."""
    model = made(file_of(TINY, "moby", prefix="encoder."), detector=detector)["model"]
    assert model["backbone"]["out_indices"] == [1, 2, 3]
    assert model["neck"]["in_channels"] == [192, 384, 768]
    assert model["neck"]["start_level"] == 0


@pytest.mark.parametrize("detector", ["dino", "deformable-detr"])
def test_a_detector_that_has_adamw_keeps_its_own(detector: str) -> None:
    path = file_of(TINY, "moby", prefix="encoder.")
    mine, text = made(path, detector=detector), emitted(path, detector=detector).text
    assert "optim_wrapper" not in text
    assert mine["model"]["backbone"]["out_indices"] == [1, 2, 3]
    assert mine["model"]["neck"]["in_channels"] == [192, 384, 768]


def test_flat_is_what_inherit_resolves_to() -> None:
    path = file_of(TINY, "moby", prefix="encoder.")
    for said in ({"detector": "cascade-mask-rcnn", "schedule": "ms-2x", "batch_size": 1, "gpus": 4}, {}):
        inherit, flat = (emitted(path, style=style, **said).text for style in ("inherit", "flat"))
        assert plain(resolve(inherit)) == plain(values(flat))


def test_the_rate_follows_the_images() -> None:
    found = emitted(file_of(TINY, "moby", prefix="encoder."), batch_size=1, gpus=8)
    assert (found.images, found.lr) == (8, 0.00005)
    assert resolve(found.text)["optim_wrapper"]["optimizer"]["lr"] == 0.00005


def test_the_epsilon_of_the_method_is_the_networks() -> None:
    torch.manual_seed(0)
    state = {name: torch.rand(shape) for name, shape in TINY.entries().items()}
    torch.save({"state_dict": {**state, "masked_embed": torch.zeros(1, 96)}}, "ibot.pth")
    ckptconv.convert("ibot.pth", "swin.pth", "ibot")
    assert made("swin.pth")["model"]["backbone"]["norm_cfg"] == {"type": "LN", "eps": 1e-6}


def test_what_makes_no_sense_is_refused() -> None:
    path = file_of(TINY, "moby", prefix="encoder.")
    with pytest.raises(UsageError, match="`norm='BN'`: Swin-T, window 7 does not have batch norm"):
        emitted(path, norm="BN")
    with pytest.raises(UsageError, match="its last stage is MMDetection's ResLayer"):
        emitted(path, detector="mask-rcnn-c4")


def test_a_vit_stands_on_vitdet_only() -> None:
    path = file_of(VIT, "mae")
    with pytest.raises(UsageError) as caught:
        emitted(path)
    assert caught.value.message == ("ViT-S/16 gives one map of features, which Mask R-CNN with FPN cannot use")
    assert caught.value.hint == (
        "Give a config of ViTDet, from a clone of MMDetection: `base='projects/ViTDet/configs/FILE.py'`"
    )
    Path("vitdet.py").write_text(VITDET)
    mine = made(path, base="vitdet.py")
    backbone = plain(mine["model"]["backbone"])
    assert backbone == {
        "type": "ViT",
        "img_size": 1024,
        "patch_size": 16,
        "embed_dim": 384,
        "depth": 12,
        "num_heads": 6,
        "drop_path_rate": 0.1,
        "window_size": 14,
        "mlp_ratio": 4.0,
        "qkv_bias": True,
        "norm_cfg": {"type": "LN", "requires_grad": True, "eps": 1e-6},
        "window_block_indexes": [0, 1, 3, 4, 6, 7, 9, 10],
        "use_rel_pos": True,
        "pretrain_img_size": 224,
        "pretrain_use_cls_token": True,
        "init_cfg": {"type": "Pretrained", "checkpoint": str(Path(path).resolve())},
    }
    assert mine["model"]["neck"]["in_channels"] == [96, 192, 384, 384]
    assert mine["model"]["neck"]["backbone_channel"] == 384
    assert mine["optim_wrapper"]["optimizer"]["type"] == "AdamW"
    assert mine["optim_wrapper"]["optimizer"]["weight_decay"] == 0.1
    assert mine["custom_imports"]["imports"][0] == "projects.ViTDet.vitdet"


def test_vitdet_is_told_of_positions_that_were_resized() -> None:
    Path("vitdet.py").write_text(VITDET)
    file_of(VIT, "mae", "usual.pth")
    ckptconv.convert("raw.pth", "large.pth", "mae", image_size=1024, target="vitdet")
    assert made("usual.pth", base="vitdet.py")["model"]["backbone"]["pretrain_img_size"] == 224
    assert made("large.pth", base="vitdet.py")["model"]["backbone"]["pretrain_img_size"] == 1024


def test_what_was_written_for_another_target_is_refused() -> None:
    """Also where no config could hold the network: its positions have no grid."""
    oblong = replace(VIT, positions=200)
    torch.save({"model": {n: torch.rand(shape) * 0.1 for n, shape in oblong.entries().items()}}, "raw.pth")
    ckptconv.convert("raw.pth", "oblong.pth", [keep("{key...}", "{key...}")], target="timm")
    with pytest.raises(UsageError) as caught:
        emitted("oblong.pth")
    assert caught.value.message == (
        "ViT-S/16 has 200 positions, which are not a square grid: the sides of its images are unknown"
    )
    assert caught.value.hint == "Take a ViT with a square grid, such as MAE's or DINO's."
    file_of(ResNet((2, 2, 2, 2), False, 64, 64, 64, 1, 7, 3))
    ckptconv.convert("raw.pth", "theirs.pth", [keep("{key...}", "{key...}")], target="torchvision")
    with pytest.raises(UsageError) as caught:
        emitted("theirs.pth")
    assert caught.value.message == "theirs.pth was written for torchvision, not for MMDetection"
    assert caught.value.hint == "Convert it again from its source, without `target`."


def test_a_deep_convnext_is_trained_as_mmdetections_own_config_trains_it() -> None:
    path = file_of(replace(CONVNEXT, depths=(3, 3, 27, 3)), "convnext")
    name = "cascade-mask-rcnn_convnext-s-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py"
    mine, own = made(path), read(OWN / "convnext" / name)
    assert plain(mine["optim_wrapper"]["paramwise_cfg"]) == plain(own["optim_wrapper"]["paramwise_cfg"])
    assert mine["model"]["backbone"]["drop_path_rate"] == own["model"]["backbone"]["drop_path_rate"]


def test_the_heads_of_the_method_are_the_networks() -> None:
    """MoCo v3's ViT-S has twelve, all others six, and no tensor tells."""
    Path("vitdet.py").write_text(VITDET)
    path = file_of(VIT, "mocov3", prefix="module.base_encoder.")
    assert made(path, base="vitdet.py")["model"]["backbone"]["num_heads"] == 12


# The real Swin


def small(path: str) -> Path:
    out = Path("swin.py")
    out.write_text(emitted(path, classes="a,b,c").text)
    return out


def test_check_proves_a_swin() -> None:
    found = check(str(small(file_of(SMALL, "moby", prefix="encoder."))))
    (report,) = found.modules
    assert found.good
    assert report.equal == report.total == len(SMALL.entries()) - 2  # the last norm
    (note,) = report.notes
    assert note.text.startswith("13 tensors of the module that no checkpoint of the network has: stages.*.blocks.*")
    assert "norm0.weight" in note.text


def test_check_proves_a_table_that_mmdetection_resizes() -> None:
    """As SimMIM-L's: its last stage saw less of an image than a window, and MMDetection has one window for all."""
    found = check(str(small(file_of(replace(SMALL, window_sizes=(7, 7, 7, 4)), "moby", prefix="encoder."))))
    (report,) = found.modules
    assert found.good
    assert report.equal == report.total


def test_check_sees_another_file_under_a_swin() -> None:
    path = small(file_of(SMALL, "moby", prefix="encoder."))
    shutil.copy("raw.pth", "backbone.pth")  # the raw file in the converted one's place
    (report,) = check(str(path)).modules
    (problem,) = report.problems
    assert problem.text == (
        "SwinTransformer loads only names that start with 'backbone.' (with convert_weights=True also its authors' "
        f"names); {Path.cwd()}/backbone.pth has none of them, and the initialisation fails: IndexError: list index out "
        "of range"
    )
    assert f"{Path.cwd()}/backbone.pth', 'backbone_backbone.pth'" in problem.fixes[0]
    assert "`, then model.backbone.init_cfg=" in problem.fixes[0]
