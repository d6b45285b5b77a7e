"""Configs for networks of timm: a pyramid for every detector, layer decay, freezing, and ViTDet's schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

import ckptconv
from ckptconv.backbones.beit import Beit
from ckptconv.errors import UsageError
from ckptconv.mmdetection.config import fine_tuning
from ckptconv.mmdetection.config.detectors import DETECTORS
from ckptconv.rules import keep
from tests.support import official, pretrain
from tests.support.converted import OWN, at, plain

pytestmark = [pytest.mark.mmdet, pytest.mark.filterwarnings("ignore")]  # of mmdet's and timm's own code

PLAIN = {"dino_vit": 16, "dinov2_vit": 14}
"""Networks of `tests/official`, and the pixels of a patch."""
STAGES = ("hiera_mae", "seer_regnety")
FIXED = ("hiera_mae", "beit_vit")
"""Networks that take images of one size."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The converted file of each network, for timm."""
    folder = tmp_path_factory.mktemp("timm")
    written = {}
    for name in dict.fromkeys((*PLAIN, *STAGES, *FIXED, "dino_xcit", "mae_vit")):
        network = official.network(name)
        source = network.write(folder)
        written[name] = folder / f"{name}.pth"
        ckptconv.convert(source, written[name], "auto" if network.guessed else network.method, target="timm")
    pretrain.module("timm")
    return written


def config_of(file, **choices: Any) -> Config:
    choices = {"guard": False, **choices}
    out = file.with_name("config.py")
    ckptconv.emit_config(file, out, force=True, **choices)
    return Config.fromfile(out)


def built(config: Config) -> Any:
    init_default_scope("mmdet")
    torch.manual_seed(0)
    detector = MODELS.build(config.model)
    detector.init_weights()
    return detector


def quick(config: Config) -> Config:
    """The same detector with fewer proposals and queries: they cost what the network and its pyramid do not."""
    model = config.model
    for part, choices in (("train_cfg", "rpn_proposal"), ("test_cfg", "rpn")):
        if choices in (model.get(part) or {}):
            model[part][choices].update(nms_pre=60, max_per_img=20)
    if "num_queries" in model:
        model.num_queries = 20
        model.encoder.num_layers = model.decoder.num_layers = 2
    if "image_size" in model.backbone:
        model.backbone.image_size = (256, 256)
    model.test_cfg.get("rcnn", model.test_cfg).max_per_img = 5
    return config


def batch(height: int = 160, width: int = 192) -> dict[str, Any]:
    """One image with two objects."""
    shape = {"img_shape": (height, width), "ori_shape": (height, width), "scale_factor": (1.0, 1.0)}
    sample = DetDataSample(metainfo={**shape, "pad_shape": (height, width), "batch_input_shape": (height, width)})
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[10.0, 10.0, 90.0, 110.0], [60.0, 40.0, 180.0, 150.0]]), labels=torch.tensor([0, 1])
    )
    sample.gt_instances.masks = BitmapMasks(np.ones((2, height, width), np.uint8), height, width)
    image = torch.arange(3 * height * width).remainder(251).to(torch.uint8).reshape(3, height, width)
    return {"inputs": [image], "data_samples": [sample]}


@pytest.mark.parametrize(
    ("network", "detector"),
    [
        *(("dino_vit", detector) for detector in DETECTORS),
        *((n, detector) for n in ("dinov2_vit", *STAGES, "beit_vit") for detector in ("mask-rcnn-c4", "atss", "dino")),
    ],
)
def test_one_step_trains_every_parameter(files, network, detector):
    model = built(quick(config_of(files[network], detector=detector))).train()
    loss, _ = model.parse_losses(model(**model.data_preprocessor(batch(), training=True), mode="loss"))
    loss.backward()
    assert torch.isfinite(loss)
    untrained = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    # what a query of the denoising part has, and no image without it
    assert [name for name in untrained if not name.startswith("dn_query_generator")] == []
    with torch.no_grad():
        (result,) = model.eval()(**model.data_preprocessor(batch()), mode="predict")
    assert result.pred_instances.bboxes.shape[1] == 4


@pytest.mark.parametrize("network", PLAIN)
@pytest.mark.parametrize("detector", [d for d in DETECTORS.values() if d.level_strides], ids=lambda d: d.name)
def test_anchors_and_rois_have_the_strides_of_the_maps(files, detector, network):
    """Measured on the maps of the built detector: a map of stride s has ceil or floor of side / s points a side."""
    config = config_of(files[network], detector=detector.name)
    model = built(config).eval()
    side = 16 * 14
    with torch.no_grad():
        maps = model.neck(model.backbone(torch.zeros(1, 3, side, side)))
    patch = PLAIN[network]
    assert len(maps) == len(detector.levels)
    assert [side / m.shape[-1] for m in maps[:3]] == [patch / 16 * level for level in detector.levels[:3]]
    for path, strides in detector.level_strides.items():
        first = at(config, path)
        stated = plain(first[0]) if len(first) == 1 else plain(first)
        assert list(stated) == [one * patch / 16 for one in strides], path


AMP = "mixed precision makes this training faster and takes less memory: `amp=True`"


@pytest.mark.parametrize(
    ("network", "choices", "suggested"),
    [
        ("dino_vit", {}, True),
        ("dino_vit", {"detector": "dino"}, True),  # its own optimizer is AdamW
        ("hiera_mae", {}, True),
        ("seer_regnety", {}, False),
        ("dino_vit", {"amp": True}, False),
        ("dino_vit", {"schedule": "vitdet"}, False),  # has it
    ],
    ids=str,
)
def test_mixed_precision_is_suggested_for_transformers(files, network, choices, suggested):
    emitted = ckptconv.emit_config(files[network], guard=False, **choices)
    assert (AMP in emitted.notes) == suggested


def test_a_step_in_bfloat16_with_layer_decay(files, monkeypatch):
    """As `--amp` writes it, with the dtype that its comment names; on a CPU, where mmengine refuses to start."""
    from mmengine.optim import build_optim_wrapper
    from mmengine.optim.optimizer import amp_optimizer_wrapper

    config = config_of(files["dinov2_vit"], detector="retinanet", amp=True)
    model = built(config).train()
    monkeypatch.setattr(amp_optimizer_wrapper, "is_cuda_available", lambda: True)
    wrapper = build_optim_wrapper(model, {**config.optim_wrapper, "dtype": "bfloat16"})
    assert type(wrapper).__name__ == "AmpOptimWrapper"
    rates = {group["lr"] for group in wrapper.optimizer.param_groups}
    assert len(rates) == 5  # embeddings, three blocks, the rest
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    data = model.data_preprocessor(batch(), training=True)
    with wrapper.optim_context(model):
        loss, _ = model.parse_losses(model(**data, mode="loss"))
    wrapper.update_params(loss)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(one).all() for one in model.parameters())
    moved = {name for name, one in model.named_parameters() if not torch.equal(one, before[name])}
    assert {"backbone.patch_embed.proj.weight", "backbone.blocks.2.attn.qkv.weight", "backbone.norm.weight"} <= moved


def test_rates_decay_with_the_depth_of_the_network(files):
    config = config_of(files["dino_vit"])
    assert config.optim_wrapper.constructor == "LayerDecayOptimWrapperConstructor"
    assert config.optim_wrapper.paramwise_cfg == {"decay_rate": 0.7}
    assert (config.optim_wrapper.optimizer.lr, config.optim_wrapper.optimizer.weight_decay) == (1e-4, 0.1)
    halved = config_of(files["dino_vit"], gpus=4)
    assert halved.optim_wrapper.optimizer.lr == 5e-5


@pytest.mark.parametrize(
    ("freeze", "frozen", "trained"), [("all", "all", 0), ("2", 2, None), ("none", None, None)], ids=["all", "2", "none"]
)
def test_freeze(files, freeze, frozen, trained):
    config = config_of(files["dino_vit"], freeze=freeze)
    assert config.model.backbone.get("frozen") == frozen
    backbone = built(config).train().backbone
    names = {name for name, p in backbone.named_parameters() if p.requires_grad}
    if trained == 0:
        assert not names
        assert not backbone.blocks[0].training
    else:
        still = {int(name.split(".")[1]) for name in names if name.startswith("blocks.")}
        assert still == set(range(frozen or 0, 3))
        assert ("patch_embed.proj.weight" in names) == (frozen is None)


@pytest.mark.parametrize(
    ("choices", "message", "hint", "parameter"),
    [
        (
            {"frozen_stages": 1},
            "`frozen_stages=1` is for networks of MMDetection",
            "For this one: `freeze='all'`, or a number of blocks",
            "frozen_stages",
        ),
        (
            {"freeze": "some"},
            "`freeze='some'` is neither all, none nor a number of blocks",
            "Such as `freeze='all'` or `freeze='4'`",
            "freeze",
        ),
        (
            {"freeze": "99"},
            "`freeze='99'`: the network has 3 blocks",
            "Give 0 to 3, or `freeze='all'`",
            "freeze",
        ),
        (
            {"freeze": "1", "frozen_stages": 1},
            "`freeze` and `frozen_stages` say the same thing twice",
            "Give one.",
            "freeze",
        ),
    ],
)
def test_what_is_refused(files, choices: Mapping[str, Any], message, hint, parameter):
    with pytest.raises(UsageError) as caught:
        config_of(files["dino_vit"], **choices)
    assert (caught.value.message, caught.value.hint, caught.value.parameter) == (message, hint, parameter)


def test_a_network_of_stages_is_frozen_as_a_whole(files):
    with pytest.raises(UsageError) as caught:
        config_of(files["hiera_mae"], freeze="2")
    assert caught.value.message == "`freeze='2'`: a network of stages is frozen as a whole"
    assert caught.value.hint == "Give `freeze='all'` or `freeze='none'`"
    backbone = built(config_of(files["hiera_mae"], freeze="all")).backbone
    assert not [name for name, p in backbone.named_parameters() if p.requires_grad]


@pytest.mark.parametrize(
    "base",
    ["mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py", "mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py"],
)
def test_a_config_of_the_users_own_gets_the_network(files, base):
    model = built(quick(config_of(files["dinov2_vit"], base=base))).train()
    loss, _ = model.parse_losses(model(**model.data_preprocessor(batch(), training=True), mode="loss"))
    assert torch.isfinite(loss)


RESIZE = {"type": "Resize", "scale": (1024, 1024), "keep_ratio": True}


def resizing(node: Any) -> list[Any]:
    """Every step that resizes, wherever it stands."""
    if isinstance(node, Mapping):
        own = [dict(node)] if "Resize" in str(node.get("type", "")) else []
        return own + [step for child in node.values() for step in resizing(child)]
    return [step for child in node for step in resizing(child)] if isinstance(node, list | tuple) else []


@pytest.mark.parametrize("network", FIXED)
@pytest.mark.parametrize("choices", [{}, {"schedule": "ms-2x"}, {"detector": "dino"}, {"base": "OWN"}], ids=str)
def test_images_have_the_size_that_the_network_takes(files, network, choices):
    if choices.get("base"):
        choices = {"base": "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py"}
    config = config_of(files[network], **choices)
    assert tuple(config.model.backbone.image_size) == (1024, 1024)
    for part in ("train", "val", "test"):
        steps = resizing(config[f"{part}_dataloader"].dataset.pipeline)
        assert steps
        assert all(plain(step) == plain(RESIZE) for step in steps), part


def test_a_beit_without_tables_is_timms_eva_and_takes_every_size(tmp_path):
    """As CAE and EVA-01 have it: absolute positions alone."""
    network = Beit(64, 2, 256, 16, 14, 1, absolute_positions=True, shared_relative_positions=False)
    torch.save({name: torch.rand(shape) * 0.1 for name, shape in network.entries().items()}, tmp_path / "raw.pth")
    rules = [keep("{key...}", "{key...}")]
    ckptconv.convert(tmp_path / "raw.pth", tmp_path / "beit.pth", rules, target="timm")
    pretrain.module("timm")
    config = config_of(tmp_path / "beit.pth")
    assert "image_size" not in config.model.backbone
    assert len(built(config).backbone(torch.zeros(1, 3, 64, 96))) == 1


def test_a_config_takes_the_map_that_the_methods_own_detectors_take(files):
    assert "norm" not in config_of(files["dinov2_vit"]).model.backbone
    for name in ("mae_vit", "beit_vit", "dino_xcit"):
        text = ckptconv.emit_config(files[name], guard=False).text
        assert "# The map before the last norm, as the method's own detectors take it.\n        norm=False,\n" in text


def test_values_of_a_method_are_not_those_of_another_with_the_same_names(files, tmp_path, monkeypatch):
    """DINO's training files have iBOT's names: only a name tells whose weights these are."""
    row = fine_tuning.FineTuning(("ibot",), "ViT", 128, 3, 0.5, 0.3, 0.2, "its detectors")
    monkeypatch.setattr(fine_tuning, "ROWS", (row, *fine_tuning.ROWS))
    ckptconv.convert(official.network("dino_vit").write(tmp_path), tmp_path / "ibot.pth", "ibot", target="timm")
    guessed, named = config_of(files["dino_vit"]), config_of(tmp_path / "ibot.pth")
    assert [one.optim_wrapper.paramwise_cfg.decay_rate for one in (guessed, named)] == [0.7, 0.5]
    assert [one.model.backbone.get("norm", True) for one in (guessed, named)] == [True, False]


def test_batch_norm_of_timm_is_synchronised_by_the_runner(files):
    assert config_of(files["seer_regnety"]).sync_bn == "torch"
    assert "sync_bn" not in config_of(files["seer_regnety"], norm="BN")
    with pytest.raises(UsageError) as caught:
        config_of(files["seer_regnety"], norm="frozen")
    assert caught.value.parameter == "norm"
    assert caught.value.hint == "Leave it out, or freeze the whole backbone: `freeze='all'`"


# ViTDet's schedule: facts of projects/ViTDet/configs of mmdetection, key by key --------------------------------------

SIDE = (1024, 1024)
PAD = {"type": "Pad", "size": SIDE, "pad_val": {"img": (114, 114, 114)}}
LOAD = {"type": "LoadImageFromFile", "backend_args": None}
ANNOTATIONS = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}
TRAIN = [
    LOAD,
    ANNOTATIONS,
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "RandomResize", "scale": SIDE, "ratio_range": (0.1, 2.0), "keep_ratio": True},
    {
        "type": "RandomCrop",
        "crop_type": "absolute_range",
        "crop_size": SIDE,
        "recompute_bbox": True,
        "allow_negative_crop": True,
    },
    {"type": "FilterAnnotations", "min_gt_bbox_wh": (1e-2, 1e-2)},
    PAD,
    {"type": "PackDetInputs"},
]
TEST = [
    LOAD,
    {"type": "Resize", "scale": SIDE, "keep_ratio": True},
    PAD,
    ANNOTATIONS,
    {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
]
COCO = {"type": "CocoDataset", "data_root": "data/coco/"}
SAMPLER = {"type": "DefaultSampler"}
VITDET: dict[str, Any] = {
    "train_dataloader": {
        "batch_size": 4,
        "num_workers": 8,
        "persistent_workers": True,
        "sampler": {**SAMPLER, "shuffle": True},
        "dataset": {
            **COCO,
            "ann_file": "annotations/instances_train2017.json",
            "data_prefix": {"img": "train2017/"},
            "filter_cfg": {"filter_empty_gt": True, "min_size": 32},
            "pipeline": TRAIN,
        },
    },
    "val_dataloader": {
        "batch_size": 1,
        "num_workers": 2,
        "persistent_workers": True,
        "drop_last": False,
        "sampler": {**SAMPLER, "shuffle": False},
        "dataset": {
            **COCO,
            "ann_file": "annotations/instances_val2017.json",
            "data_prefix": {"img": "val2017/"},
            "test_mode": True,
            "pipeline": TEST,
        },
    },
    "val_evaluator": {
        "type": "CocoMetric",
        "ann_file": "data/coco/annotations/instances_val2017.json",
        "metric": ["bbox", "segm"],
        "format_only": False,
    },
    "optim_wrapper": {
        "type": "AmpOptimWrapper",
        "optimizer": {"type": "AdamW", "lr": 0.0001, "betas": (0.9, 0.999), "weight_decay": 0.1},
    },
    "param_scheduler": [
        {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 250},
        {
            "type": "MultiStepLR",
            "begin": 0,
            "end": 184375,
            "by_epoch": False,
            "milestones": [163889, 177546],
            "gamma": 0.1,
        },
    ],
    "train_cfg": {
        "type": "IterBasedTrainLoop",
        "max_iters": 184375,
        "val_interval": 5000,
        "dynamic_intervals": [(180001, 184375)],
    },
    "val_cfg": {"type": "ValLoop"},
    "test_cfg": {"type": "TestLoop"},
    "log_processor": {"type": "LogProcessor", "window_size": 50, "by_epoch": False},
    "auto_scale_lr": {"base_batch_size": 64},
}
CHECKPOINTS = {"type": "CheckpointHook", "by_epoch": False, "save_last": True, "interval": 5000, "max_keep_ckpts": 5}
NORM = {"type": "LayerNorm2d", "eps": 1e-6}  # the project's LN2d, whose eps is 1e-6


def without_none(node: Any) -> Any:
    """A config without what is None or switched off, and without the scope that mmengine notes of a base."""
    if isinstance(node, Mapping):
        kept = {
            k: v for k, v in node.items() if v is not None and k != "_scope_" and not (k == "enable" and v is False)
        }
        return {k: without_none(v) for k, v in kept.items()}
    return [without_none(one) for one in node] if isinstance(node, list | tuple) else node


def test_vitdets_schedule_is_mmdetections(files):
    config = config_of(files["dino_vit"], schedule="vitdet")
    for key, value in VITDET.items():
        ours = dict(config[key]) if isinstance(config[key], dict) else config[key]
        if key == "optim_wrapper":
            assert (ours.pop("constructor"), ours.pop("paramwise_cfg")) == (
                "LayerDecayOptimWrapperConstructor",
                {"decay_rate": 0.7},
            )
        assert without_none(ours) == without_none(value), key
    assert config.test_dataloader == config.val_dataloader
    assert config.test_evaluator == config.val_evaluator
    assert without_none(config.default_hooks.checkpoint) == CHECKPOINTS
    assert without_none(config.default_hooks.logger) == {"type": "LoggerHook", "interval": 50}


def test_vitdets_heads_are_mmdetections(files):
    model = config_of(files["dino_vit"], schedule="vitdet").model
    base = Config.fromfile(OWN / "_base_/models/mask-rcnn_r50_fpn.py").model
    base.data_preprocessor.batch_augments = [{"type": "BatchFixedSizePad", "size": SIDE, "pad_mask": True}]
    base.rpn_head.num_convs = 2
    base.roi_head.bbox_head.update(type="Shared4Conv1FCBBoxHead", norm_cfg=NORM)
    base.roi_head.mask_head.norm_cfg = NORM
    for part in ("data_preprocessor", "rpn_head", "roi_head", "train_cfg", "test_cfg"):
        assert plain(model[part]) == plain(base[part]), part
    assert (model.backbone.drop_path_rate, model.backbone.window) == (0.1, 14)
    built(config_of(files["dino_vit"], schedule="vitdet"))


@pytest.mark.parametrize(("depth", "blocks"), [(12, [2, 5, 8, 11]), (24, [5, 11, 17, 23]), (32, [7, 15, 23, 31])])
def test_the_last_block_of_each_quarter_sees_the_whole_image(depth, blocks):
    """As ViTDet's: window_block_indexes of the project's config are all but 2, 5, 8 and 11 of 12."""
    from ckptconv.mmdetection.config.large_scale_jitter import global_blocks

    assert global_blocks(depth) == blocks


@pytest.mark.parametrize("network", ["beit_vit", "dino_xcit"])
def test_vitdets_schedule_has_no_windows_where_the_class_has_none(files, network):
    config = config_of(files[network], schedule="vitdet")
    assert "window" not in config.model.backbone
    built(config)


def test_vitdets_schedule_is_refused_for_a_network_of_stages(tmp_path):
    network = official.network("moco_resnet18")
    ckptconv.convert(network.write(tmp_path), tmp_path / "r18.pth", network.method)
    with pytest.raises(UsageError) as caught:
        ckptconv.emit_config(tmp_path / "r18.pth", schedule="vitdet")
    assert caught.value.message == "`schedule='vitdet'` is for plain transformers; ResNet-18 has stages"
    assert caught.value.hint == "Choose another: `schedule='ms-2x'`"
