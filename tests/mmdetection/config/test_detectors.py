"""The table of detectors against MMDetection's own configs, path by path."""

from __future__ import annotations

from typing import Any

import pytest

from ckptconv.methods.interface import Pixels
from ckptconv.mmdetection.config.detectors import DETECTORS, SCHEDULES, Detector, among
from tests.support.converted import OWN, at, plain, read

pytestmark = pytest.mark.mmdet

FIRST = pytest.mark.parametrize("detector", DETECTORS.values(), ids=lambda d: d.name)
EVERY = pytest.mark.parametrize(
    ("detector", "epochs"),
    [pytest.param(d, epochs, id=f"{d.name}-{epochs}") for d in DETECTORS.values() for epochs in d.bases],
)
PARTS = ("train_dataloader", "val_dataloader", "test_dataloader")


def base(detector: Detector, epochs: int | None = None) -> dict[str, Any]:
    return read(OWN / detector.bases[epochs or next(iter(detector.bases))])


def walk(node: Any, path: str = "") -> dict[str, Any]:
    """Every leaf by its path; the items of a list share one, and must not differ in what is asked for."""
    if isinstance(node, dict):
        return {k: v for name, child in node.items() for k, v in walk(child, f"{path}.{name}".strip(".")).items()}
    if isinstance(node, list | tuple) and any(isinstance(item, dict) for item in node):
        return {k: v for item in node for k, v in walk(item, f"{path}[]").items()}
    return {path: node}


def ending(config: dict[str, Any], *names: str) -> dict[str, Any]:
    return {path: value for path, value in walk(config).items() if path.split(".")[-1] in names}


@FIRST
def test_the_backbone_is_the_one_in_the_row(detector):
    backbone = base(detector)["model"]["backbone"]
    assert {key: backbone[key] for key in ("type", "depth", "style")} == dict(detector.backbone)
    changing = {"stem_channels", "base_channels", "groups", "base_width", "deep_stem", "avg_down", "dcn", "plugins"}
    assert not changing & backbone.keys()
    assert not backbone["init_cfg"].keys() - {"type", "checkpoint"}
    assert backbone["norm_cfg"].keys() == {"type", "requires_grad"}
    assert "prefix" not in backbone["init_cfg"]


@EVERY
def test_epochs_images_and_rates(detector, epochs):
    config = base(detector, epochs)
    assert config["train_cfg"]["max_epochs"] == epochs
    assert config["auto_scale_lr"]["base_batch_size"] == detector.images
    assert config["train_dataloader"]["batch_size"] == detector.batch_size
    assert config["optim_wrapper"]["optimizer"]["lr"] == detector.lr


@EVERY
def test_the_schedule_that_is_made_is_the_bases_own(detector, epochs):
    """Where the base has the schedule, what the row would write for it is what stands there."""
    *warmup, steps = config = base(detector, epochs)["param_scheduler"]
    assert warmup == ([dict(detector.warmup)] if detector.warmup else []), config
    if epochs in detector.milestones:
        made = {"type": "MultiStepLR", "begin": 0, "end": epochs, "by_epoch": True, "gamma": 0.1}
        assert {**made, "milestones": list(detector.milestones[epochs])} == steps


@FIRST
def test_every_schedule_has_a_base_or_steps(detector):
    for schedule in SCHEDULES.values():
        assert (
            schedule.large_scale_jitter or schedule.epochs in detector.bases or schedule.epochs in detector.milestones
        )


@EVERY
def test_widths_are_all_that_hold_the_backbones_channels(detector, epochs):
    config = base(detector, epochs)
    for path, stages in detector.widths.items():
        assert plain(at(config, path)) == [among(detector.channels, stages)]
    outside = {k: v for k, v in walk(config["model"], "model").items() if not k.startswith("model.backbone")}
    own = [set(detector.channels), set(at(config, "model.backbone.out_indices")[0])]
    stages = {detector.channels[i] for i in own[1]} | ({detector.channels[3]} if detector.shared_head else set())
    inside = ("fc_out_channels", "feedforward_channels")  # a head's own 1024, a transformer's
    held = {
        path
        for path, value in outside.items()
        if path.endswith("channels")
        and path.split(".")[-1] not in inside
        and (set(value) <= own[0] if isinstance(value, list | tuple) else value in stages - {256})
    }
    assert held == set(detector.widths)


@EVERY
def test_classes_are_all_that_count_them(detector, epochs):
    found = ending(base(detector, epochs), "num_classes")
    assert set(found) == set(detector.classes)
    assert set(found.values()) == {80}


@EVERY
def test_pixels(detector, epochs):
    fed = base(detector, epochs)["model"]["data_preprocessor"]
    said = Pixels(tuple(fed["mean"]), tuple(fed["std"]), "RGB" if fed["bgr_to_rgb"] else "BGR")
    caffe = detector.backbone["style"] == "caffe"
    assert (detector.pixels is None) is caffe
    if caffe:
        assert (said.std, said.order) == ((1.0, 1.0, 1.0), "BGR")
    else:
        assert said == detector.pixels


@EVERY
def test_masks(detector, epochs):
    config = base(detector, epochs)
    loads = [step for step in config["train_dataloader"]["dataset"]["pipeline"] if step["type"] == "LoadAnnotations"]
    assert [step.get("with_mask", False) for step in loads] == [detector.masks]
    assert ("mask_head" in (config["model"].get("roi_head") or {})) is detector.masks
    assert ("segm" in config["val_evaluator"]["metric"]) is detector.masks


@EVERY
def test_data_sets_and_evaluators_are_all_that_name_files(detector, epochs):
    config = base(detector, epochs)
    files = {path: v for part in PARTS for path, v in ending({part: config[part]}, "ann_file").items()}
    assert {path.removesuffix(".ann_file") for path in files} == set(detector.datasets)
    for path in detector.datasets:
        assert at(config, f"{path}.data_root") == [config["data_root"]]
    evaluators = walk({part: config[part] for part in ("val_evaluator", "test_evaluator")})
    named = {path: v for path, v in evaluators.items() if isinstance(v, str) and v.startswith(config["data_root"])}
    assert named == {path: config["data_root"] + file for path, file in detector.evaluated.items()}


@EVERY
def test_nothing_of_the_base_comes_in_the_way(detector, epochs):
    config = base(detector, epochs)
    assert not {"custom_hooks", "custom_imports"} & config.keys()
    assert detector.found is None
    assert config["load_from"] is None
    assert "metainfo" not in config


@EVERY
def test_the_augmentation_that_a_schedule_replaces(detector, epochs):
    """A row without scales is one whose base draws from several itself; the others resize to one."""
    pipeline = base(detector, epochs)["train_dataloader"]["dataset"]["pipeline"]
    kinds = [step["type"] for step in pipeline]
    one = ["LoadImageFromFile", "LoadAnnotations", "Resize", "RandomFlip", "PackDetInputs"]
    assert (kinds == one) is detector.scales
    if detector.scales:
        assert plain(pipeline[2]) == {"type": "Resize", "scale": [1333, 800], "keep_ratio": True}
        assert pipeline[3] == {"type": "RandomFlip", "prob": 0.5}
    else:
        assert "RandomChoice" in kinds


@FIRST
def test_synced_paths_are_there_or_become_legal(detector):
    """Each is in the base, or is an argument of what stands there; `test_built_detectors` builds them."""
    config = base(detector)
    for path in detector.synced:
        assert at(config, path.rpartition(".")[0].removesuffix("[]"))
    assert bool(detector.synced_note) is (
        "model.roi_head.bbox_head.type" not in {p.replace("[]", "") for p in detector.synced}
    )


@pytest.mark.parametrize("folder", ["mask-rcnn_r50-mocov2-pre_fpn_ms-2x_coco", "mask-rcnn_r50-swav-pre_fpn_ms-2x_coco"])
def test_the_multi_scale_range_is_mmdetections(folder):
    pipeline = read(OWN / "selfsup_pretrain" / f"{folder}.py")["train_dataloader"]["dataset"]["pipeline"]
    assert plain(pipeline[2]) == plain(dict(SCHEDULES["ms-2x"].resize)) == plain(dict(SCHEDULES["ms-1x"].resize))


@EVERY
def test_strides_are_all_that_the_base_says_of_its_maps(detector, epochs):
    model = base(detector, epochs)["model"]
    stated = {
        f"model.{path}": tuple(plain(value))
        for path, value in walk(model).items()
        if path.endswith((".strides", ".featmap_strides")) and not path.startswith("backbone.")
    }
    assert stated == {path.replace("[]", ""): tuple(v) for path, v in detector.level_strides.items()} | dict.fromkeys(
        detector.strides, (16,)
    )
    neck = model.get("neck")
    assert (neck or {}).get("num_outs", 0) == len(detector.levels)
    for path, strides in detector.level_strides.items():
        assert strides == detector.levels[: len(strides)], path
