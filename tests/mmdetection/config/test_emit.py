"""`emit-config`: MMDetection's own rows again, every detector, schedule and network, the options, and bad input."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file

import ckptconv
from ckptconv.backbones.resnet import ResNet
from ckptconv.errors import CkptconvError, EnvironmentMissingError, UnreadableError, UsageError, VerdictError
from ckptconv.methods.interface import Pixels
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.config import emit as emit_config
from ckptconv.mmdetection.config.detectors import DETECTORS, SCHEDULES
from ckptconv.mmdetection.config.options import NORMS, STYLES, Choices, choose, class_names
from tests.support import converted
from tests.support.converted import (
    ARGUMENTS,
    CHANNELS,
    MARK,
    NETWORKS,
    OWN,
    at,
    emit,
    plain,
    read,
    resolve,
    values,
)

pytestmark = pytest.mark.mmdet

GUARDED = ("custom_imports", "custom_hooks")
ALL = pytest.mark.parametrize(
    ("detector", "schedule"),
    [
        pytest.param(d, s, id=f"{d}-{s}")
        for d in DETECTORS
        for s, schedule in SCHEDULES.items()
        if not schedule.large_scale_jitter  # it is for plain transformers: test_timm.py
    ],
)
DETECTOR = pytest.mark.parametrize("detector", DETECTORS)
STYLE = pytest.mark.parametrize("style", STYLES)
LOADER, GUARD = "ckptconv.mmdetection.loader", "ckptconv.mmdetection.guard"
HOOK = {"type": "CheckpointGuard", "modules": ["backbone"], "fingerprint": MARK}
TOOL = OWN.parent / "tools" / "train.py"


@pytest.fixture(scope="module")
def r18(tmp_path_factory) -> Path:
    return converted.convert(tmp_path_factory.mktemp("r18"))


def differing(one: object, other: object, path: str = "") -> list[str]:
    """The paths at which two configs differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            p for key in {**one, **other} for p in differing(one.get(key), other.get(key), f"{path}.{key}".strip("."))
        ]
    return [] if one == other else [path]


# MMDetection's own rows


@pytest.mark.parametrize("method", ["mocov2", "swav"])
@pytest.mark.parametrize("schedule", ["1x", "ms-2x"])
@STYLE
@pytest.mark.parametrize("guard", [True, False])
def test_mmdetections_own_configs(method, schedule, style, guard):
    own = read(OWN / f"selfsup_pretrain/mask-rcnn_r50-{method}-pre_fpn_{schedule}_coco.py")
    made = resolve(emit(method=method, detector="mask-rcnn", schedule=schedule, style=style, guard=guard).text)
    names = {"train_pipeline"} if schedule == "ms-2x" else set()
    assert names <= own.keys()
    assert made.keys() - own.keys() == (set(GUARDED) if guard else set())
    for key in GUARDED:
        made.pop(key, None)
    assert differing(plain(made), plain(own)) == ["model.backbone.init_cfg.checkpoint"]
    assert made["model"]["backbone"]["init_cfg"] == {"type": "Pretrained", "checkpoint": "/w/r50.pth"}


# Every detector, schedule and network


@functools.cache
def made(network: str, detector: str, schedule: str, style: str) -> dict[str, Any]:
    """What a config says, inherited by mmengine's reading, flat by Python's."""
    text = emit(network, detector=detector, schedule=schedule, style=style).text
    return resolve(text) if style == "inherit" else values(text)


@ALL
def test_flat_is_what_inherit_resolves_to(detector, schedule):
    assert plain(made("r50", detector, schedule, "inherit")) == plain(made("r50", detector, schedule, "flat"))


@DETECTOR
def test_mmengine_reads_flat_configs_as_python_does(detector):
    text = emit(detector=detector, schedule="mmselfsup", style="flat").text
    assert plain(resolve(text)) == plain(values(text))


@DETECTOR
def test_flat_is_what_inherit_resolves_to_with_every_option(detector):
    options = {"classes": "a,b", "data_root": "d", "batch_size": 1, "gpus": 3, "amp": True, "frozen_stages": 2}
    more = {"norm": "frozen", "pixels": Pixels((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "BGR"), "schedule": "mmselfsup"}
    inherit, flat = (emit(detector=detector, style=style, **options, **more).text for style in STYLES)
    assert plain(resolve(inherit)) == plain(values(flat))


@DETECTOR
@pytest.mark.parametrize("network", sorted(set(NETWORKS) - {"r50"}))
def test_flat_is_what_inherit_resolves_to_with_other_networks(detector, network):
    if detector == "mask-rcnn-c4" and network in ("r50w2", "x50"):
        return
    assert plain(made(network, detector, "1x", "inherit")) == plain(made(network, detector, "1x", "flat"))


@ALL
def test_every_network(detector, schedule):
    row, recipe = DETECTORS[detector], SCHEDULES[schedule]
    base = read(OWN / row.bases.get(recipe.epochs, next(iter(row.bases.values()))))
    for network in NETWORKS:
        if row.shared_head and network in ("r50w2", "x50"):
            continue
        found = made(network, detector, schedule, "flat")
        backbone = found["model"]["backbone"]
        kept = {
            k: v
            for k, v in base["model"]["backbone"].items()
            if k in ("num_stages", "out_indices", "strides", "dilations")
        }
        expected = {
            **kept,
            **ARGUMENTS[network],
            "style": "pytorch",
            "frozen_stages": -1 if schedule == "mmselfsup" else 0,
            "norm_cfg": {"type": "SyncBN", "requires_grad": True},
            "norm_eval": False,
            "init_cfg": {"type": "Pretrained", "checkpoint": "/w/r50.pth"},
        }
        defaults = {"stem_channels": 64, "base_channels": 64, "groups": 1, "base_width": 4}
        assert {**defaults, **backbone} == {**defaults, **expected}
        for path, stages in row.widths.items():
            channels = CHANNELS[network]
            assert at(found, path) == [channels[stages] if isinstance(stages, int) else [channels[s] for s in stages]]
        assert found["train_cfg"]["max_epochs"] == recipe.epochs
        assert found["param_scheduler"][-1]["milestones"] == list(row.milestones[recipe.epochs])
        fed = found["model"]["data_preprocessor"]
        assert (fed["mean"], fed["std"], fed["bgr_to_rgb"]) == (
            [123.675, 116.28, 103.53],
            [58.395, 57.12, 57.375],
            True,
        )


@ALL
def test_nothing_else_changes(detector, schedule):
    """What a config changes of its base is in this list, whatever detector and schedule."""
    row, recipe = DETECTORS[detector], SCHEDULES[schedule]
    base = read(OWN / row.bases.get(recipe.epochs, next(iter(row.bases.values()))))
    backbone = {
        f"model.backbone.{k}" for k in ("frozen_stages", "norm_cfg.type", "norm_cfg.requires_grad", "norm_eval")
    }
    allowed = backbone | {"model.backbone.init_cfg.checkpoint", "model.backbone.style", *GUARDED}
    allowed |= {f"model.data_preprocessor.{k}" for k in ("mean", "std", "bgr_to_rgb")} if row.pixels is None else set()
    if row.shared_head:
        allowed |= {
            f"{row.shared_head}.{k}"
            for k in ("style", "norm_eval", "norm_cfg.type", "norm_cfg.requires_grad", "init_cfg")
        }
    if recipe.resize and row.scales:
        allowed |= {"train_pipeline", "train_dataloader.dataset.pipeline"}
    if recipe.epochs not in row.bases:
        allowed |= {"train_cfg.max_epochs", "param_scheduler"}
    if recipe.synced:
        allowed |= {path.partition("[]")[0] for path in row.synced}
    found = set(differing(plain(base), plain(made("r50", detector, schedule, "inherit"))))
    assert {f for f in found if not any(f == a or f.startswith(f"{a}.") for a in allowed)} == set()


@pytest.mark.parametrize(("network", "name"), [("r50w2", "ResNet-50, width x2"), ("x50", "ResNeXt-50 32x4d")])
def test_c4_takes_plain_networks_only(network, name):
    with pytest.raises(UsageError) as caught:
        emit(network, detector="mask-rcnn-c4")
    assert caught.value.message == (
        f"{name} cannot be the backbone of Mask R-CNN on C4: its last stage is "
        "MMDetection's ResLayer, a plain ResNet's without widths and groups"
    )
    assert caught.value.hint == "Choose a detector with FPN: `detector='mask-rcnn'`"


def test_mmselfsups_recipe():
    sync = {"type": "SyncBN", "requires_grad": True}
    made = resolve(emit(schedule="mmselfsup").text)
    heads = made["model"]["roi_head"]
    assert made["model"]["neck"]["norm_cfg"] == sync
    assert heads["bbox_head"]["type"] == "Shared4Conv1FCBBoxHead"
    assert heads["bbox_head"]["norm_cfg"] == heads["mask_head"]["norm_cfg"] == sync
    assert made["model"]["backbone"]["frozen_stages"] == -1
    steps = made["train_dataloader"]["dataset"]["pipeline"]
    assert plain(steps[2]) == {
        "type": "RandomChoiceResize",
        "scales": [[1333, short] for short in range(640, 801, 32)],
        "keep_ratio": True,
    }
    cascade = resolve(emit(detector="cascade-mask-rcnn", schedule="mmselfsup").text)
    own = read(OWN / DETECTORS["cascade-mask-rcnn"].bases[12])
    for head, was in zip(cascade["model"]["roi_head"]["bbox_head"], own["model"]["roi_head"]["bbox_head"], strict=True):
        assert plain(head) == plain({**was, "type": "Shared4Conv1FCBBoxHead", "norm_cfg": sync})


# The text


@ALL
@STYLE
def test_style(detector, schedule, style):
    every = {"classes": "a,b", "data_root": "d", "batch_size": 1, "gpus": 3, "amp": True}
    for more in ({}, every) if style == "inherit" else ({},):
        text = emit(detector=detector, schedule=schedule, style=style, **more).text
        ast.parse(text)
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert "\n\n\n" not in text
        assert "\t" not in text
        assert [line for line in text.split("\n") if line != line.rstrip()] == []
        assert [line for line in text.split("\n") if len(line) > 100] == []
        assert style == "flat" or len(text.splitlines()) < (80 if more else 60)


def told(text: str) -> dict[str, str]:
    """Each comment of a config in one line, and the line below it."""
    comments: dict[str, str] = {}
    above: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("# "):
            above.append(line.removeprefix("# "))
        elif above:
            comments[" ".join(above)] = line
            above = []
    return comments


@STYLE
def test_the_comments_that_matter(style):
    row = emit(style=style, batch_size=4, gpus=4, amp=True).text
    said = told(row)
    for comment, key in (
        ("-1 freezes nothing, 0 conv1 and bn1, 1 also layer1. MMDetection's rows use 0.", "frozen_stages=0"),
        (NORMS["SyncBN"][2], "norm_cfg="),
        ("Linear rule: 0.02 for 16 images a step, here 4 x 4 = 16.", "lr="),
        ("The rate above is scaled already.", "base_batch_size="),
        ("float16 where it is safe, with a scaled loss.", "type='AmpOptimWrapper'"),
    ):
        assert said[comment].startswith(key)
    head = row.splitlines()[:2]
    assert head == [
        "# Mask R-CNN with FPN, 12 epochs, on ResNet-50 of moco.",
        f"# Made by ckptconv {ckptconv.__version__}; the backbone's proof: ckptconv check THIS_FILE",
    ]


def test_what_a_recipe_cannot_is_said():
    for name, row in DETECTORS.items():
        said = told(emit(detector=name, schedule="mmselfsup").text)
        above = [comment for comment, line in said.items() if line == "model = dict("]
        assert above == ([row.synced_note] if row.synced_note else [])
        assert row.synced_note not in told(emit(detector=name).text)


# Options


@DETECTOR
def test_classes_reach_every_head_and_data_set(detector):
    row = DETECTORS[detector]
    made = resolve(emit(detector=detector, classes='cat, dog\'s ,"bird"').text)
    names = ["cat", "dog's", '"bird"']
    assert [v for path in row.classes for v in at(made, path)] == [3] * sum(len(at(made, p)) for p in row.classes)
    for part in ("train", "val", "test"):
        assert plain(made[f"{part}_dataloader"]["dataset"]["metainfo"]) == {"classes": names}
    counted = resolve(emit(detector=detector, num_classes=80).text)
    assert {v for path in row.classes for v in at(counted, path)} == {80}
    assert "metainfo" not in counted


def test_class_names_from_a_file(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("traffic  light\n\n stop sign\t\na,b\n", encoding="utf-8")
    assert class_names(str(file)) == ("traffic light", "stop sign", "a,b")
    file.write_text("one\ntwo\n", encoding="utf-8-sig")
    assert class_names(str(file)) == ("one", "two")
    assert class_names("a, b,,c ") == ("a", "b", "c")


def test_many_class_names_on_the_command_line():
    names = tuple(f"class number {i}" for i in range(400))
    assert class_names(",".join(names)) == names


REFUSED = [
    ({"classes": "a,b,a"}, "`classes` names a class twice", "Each class has one name."),
    ({"classes": " , "}, "`classes=' , '` names no class", "Give a,b,c or a file with one name on each line."),
    ({"classes": "a,b", "num_classes": 3}, "`num_classes` says 3, `classes` names 2", "Give `classes` alone."),
    ({"num_classes": 0}, "`num_classes=0` makes no sense", "Give 1 or more."),
    ({"batch_size": 0}, "`batch_size=0` makes no sense", "Give 1 or more."),
    ({"gpus": -1}, "`gpus=-1` makes no sense", "Give 1 or more."),
    ({"frozen_stages": -2}, "`frozen_stages=-2` makes no sense", "Give -1 or more."),
    ({"frozen_stages": 5}, "`frozen_stages=5`: a ResNet has 4 stages", "Give -1 to 4."),
    ({"detector": "cascade"}, "there is no detector 'cascade'", "Did you mean cascade-rcnn?"),
    ({"detector": "yolo"}, "there is no detector 'yolo'", f"Known: {', '.join(DETECTORS)}."),
    ({"schedule": "ms-3x"}, "there is no schedule 'ms-3x'", "Did you mean ms-2x or ms-1x?"),
    ({"style": "flatt"}, "there is no style 'flatt'", "Did you mean flat?"),
    ({"norm": "SyncBatchN"}, "there is no norm 'SyncBatchN'", "Did you mean SyncBN?"),
    (
        {"base": "x.py", "detector": "fcos"},
        "`base` is a whole config, and `detector` would replace it",
        "Give one of the two.",
    ),
    (
        {"base": "x.py", "schedule": "1x"},
        "`base` is a whole config, and `schedule` would replace it",
        "Give one of the two.",
    ),
]


@pytest.mark.parametrize(("said", "message", "hint"), REFUSED)
def test_choices_that_make_no_sense(said, message, hint):
    with pytest.raises(UsageError) as caught:
        choose(**said)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_an_empty_data_root_is_not_the_root_of_the_disk():
    with pytest.raises(UsageError):
        choose(data_root="")


@DETECTOR
def test_data_root_reaches_data_sets_and_evaluators(detector):
    text = emit(detector=detector, data_root="my data/coco's").text
    assert emit(detector=detector, data_root="my data/coco's/").text == text
    made = resolve(text)
    found = "my data/coco's/"
    assert made["data_root"] == found
    for part in ("train", "val", "test"):
        assert made[f"{part}_dataloader"]["dataset"]["data_root"] == found
    for part in ("val", "test"):
        assert made[f"{part}_evaluator"]["ann_file"] == f"{found}annotations/instances_val2017.json"
    assert "data/coco/" not in re.sub(r"(?m)^ *#.*", "", text)


@DETECTOR
@pytest.mark.parametrize(("batch", "gpus"), [(None, 1), (3, 5)])
def test_the_linear_rule(detector, batch, gpus):
    row = DETECTORS[detector]
    emitted = emit(detector=detector, batch_size=batch, gpus=gpus)
    made = resolve(emitted.text)
    own = read(OWN / row.bases.get(12, next(iter(row.bases.values()))))
    size = batch or own["train_dataloader"]["batch_size"]
    number = gpus or own["auto_scale_lr"]["base_batch_size"] // own["train_dataloader"]["batch_size"]
    lr = own["optim_wrapper"]["optimizer"]["lr"] * size * number / own["auto_scale_lr"]["base_batch_size"]
    assert made["train_dataloader"]["batch_size"] == size
    assert made["optim_wrapper"]["optimizer"]["lr"] == pytest.approx(lr, rel=1e-5)
    # mmdet's `tools/train.py --auto-scale-lr` multiplies by the images a step over this number
    assert made["auto_scale_lr"]["base_batch_size"] == size * number == emitted.images
    assert emitted.lr == made["optim_wrapper"]["optimizer"]["lr"]
    kept = {k: v for k, v in own["optim_wrapper"]["optimizer"].items() if k != "lr"}
    assert {k: v for k, v in made["optim_wrapper"]["optimizer"].items() if k not in ("lr", "_scope_")} == kept
    comment = f"Linear rule: {row.lr:g} for {row.images} images a step, here {number} x {size} = {size * number}."
    assert f"# {comment}\n" in emitted.text


@STYLE
def test_the_base_decides_where_nothing_is_said(style):
    emitted = emit(style=style)
    made = resolve(emitted.text)
    assert (emitted.images, emitted.lr) == (16, 0.02)
    assert made["auto_scale_lr"] == {"enable": False, "base_batch_size": 16}
    assert "Linear rule" not in emitted.text


@DETECTOR
def test_amp_keeps_the_rest_of_the_optimizer(detector):
    one, other = (resolve(emit(detector=detector, amp=amp).text) for amp in (False, True))
    assert differing(plain(one), plain(other)) == ["optim_wrapper.type"]
    assert (one["optim_wrapper"]["type"], other["optim_wrapper"]["type"]) == ("OptimWrapper", "AmpOptimWrapper")


@pytest.mark.parametrize(
    ("norm", "kind", "learns", "fixed"),
    [("SyncBN", "SyncBN", True, False), ("BN", "BN", True, False), ("frozen", "BN", False, True)],
)
@pytest.mark.parametrize("detector", ["mask-rcnn", "mask-rcnn-c4"])
def test_norms(norm, kind, learns, fixed, detector):
    emitted = emit(norm=norm, detector=detector)
    model = resolve(emitted.text)["model"]
    parts = [model["backbone"]] + ([model["roi_head"]["shared_head"]] if detector == "mask-rcnn-c4" else [])
    for part in parts:
        assert part["norm_cfg"] == {"type": kind, "requires_grad": learns}
        assert part["norm_eval"] is fixed
    assert told(emitted.text)[NORMS[norm][2]].startswith("norm_cfg=")


@pytest.mark.parametrize(
    ("schedule", "said", "frozen"),
    [("1x", None, 0), ("1x", 1, 1), ("mmselfsup", None, -1), ("mmselfsup", 0, 0), ("2x", -1, -1)],
)
def test_frozen_stages(schedule, said, frozen):
    assert resolve(emit(schedule=schedule, frozen_stages=said).text)["model"]["backbone"]["frozen_stages"] == frozen


def test_frozen_stages_that_a_detector_does_not_have():
    """C4's backbone has three stages: MMDetection looks for a fourth and fails."""
    with pytest.raises(UsageError):
        emit(detector="mask-rcnn-c4", frozen_stages=4)


@pytest.mark.parametrize(
    ("path", "guard", "imports"),
    [
        ("r50.pth", True, [LOADER, GUARD]),
        ("r50.safetensors", True, [LOADER, GUARD]),
        ("r50.safetensors", False, [LOADER]),
        ("r50.pth", False, None),
    ],
)
@STYLE
def test_guard_and_loader(path, guard, imports, style):
    made = resolve(emit(path=path, guard=guard, style=style).text)
    assert made.get("custom_imports") == (imports and {"imports": imports, "allow_failed_imports": False})
    assert made.get("custom_hooks") == ([HOOK] if guard else None)
    of_c4 = resolve(emit(path=path, guard=guard, style=style, detector="mask-rcnn-c4").text).get("custom_hooks")
    assert of_c4 == ([{**HOOK, "modules": ["backbone", "roi_head.shared_head"]}] if guard else None)


def test_pixels_of_the_method_are_what_the_detector_is_fed():
    inception = Pixels((127.5, 127.5, 127.5), (127.5, 127.5, 127.5), "BGR")
    for detector in DETECTORS:
        text = emit(detector=detector, method="mocov3", pixels=inception).text
        fed = resolve(text)["model"]["data_preprocessor"]
        assert (fed["mean"], fed["std"], fed["bgr_to_rgb"]) == ([127.5] * 3, [127.5] * 3, False)
        assert "# The pixels that mocov3 was trained with." in text
    assert "data_preprocessor" not in emit().text
    unknown = emit(detector="fcos", pixels=None).text
    assert "# moco does not tell what pixels it was trained with: ImageNet's." in unknown


@pytest.mark.parametrize(
    "path", ['it\'s "a" file.pth', "new\nline.pth", "back\\slash.pth", "umläut.pth", "', x=print(1), y='.pth"]
)
@STYLE
def test_paths_are_quoted(path, style):
    text = emit(path=path, style=style).text
    ast.parse(text)
    assert resolve(text)["model"]["backbone"]["init_cfg"]["checkpoint"] == os.path.abspath(path)


@pytest.mark.parametrize("hostile", ["{{ fileDirname }}/a", "{{_base_.data_root}}", "{{$HOME:x}}", "{{ 'a' }}"])
@STYLE
def test_what_mmengine_would_substitute_stays_as_it_is(hostile, style):
    """mmengine replaces {{ … }} in a config's text before it runs it."""
    made = resolve(emit(path=f"/{hostile}.pth", style=style, data_root=hostile, classes=hostile).text)
    assert made["model"]["backbone"]["init_cfg"]["checkpoint"] == f"/{hostile}.pth"
    assert made["data_root"] == f"{hostile}/"
    assert plain(made["train_dataloader"]["dataset"]["metainfo"]) == {"classes": [hostile]}


# Files


def test_a_real_file(r18):
    emitted = emit_config.emit(r18)
    receipt = ckptconv.convert(r18, r18.with_name("again.pth"), "torchvision", dry_run=False)
    found = emitted.pretrained
    assert (found.path, found.method, found.backbone.name) == (str(r18), "moco", "ResNet-18")
    assert found.fingerprint == receipt.fingerprint
    made = resolve(emitted.text)
    assert made["custom_hooks"] == [{**HOOK, "fingerprint": receipt.fingerprint}]
    assert made["model"]["neck"]["in_channels"] == [64, 128, 256, 512]


def test_safetensors_and_torch_files_give_one_config(r18, tmp_path):
    safe = converted.convert(tmp_path, "r18.safetensors")
    one, other = emit_config.emit(r18), emit_config.emit(safe)
    assert plain(resolve(one.text.replace(str(r18), str(safe)))) == plain(resolve(other.text))


def test_halves(tmp_path):
    half = converted.convert(tmp_path, "half.pth", dtype="float16")
    assert emit_config.emit(half).pretrained.backbone.name == "ResNet-18"


SAID = {
    "method": "moco",
    "target": "mmdet",
    "source": {"name": "a.pth"},
    "pixels": {"mean": [1, 2, 3], "std": [1, 1, 1], "order": "RGB"},
}
INJECTION = "moco\n'''\nimport os; os.system('touch hacked') #"
NAN = float("nan")


def state() -> dict[str, torch.Tensor]:
    """A narrow ResNet-18: quickly written and read."""
    entries = ResNet((2, 2, 2, 2), False, 8, 8, 8, 1, 7, 3).entries()
    return {k: torch.zeros(s) for k, s in entries.items() if not k.endswith("tracked")}


def lying(path: Path, said: object, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    tensors = state() if tensors is None else tensors
    if path.suffix == ".safetensors":
        save_file(tensors, path, {"format": "pt", "ckptconv": said if isinstance(said, str) else json.dumps(said)})
    else:
        torch.save({"state_dict": tensors, "meta": {"ckptconv": said}}, path)
    return path


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "change",
    [
        {"method": INJECTION},
        {"method": "it's"},
        {"method": 'a"b'},
        {"method": "{{ fileDirname }}"},
        {"method": "m" * 101},
        {"method": ""},
        {"method": "moco\n"},
        {"method": ["moco"]},
        {"target": "mmdet\nx = 1"},
        {"pixels": {"mean": ["a", "b", "c"], "std": [1, 1, 1], "order": "RGB"}},
        {"pixels": {"mean": [1, 2], "std": [1, 1, 1], "order": "RGB"}},
        {"pixels": {"mean": [1, 2, 3], "std": [0, 1, 1], "order": "RGB"}},
        {"pixels": {"mean": [1, NAN, 3], "std": [1, 1, 1], "order": "RGB"}},
        {"pixels": {"mean": [1, 2, 3], "std": [1, 1, 1], "order": "RGB'"}},
        {"pixels": {"mean": [1, 2, 3], "std": [1, 1, 1], "order": ["RGB"]}},
        {"pixels": {}},
        {"pixels": 5},
        {"pixels": ...},
    ],
    ids=str,
)
def test_metadata_that_ckptconv_never_writes(tmp_path, suffix, change):
    said = {k: v for k, v in {**SAID, **change}.items() if v is not ...}
    path = lying(tmp_path / f"lying.{suffix}", said)
    with pytest.raises(UsageError) as caught:
        emit_config.emit(path)
    assert caught.value.message == f"{path} is a raw checkpoint of torchvision"
    assert caught.value.hint == (
        f"Convert it first: `ckptconv.convert({str(path)!r}, 'lying_backbone.pth', method='torchvision')`"
    )


@pytest.mark.parametrize("said", ["{", "[]", "null", "[" * 5000, '"text"', "5"], ids=lambda s: s[:6])
def test_metadata_that_is_no_mapping(tmp_path, said):
    with pytest.raises(UsageError, match="is a raw checkpoint of torchvision"):
        emit_config.emit(lying(tmp_path / "lying.safetensors", said))


@pytest.mark.parametrize("method", ["a_method.of-mine+2", "print"])
@STYLE
def test_names_that_may_stand_stay_inside_their_comments(tmp_path, method, style):
    path = lying(tmp_path / "mine.pth", {**SAID, "method": method})
    text = emit_config.emit(path, Choices(style=style)).text
    ordinary = emit_config.emit(lying(path, SAID), Choices(style=style)).text
    assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(ordinary))
    assert f"of {method}." in text


def test_numbers_in_metadata_are_numbers(tmp_path):
    said = {**SAID, "pixels": {"mean": [1000, 1, 2.5], "std": [1, 1, 1], "order": "BGR"}}
    made = values(emit_config.emit(lying(tmp_path / "a.pth", said), Choices(style="flat")).text)
    assert made["model"]["data_preprocessor"]["mean"] == [1000.0, 1.0, 2.5]
    assert all(type(n) is float for n in made["model"]["data_preprocessor"]["mean"])


@pytest.mark.parametrize(
    "other",
    [
        {"method": "ünïcode"},
        {"method": "__import__"},
        {"pixels": {"mean": ["1e3", 1, 2.5], "std": [1, 1, 1], "order": "BGR"}},
        {"pixels": {"mean": [True, 1, 2.5], "std": [1, 1, 1], "order": "BGR"}},
    ],
    ids=str,
)
def test_what_ckptconv_never_writes_is_no_metadata_of_its_own(tmp_path, other):
    """Names and numbers have one grammar where they are written, and the same where they are read back."""
    with pytest.raises(UsageError, match="is a raw checkpoint of torchvision"):
        emit_config.emit(lying(tmp_path / "lying.pth", {**SAID, **other}))


def test_metadata_without_the_network_it_speaks_of(tmp_path):
    whole = state()
    for name, tensors, kind in (
        ("nothing.pth", {"a": torch.zeros(1)}, CkptconvError),
        ("hole.pth", {k: v for k, v in whole.items() if k != "layer1.0.conv1.weight"}, VerdictError),
        ("more.pth", {**whole, "fc.weight": torch.zeros(2)}, VerdictError),
        ("stem.pth", {**whole, "conv1.weight": torch.zeros(8, 3, 3, 3)}, VerdictError),
    ):
        with pytest.raises(kind):
            emit_config.emit(lying(tmp_path / name, SAID, tensors))


def test_a_raw_file_and_one_for_others(tmp_path):
    raw = converted.source(tmp_path / "my raw.pth")
    with pytest.raises(UsageError) as caught:
        emit_config.emit(raw)
    assert caught.value.message == f"{raw} is a raw checkpoint of torchvision"
    assert caught.value.hint == (
        f"Convert it first: `ckptconv.convert({str(raw)!r}, 'my raw_backbone.pth', method='torchvision')`"
    )
    ckptconv.convert(raw, tmp_path / "vision.pth", target="torchvision")
    with pytest.raises(UsageError) as caught:
        emit_config.emit(tmp_path / "vision.pth")
    assert caught.value.message == f"{tmp_path / 'vision.pth'} was written for torchvision, not for MMDetection"
    assert caught.value.hint == "Convert it again from its source, without `target`."
    torch.save({"weights": {"a": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(UsageError) as caught:
        emit_config.emit(tmp_path / "other.pth")
    assert (
        caught.value.message == f"{tmp_path / 'other.pth'} is no file of ckptconv: it says neither method nor network"
    )
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UnreadableError):
        emit_config.emit(tmp_path / "text.pth")


# Writing


def test_places_that_cannot_be_written(r18, tmp_path):
    (tmp_path / "there.py").write_text("mine = 1\n")
    (tmp_path / "folder.py").mkdir()
    for out, message, hint in (
        ("a.txt", f"{tmp_path}/a.txt does not end in .py: mmengine would not read it", "Give FILE.py."),
        ("there.py", f"{tmp_path}/there.py exists", "Give `force=True` to replace it, or another name."),
        ("folder.py", f"{tmp_path}/folder.py is a directory", "Give the name of the file to write."),
        ("none/a.py", f"there is no folder {tmp_path}/none", "Make it first, or check the path."),
    ):
        with pytest.raises(UsageError) as caught:
            emit_config.write(r18, tmp_path / out)
        assert (caught.value.message, caught.value.hint) == (message, hint)
    assert (tmp_path / "there.py").read_text() == "mine = 1\n"
    emit_config.write(r18, tmp_path / "there.py", force=True)
    assert resolve((tmp_path / "there.py").read_text())["model"]["type"] == "MaskRCNN"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.py", "there.py"]


def test_a_failed_emission_leaves_nothing(r18, tmp_path):
    with pytest.raises(UsageError):
        emit_config.write(r18, tmp_path / "a.py", Choices(base="mmdet::nothing/here.py"))
    assert not list(tmp_path.iterdir())


# The command


def ckptconv_(
    *args: object, cwd: Path | None = None, blocked: str = "", after: str = ""
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, in which the packages ``blocked`` cannot be found."""
    code = f"""
import sys, importlib.abc
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {blocked.split()!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
from ckptconv.cli import main
try:
    code = main()
except SystemExit as end:
    code = end.code
{after}
sys.exit(code)
"""
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=120, env=ENV)


ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
UNIMPORTED = "bad = {'torch', 'mmengine', 'mmdet', 'mmcv'} & set(sys.modules); assert not bad, bad"


def test_printed_written_and_as_json(r18, tmp_path):
    printed = ckptconv_("emit-config", r18, after=UNIMPORTED)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert printed.stdout == emit_config.emit(r18).text
    written = ckptconv_("emit-config", r18, "-d", "dino", "-s", "2x", "-o", "a.py", cwd=tmp_path, after=UNIMPORTED)
    mark, eight = emit_config.emit(r18).pretrained.fingerprint, "torch.distributed.run --standalone --nproc_per_node=8"
    assert (written.returncode, written.stderr) == (0, "")
    assert [re.sub(" +", " ", line) for line in written.stdout.splitlines()] == [
        f"backbone ResNet-18 of moco, {r18}; fingerprint {mark[:16]}",
        "detector DINO (the detector), 4 scales, 24 epochs, on mmdet::dino/dino-4scale_r50_8xb2-24e_coco.py",
        "training 16 images a step, learning rate 0.0001",
        "wrote a.py",
        "next ckptconv check a.py",
        f"then on 8 GPUs: {sys.executable} -m {eight} {TOOL} a.py --launcher pytorch",
    ]
    assert (tmp_path / "a.py").read_text() == emit_config.emit(r18, Choices("dino", "2x")).text
    data = json.loads(ckptconv_("emit-config", r18, "--json").stdout)
    assert (data["schema"], data["command"], data["config"]) == (1, "emit-config", None)
    assert data["text"] == printed.stdout
    assert (data["images"], data["lr"], data["method"], data["fingerprint"]) == (16, 0.02, "moco", mark)
    assert (data["batch_size"], data["train"]) == (2, None)
    assert data["backbone"]["name"] == "ResNet-18"


def test_refusals_of_the_command(r18, tmp_path):
    raw = converted.source(tmp_path / "raw.pth")
    for words, code, message, hint in (
        (
            [raw],
            2,
            f"{raw} is a raw checkpoint of torchvision",
            f"Convert it first: ckptconv convert --selfsup torchvision {raw}",
        ),
        ([r18, "-d", "mask-rccn"], 2, "there is no detector 'mask-rccn'", "Did you mean mask-rcnn"),
        ([r18, "-o", tmp_path / "a.json"], 2, "does not end in .py: mmengine would not read it", "Give FILE.py."),
        ([tmp_path / "none.pth"], 3, "none.pth", ""),
        ([r18, "--base", "x.py", "-d", "fcos"], 2, "--base is a whole config, and --detector", "Give one of the two."),
    ):
        done = ckptconv_("emit-config", *words)
        assert done.returncode == code or not hint, done.stderr
        assert done.stdout == ""
        assert message in done.stderr.replace("\n", " ")
        assert f"hint: {hint}" in done.stderr
        assert "Traceback" not in done.stderr


def test_without_mmdetection(r18):
    gone = "mmdet mmengine mmcv torch"
    assert ckptconv_("emit-config", r18, blocked=gone).returncode == 0
    for words in (["--style", "flat"], ["--base", "mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py"]):
        done = ckptconv_("emit-config", r18, *words, blocked=gone)
        assert (done.returncode, done.stdout) == (4, "")
        assert "cannot be found: mmdet is not installed" in done.stderr
        assert done.stderr.endswith("hint: See what is missing and how to fix it: ckptconv doctor\n")


def test_without_pkg_resources(r18, tmp_path):
    """setuptools 82 took it away, and mmengine 0.10 wants it for bases of other packages."""
    emit_config.write(r18, tmp_path / "inherit.py")
    flat = ckptconv_("emit-config", r18, "--style", "flat", "-o", tmp_path / "flat.py", blocked="pkg_resources")
    assert (flat.returncode, flat.stderr) == (0, "")
    code = """
import sys
sys.modules['pkg_resources'] = None
from pathlib import Path
from ckptconv.errors import EnvironmentMissingError
from ckptconv.mmdetection import runtime
assert runtime.read_config(Path('flat.py')).model.backbone.depth == 18
try:
    runtime.read_config(Path('inherit.py'))
except EnvironmentMissingError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=ENV
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-2:] == [
        "inherit.py: mmengine resolves its 'mmdet::' base with pkg_resources, which is missing here",
        "pip install 'setuptools<82', or emit the config without bases: `style='flat'`",
    ]


def test_errors_of_the_environment_are_ours(monkeypatch):
    monkeypatch.setitem(sys.modules, "mmengine.config", None)
    with pytest.raises(EnvironmentMissingError) as caught:
        runtime.read_config(OWN / "fcos" / "fcos_r50-caffe_fpn_gn-head_1x_coco.py")
    assert caught.value.message.startswith("MMDetection cannot be imported here: ")
    assert caught.value.hint == "See what is missing and how to fix it: ckptconv doctor"
    assert Config
