"""MMPretrain's transformers in real detectors that stand on one map: proved, trained for a step, refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData

import ckptconv
from ckptconv.backbones import Backbone
from ckptconv.backbones.beit import Beit
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.errors import UsageError
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check.run import check
from ckptconv.mmdetection.config import emit
from ckptconv.mmdetection.config.backbone_args import ON_ONE_MAP
from ckptconv.mmdetection.config.options import choose
from ckptconv.rules import keep
from tests.mmdetection.config.test_replace_backbone import TINY, file_of
from tests.support import pretrain
from tests.support.converted import plain, read

pytestmark = [
    pytest.mark.mmdet,
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:The arguments `dropout` in MultiheadAttention:DeprecationWarning"),
]

DETR = "mmdet::detr/detr_r50_8xb2-150e_coco.py"
YOLOF = "mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py"
VIT = VisionTransformer(64, 3, 128, 16, 14 * 14)
CAE = Beit(64, 3, 128, 16, 14, 1, shared_relative_positions=False, absolute_positions=True)
NETWORKS: dict[str, Backbone] = {
    "ViT": VIT,
    "LayerScale, patches of 14": replace(VIT, patch_size=14, layer_scale=True),
    "SwiGLU": replace(VIT, layer_scale=True, swiglu=True),
    "no class token": replace(VIT, class_token=False, prefix_positions=0),
    "no norm, no bias": replace(VIT, final_norm=False, qkv_bias=False),
    "BEiT": CAE,
    "BEiT without LayerScale and norm": replace(CAE, layer_scale=False, final_norm=False),
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    pretrain.models()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def vit_of(network: Backbone, target: str = "mmpretrain", **said: Any) -> str:
    torch.manual_seed(0)
    torch.save({n: torch.rand(shape) * 0.1 for n, shape in network.entries().items()}, "raw.pth")
    ckptconv.convert("raw.pth", "vit.pth", [keep("{key...}", "{key...}")], target=target, force=True, **said)
    return "vit.pth"


def written(path: str, base: str = ON_ONE_MAP, **said: Any) -> str:
    emit.write(path, "made.py", choose(base=base, **said), force=True)
    return "made.py"


@pytest.mark.parametrize("which", NETWORKS)
def test_check_proves_every_tensor_in_the_real_detector(which: str) -> None:
    network = NETWORKS[which]
    found = check(written(vit_of(network), classes="a,b,c"))
    (report,) = found.modules
    assert found.good, report
    assert report.equal == report.total == len(network.entries())
    (note,) = report.notes  # no published network has this width
    assert note.text.startswith("assumed: 1 attention head, of about 64 channels.")


def test_what_is_written_is_the_network_on_its_own_stride() -> None:
    made = read(Path(written(vit_of(replace(VIT, patch_size=14)), guard=False)).resolve())
    model = plain(made["model"])
    assert model["backbone"] == {
        "type": "mmpretrain.VisionTransformer",
        "arch": {"embed_dims": 64, "num_layers": 3, "num_heads": 1, "feedforward_channels": 128},
        "img_size": 196,
        "patch_size": 14,
        "drop_path_rate": 0.1,
        "final_norm": True,
        "out_type": "featmap",
        "init_cfg": {"type": "Pretrained", "checkpoint": str(Path("vit.pth").resolve()), "prefix": "backbone."},
    }
    assert model["rpn_head"]["anchor_generator"]["strides"] == [14]
    assert model["roi_head"]["bbox_roi_extractor"]["featmap_strides"] == [14]
    assert (model["rpn_head"]["in_channels"], model["rpn_head"]["feat_channels"]) == (64, 64)
    assert (model["roi_head"]["bbox_roi_extractor"]["out_channels"], model["roi_head"]["bbox_head"]["in_channels"]) == (
        64,
        64,
    )
    assert plain(made["custom_imports"]["imports"]) == ["mmpretrain.models"]
    assert model["data_preprocessor"]["bgr_to_rgb"] is True
    optimizer = plain(made["optim_wrapper"]["optimizer"])
    assert optimizer == {"type": "AdamW", "lr": 0.0001, "betas": [0.9, 0.999], "weight_decay": 0.05}


def test_the_only_map_of_another_detector_has_that_stride_too() -> None:
    anchors = read(Path(written(vit_of(VIT), YOLOF)).resolve())["model"]["bbox_head"]["anchor_generator"]
    assert plain(anchors["strides"]) == [16]


def test_a_base_whose_strides_are_no_list_is_taken_as_it_is() -> None:
    Path("odd.py").write_text(f"_base_ = '{YOLOF}'\nmodel = dict(bbox_head=dict(anchor_generator=dict(strides=32)))")
    assert (
        plain(read(Path(written(vit_of(VIT), "odd.py")).resolve())["model"]["bbox_head"]["anchor_generator"]["strides"])
        == 32
    )


def images() -> dict[str, list[Any]]:
    """Two images of noise, neither square nor a multiple of a patch, with an object each."""
    rng, samples = torch.Generator().manual_seed(1), []
    for _ in range(2):
        size = (70, 118)
        meta = {"img_shape": size, "ori_shape": size, "pad_shape": size, "batch_input_shape": size, "img_id": 1}
        sample = DetDataSample(metainfo={**meta, "scale_factor": (1.0, 1.0)})
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 90.0, 60.0]]), labels=torch.tensor([2]))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    pictures = [torch.randint(0, 256, (3, *size), generator=rng, dtype=torch.uint8) for _ in samples]
    return {"inputs": pictures, "data_samples": samples}


@pytest.mark.parametrize("network", [VIT, replace(VIT, patch_size=14), CAE], ids=["ViT", "patches of 14", "BEiT"])
@pytest.mark.parametrize("base", [ON_ONE_MAP, DETR, YOLOF], ids=["Faster R-CNN", "DETR", "YOLOF"])
def test_a_step_of_training_reaches_every_parameter(network: Backbone, base: str) -> None:
    found = Config.fromfile(written(vit_of(network), base, classes="a,b,c"))
    found.model.backbone.drop_path_rate = 0  # a block that is left out learns nothing in this step
    model = runtime.build(found, "made.py")
    model.init_weights()
    build_optim_wrapper(model, found.optim_wrapper)
    model.train()
    losses, _ = model.parse_losses(model(**model.data_preprocessor(images(), training=True), mode="loss"))
    assert math.isfinite(losses.item())
    losses.backward()
    assert [
        name for name, value in model.backbone.named_parameters() if value.grad is None or not value.grad.any()
    ] == []
    model.eval()
    with torch.no_grad():
        assert all(one.pred_instances.bboxes.isfinite().all() for one in model.test_step(images()))


# Refusals


def test_a_detector_on_a_pyramid_is_refused_with_what_works() -> None:
    path = vit_of(VIT)
    for said in ({}, {"base": "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"}):
        with pytest.raises(UsageError) as caught:
            emit.emit(path, choose(**said))
        assert caught.value.message.startswith("ViT-64x3/16 gives one map of features, which ")
        assert caught.value.hint == (
            "For a pyramid of maps, convert it with `target='vitdet'`. For one map, give a config such as: "
            f"`base='{ON_ONE_MAP}'`"
        )


def test_a_shared_head_is_refused_with_a_config_that_works() -> None:
    with pytest.raises(UsageError) as caught:
        emit.emit(vit_of(VIT), choose(detector="mask-rcnn-c4"))
    assert caught.value.message.startswith("ViT-64x3/16 cannot be the backbone of Mask R-CNN on C4: its last stage is")
    assert caught.value.hint == f"Give a config that can use it: `base='{ON_ONE_MAP}'`"


def test_a_network_that_does_not_dilate_is_refused_where_strides_are_from_dilations() -> None:
    with pytest.raises(UsageError) as caught:
        emit.emit(file_of(TINY, "moby", prefix="encoder."), choose(base=ON_ONE_MAP))
    assert caught.value.message == f"{ON_ONE_MAP} has its strides from dilations, which Swin-T, window 7 does not have"


RELATIVE = replace(CAE, absolute_positions=False, own_relative_positions=True)


def test_a_beit_with_relative_positions_goes_in_as_timms_for_images_of_one_size() -> None:
    assert "image_size=(1024, 1024)" in emit.emit(vit_of(RELATIVE, "timm"), choose(base=ON_ONE_MAP)).text


def test_mmpretrains_class_for_it_takes_no_other_size_and_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        emit.emit(vit_of(RELATIVE, "mmpretrain"), choose(base=ON_ONE_MAP))
    assert caught.value.message == "vit.pth was written for mmpretrain, not for MMDetection"
    assert caught.value.hint == "Convert it again from its source, without `target`."


def test_a_beit_with_relative_positions_truly_takes_images_of_one_size() -> None:
    arch = {"embed_dims": 64, "num_layers": 1, "num_heads": 1, "feedforward_channels": 128}
    network = pretrain.models().BEiTViT(arch=arch, out_type="featmap")
    assert network(torch.zeros(1, 3, 224, 224))[0].shape == (1, 64, 14, 14)
    with pytest.raises(RuntimeError, match="must match the size"):
        network(torch.zeros(1, 3, 256, 224))
