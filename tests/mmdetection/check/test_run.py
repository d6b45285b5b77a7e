"""`ckptconv check` on real detectors: the ways in which they start from something else than their file."""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptconv
from ckptconv.errors import UnreadableError, UsageError
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check.run import check
from ckptconv.mmdetection.check.verdict import CheckReport
from ckptconv.mmdetection.config import emit
from ckptconv.mmdetection.config.options import Choices
from tests.support import forked, raw_files
from tests.support.stack import FORKS

pytestmark = pytest.mark.mmdet

NECK = {18: [64, 128, 256, 512], 50: [256, 512, 1024, 2048]}
IMAGENET = "mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def moco18(tmp_path_factory) -> Path:
    return raw_files.moco(tmp_path_factory.mktemp("raw") / "moco18.pth.tar")


@pytest.fixture(scope="module")
def moco50(tmp_path_factory) -> Path:
    return raw_files.moco(tmp_path_factory.mktemp("raw") / "moco50.pth.tar", depth=50)


def detector(checkpoint: str, depth: int = 18, prefix: str = "", backbone: str = "", more: str = "") -> Path:
    """A RetinaNet's config that nobody's tool has written."""
    start = f", prefix={prefix!r}" if prefix else ""
    init_cfg = f"dict(type='Pretrained', checkpoint={checkpoint!r}{start})"
    path = Path("detector.py")
    path.write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n"
        f"model = dict(backbone=dict(depth={depth}, norm_eval=False, init_cfg={init_cfg}{backbone}),\n"
        f"             neck=dict(in_channels={NECK[depth]}))\n{more}"
    )
    return path


def only(found: CheckReport) -> tuple[Any, list[str], list[tuple[str, ...]]]:
    (report,) = found.modules
    return report, [p.text for p in report.problems], [p.fixes for p in report.problems]


def save(name: str, **content: Any) -> str:
    torch.save(content, name)
    return name


def command(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    return forked.run([sys.executable, "-m", "ckptconv", *map(str, words)], env={**os.environ, **env}, timeout=120)


@pytest.mark.parametrize("name", ["r50.pth", "r50.safetensors"])
def test_what_convert_and_emit_config_wrote_is_equal(moco50, name):
    ckptconv.convert(moco50, name, "moco")
    emit.write(name, Path("mask_rcnn.py"), Choices("mask-rcnn", guard=False))
    found = check(Path("mask_rcnn.py"))
    report, problems, _ = only(found)
    assert (report.module, report.network, report.equal, report.total) == ("backbone", "ResNet-50", 318, 318)
    assert (problems, report.notes, found.good) == ([], (), True)


def test_the_command_prints_the_verdict(moco50):
    ckptconv.convert(moco50, "r50.pth", "moco")
    emit.write("r50.pth", Path("mask_rcnn.py"))
    done = command("check", "mask_rcnn.py")
    assert (done.returncode, done.stderr) == (0, "")
    verdict, _, training = done.stdout.partition("train")
    assert verdict == (
        "config    mask_rcnn.py: MaskRCNN\n"
        f"module    backbone: ResNet-50, from {Path.cwd()}/r50.pth\n"
        "equal     318/318\n"
        "verdict   the detector starts from its checkpoint\n"
    )
    assert len(training.splitlines()) == 4
    data = json.loads(command("check", "mask_rcnn.py", "--json").stdout)
    assert (data["schema"], data["command"], data["good"]) == (2, "check", True)
    assert data["modules"][0]["equal"] == 318


def test_the_raw_file_loads_nothing_and_there_are_two_ways_to_mend_it(moco50):
    os.symlink(moco50, "moco.pth.tar")
    detector("moco.pth.tar", depth=50)
    done = command("check", "detector.py")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        "config    detector.py: RetinaNet\n"
        "module    backbone: ResNet-50, from moco.pth.tar\n"
        "equal     0/318\n"
        "problem   nothing was loaded: moco.pth.tar has none of the module's 318 names; its names have the prefix "
        "'module.encoder_q.' or 'module.encoder_k.'\n"
        "  fix     ckptconv convert --selfsup moco moco.pth.tar moco_backbone.pth, then "
        "model.backbone.init_cfg=dict(type='Pretrained', checkpoint='moco_backbone.pth')\n"
        "  or      model.backbone.init_cfg=dict(type='Pretrained', checkpoint='moco.pth.tar', "
        "prefix='module.encoder_q.')\n"
        "verdict   the detector does not start as it should\n"
    )


@pytest.mark.parametrize("prefix", ["module.encoder_q.", "module.encoder_q"])
def test_a_prefix_is_the_honest_rival(moco50, prefix):
    os.symlink(moco50, "moco.pth.tar")
    report, problems, _ = only(check(detector("moco.pth.tar", depth=50, prefix=prefix)))
    assert (report.equal, report.total, problems) == (318, 318, [])
    head, rival = report.notes
    assert head.text == (
        "4 tensors of the file not loaded, because ResNet does not have them: fc.*.weight, fc.*.bias (a head?)"
    )
    assert rival.text == (
        "prefix='module.encoder_q.' loads the raw file correctly. But the file does not say its method and pixel "
        "statistics, every start reads all of it, and the guard cannot tell it from another file"
    )


def test_a_wrong_prefix(moco18):
    os.symlink(moco18, "moco.pth.tar")
    report, problems, fixes = only(check(detector("moco.pth.tar", prefix="encoder_q")))
    assert report.equal == 0
    assert problems == [
        (
            "no name in moco.pth.tar starts with prefix='encoder_q.'; its names have the prefix 'module.encoder_q.' or "
            "'module.encoder_k.'"
        )
    ]
    assert fixes[0][1] == (
        "model.backbone.init_cfg=dict(type='Pretrained', checkpoint='moco.pth.tar', prefix='module.encoder_q.')"
    )


def test_a_prefix_where_none_is_needed():
    save("bare.pth", **raw_files.backbone_state(18))
    _, problems, fixes = only(check(detector("bare.pth", prefix="backbone.")))
    assert problems == ["no name in bare.pth starts with prefix='backbone.'; its names have no prefix"]
    assert fixes == [("model.backbone.init_cfg=dict(type='Pretrained', checkpoint='bare.pth'), without a prefix",)]


def test_module_left_in_is_taken_off_by_mmengine_and_by_nothing_else():
    state = raw_files.backbone_state(18)
    save("ddp.pth", state_dict={f"module.{k}": v for k, v in state.items()})
    found = check(detector("ddp.pth"))
    report, problems, _ = only(found)
    assert (report.equal, problems, found.good) == (120, [], True)
    assert [n.text for n in report.notes] == [
        "mmengine removes DistributedDataParallel's prefix 'module.'; other loaders do not"
    ]
    save("twice.pth", state_dict={f"module.module.{k}": v for k, v in state.items()})
    report, problems, fixes = only(check(detector("twice.pth")))
    assert report.equal == 0
    assert problems == [
        "nothing was loaded: twice.pth has none of the module's 120 names; its names have the prefix 'module.module.'"
    ]
    assert fixes[0][-1] == (
        "model.backbone.init_cfg=dict(type='Pretrained', checkpoint='twice.pth', prefix='module.module.')"
    )


def test_weights_in_another_place():
    save("dino.pth", student={"a": torch.zeros(1)}, teacher={"backbone.b": torch.zeros(1)})
    _, problems, fixes = only(check(detector("dino.pth")))
    assert problems == [
        (
            "nothing was loaded: dino.pth has no tensors under 'state_dict' or at the top level; its tensors are under "
            "'student', 'teacher'"
        )
    ]
    assert fixes == [("`ckptconv.inspect('dino.pth')`, to see what it is",)]


def test_a_head_in_a_backbones_file():
    save("fc.pth", **raw_files.backbone_state(18), **{"fc.weight": torch.zeros(2, 512), "fc.bias": torch.zeros(2)})
    found = check(detector("fc.pth"))
    report, problems, _ = only(found)
    assert (report.equal, problems, found.good) == (120, [], True)
    assert [n.text for n in report.notes] == [
        ("2 tensors of the file not loaded, because ResNet does not have them: fc.weight, fc.bias (a head?)")
    ]


RESETTING = """
import torch
from mmdet.models import ResNet, RetinaNet
from mmdet.registry import MODELS

@MODELS.register_module(force=True)
class ResettingResNet(ResNet):
    def init_weights(self):
        super().init_weights()
        torch.nn.init.normal_(self.conv1.weight)

@MODELS.register_module(force=True)
class ResettingDetector(RetinaNet):
    def init_weights(self):
        super().init_weights()
        torch.nn.init.ones_(self.backbone.layer1[0].bn1.weight)
        torch.nn.init.zeros_(self.backbone.bn1.running_mean)

@MODELS.register_module(force=True)
class ForgetfulDetector(RetinaNet):
    def init_weights(self):
        pass
"""


@pytest.mark.parametrize(
    ("change", "problem", "fix"),
    [
        (
            "backbone=dict(type='ResettingResNet')",
            (
                "loaded, then overwritten by init_weights() of ResettingResNet: 1 of 120 tensors differ from "
                "r18.pth, whose names and shapes fit: conv1.weight"
            ),
            "Change init_weights() of ResettingResNet: keep what init_cfg loads",
        ),
        (
            "type='ResettingDetector'",
            (
                "loaded, then overwritten by init_weights() of ResettingDetector: 2 of 120 tensors differ from "
                "r18.pth, whose names and shapes fit: bn1.running_mean, layer1.0.bn1.weight"
            ),
            "Change init_weights() of ResettingDetector: keep what init_cfg loads",
        ),
        (
            "type='ForgetfulDetector'",
            (
                "never loaded: init_weights() of ForgetfulDetector does not call the one of this module: 120 of 120 "
                "tensors differ from r18.pth, whose names and shapes fit: conv1.weight, bn1.weight, bn1.bias and 14 "
                "more"
            ),
            "Call super().init_weights() in init_weights() of ForgetfulDetector",
        ),
    ],
    ids=["backbone", "detector", "forgetful"],
)
def test_initialised_again_after_loading(moco18, here, monkeypatch, change, problem, fix):
    module = f"resetting_{change.count('Res')}_{len(change)}"
    Path(f"{module}.py").write_text(RESETTING)
    monkeypatch.syspath_prepend(here)
    ckptconv.convert(moco18, "r18.pth", "moco")
    more = f"custom_imports = dict(imports=['{module}'])\nmodel.update({change})\n"
    if change.startswith("backbone"):
        more = f"custom_imports = dict(imports=['{module}'])\nmodel['backbone'].update(type='ResettingResNet')\n"
    _, problems, fixes = only(check(detector("r18.pth", more=more)))
    assert problems == [problem]
    assert fixes == [(fix,)]


@pytest.mark.parametrize(
    ("of", "built", "problem", "fix"),
    [
        (
            18,
            50,
            (
                "r.pth holds a ResNet-18, and the config builds a ResNet-50: 165 tensors missing, 23 with another "
                "shape, 0 unexpected"
            ),
            "model.backbone: depth=18",
        ),
        (
            34,
            18,
            (
                "r.pth holds a ResNet-34, and the config builds a ResNet-18: 0 tensors missing, 0 with another shape, "
                "96 unexpected"
            ),
            "model.backbone: depth=34",
        ),
    ],
)
def test_wrong_depth(of, built, problem, fix):
    save("r.pth", **raw_files.backbone_state(of))
    found = check(detector("r.pth", depth=built))
    _, problems, fixes = only(found)
    assert not found.good
    assert problems == [problem]
    assert fixes == [(fix,)]


def test_batch_norm_statistics_missing():
    state = raw_files.backbone_state(18)
    save("r.pth", **{k: v for k, v in state.items() if "running" not in k})
    report, problems, _ = only(check(detector("r.pth")))
    assert report.equal == 80
    assert problems == ["r.pth has no batch-norm statistics: 40 tensors start from 0 and 1"]


def test_something_else_missing():
    state = raw_files.backbone_state(18)
    save("r.pth", **{k: v for k, v in state.items() if k != "conv1.weight"})
    _, problems, _ = only(check(detector("r.pth")))
    assert problems == ["1 tensor missing in r.pth, initialised with random values: conv1.weight"]


def test_step_counters_are_not_needed():
    state = raw_files.backbone_state(18)
    save("old.pth", **{k: v for k, v in state.items() if "num_batches" not in k})
    found = check(detector("old.pth"))
    report, problems, _ = only(found)
    assert (report.equal, report.total, problems, found.good) == (100, 120, [], True)
    assert report.notes[0].text == (
        "20 tensors not in the file and not needed: bn1.num_batches_tracked, layer*.*.bn*.num_batches_tracked, "
        "layer*.*.downsample.*.num_batches_tracked"
    )


@pytest.mark.parametrize(
    ("fed", "said"),
    [
        ("bgr_to_rgb=False", "BGR with mean [123.675, 116.28, 103.53] and std [58.395, 57.12, 57.375]"),
        ("mean=[0., 0., 0.], std=[255., 255., 255.]", "RGB with mean [0.0, 0.0, 0.0] and std [255.0, 255.0, 255.0]"),
    ],
)
def test_pixels_unlike_the_methods(moco18, fed, said):
    ckptconv.convert(moco18, "r18.pth", "moco")
    found = check(detector("r18.pth", more=f"model['data_preprocessor'] = dict({fed})\n"))
    report, problems, fixes = only(found)
    assert (report.equal, found.good) == (120, False)
    assert problems == [
        (
            f"the network gets {said}; moco was trained on RGB with mean [123.675, 116.28, 103.53] and std "
            "[58.395, 57.12, 57.375]"
        )
    ]
    assert fixes == [(f"model.data_preprocessor: {IMAGENET}",)]


def test_strides_in_the_wrong_convolutions(moco50):
    ckptconv.convert(moco50, "r50.pth", "moco")
    report, problems, fixes = only(check(detector("r50.pth", depth=50, backbone=", style='caffe'")))
    assert report.equal == 318
    assert problems == [
        (
            "style='caffe' puts the strides in the 1x1 convolutions; moco was trained with strides in the 3x3 "
            "convolutions: the names are the same, the features are not"
        )
    ]
    assert fixes == [("model.backbone: style='pytorch'",)]


def test_batch_norm_that_stays_as_it_was_pretrained(moco18):
    ckptconv.convert(moco18, "r18.pth", "moco")
    found = check(detector("r18.pth", more="model['backbone']['norm_eval'] = True\n"))
    assert found.good
    assert [n.text[:69] for n in found.modules[0].notes] == [
        "batch norm keeps the statistics of the pretraining (norm_eval=True); "
    ]


def test_a_file_that_torch_refuses():
    state = raw_files.backbone_state(18)
    save("train.pth", args=argparse.Namespace(lr=1), state_dict={f"encoder.{k}": v for k, v in state.items()})
    detector("train.pth", prefix="encoder.")
    done = command("check", "detector.py")
    assert done.returncode == (0 if FORKS else 1)
    if not FORKS:  # whose mmengine loads it all the same
        said = "problem   torch does not load train.pth, because it holds more than tensors: argparse.Namespace\n"
        assert said in done.stdout
    with_loader = "custom_imports = dict(imports=['ckptconv.mmdetection.loader'])\n"
    detector("train.pth", prefix="encoder.", more=with_loader)
    done = command("check", "detector.py")
    assert (done.returncode, "equal     120/120" in done.stdout) == (0, True)


class Marker:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("executed",)


def test_nothing_in_a_checkpoint_is_executed_even_where_torch_is_told_to():
    save("evil.pth", payload=Marker(), state_dict=raw_files.backbone_state(18))
    detector("evil.pth")
    done = command("check", "detector.py", TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "error: evil.pth is not safe: unpickling it would call posix.mkdir. Nothing was run here\n"
        "hint: Convert its weights into a safe file: ckptconv convert --selfsup torchvision evil.pth "
        "evil_backbone.pth\n"
    )
    assert not Path("executed").exists()
    torch.load("evil.pth", weights_only=False)  # the control: it would have been
    assert Path("executed").exists()


def test_two_modules_of_one_file(moco18):
    ckptconv.convert(moco18, "r18.pth", "moco")
    emit.write("r18.pth", Path("c4.py"), Choices("mask-rcnn-c4", guard=False))
    found = check(Path("c4.py"))
    assert [(r.module, r.equal, r.total, r.notes) for r in found.modules] == [
        ("backbone", 90, 90, ()),
        ("roi_head.shared_head", 30, 30, ()),
    ]
    assert found.good


def texts(found: CheckReport) -> list[str]:
    assert not found.good
    return [p.text for p in found.problems]


def test_no_checkpoint_at_all():
    path = Path("detector.py")
    path.write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\nmodel = dict(backbone=dict(init_cfg=None))\n"
    )
    assert texts(check(path)) == ["backbone is not initialised from a checkpoint: it starts from random values"]


def test_a_backbone_beside_a_module_that_is_pretrained(moco18):
    ckptconv.convert(moco18, "r18.pth", "moco")
    emit.write("r18.pth", Path("c4.py"), Choices("mask-rcnn-c4", guard=False))
    Path("half.py").write_text("_base_ = 'c4.py'\nmodel = dict(backbone=dict(init_cfg=None))\n")
    found = check(Path("half.py"))
    assert [(r.module, r.equal) for r in found.modules] == [("roi_head.shared_head", 30)]
    assert texts(found) == ["backbone is not initialised from a checkpoint: it starts from random values"]


def test_a_detector_that_is_loaded_over_it(moco18):
    ckptconv.convert(moco18, "r18.pth", "moco")
    path = detector("r18.pth", more="load_from = 'detector.pth'\n")
    assert texts(check(path)) == [
        "load_from='detector.pth' is loaded after the initialisation, but the file does not exist"
    ]
    other = {f"backbone.{name}": value for name, value in raw_files.backbone_state(18, seed=1).items()}
    save("detector.pth", state_dict=other)
    assert texts(check(path)) == ["load_from='detector.pth' overwrites the backbone after its initialisation"]


def test_what_the_plain_network_does_not_have():
    save("r.pth", **raw_files.backbone_state(50))
    dcn = ", dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False), stage_with_dcn=(False, True, True, True)"
    found = check(detector("r.pth", depth=50, backbone=dcn))
    report, problems, _ = only(found)
    assert (report.equal, report.total, problems, found.good) == (318, 318, [], True)
    assert report.notes[0].text == (
        "26 tensors of the module that no checkpoint of the network has: layer*.*.conv*.conv_offset.weight, "
        "layer*.*.conv*.conv_offset.bias"
    )


def test_a_stem_that_is_built_otherwise():
    save("r.pth", **raw_files.backbone_state(18))
    _, problems, _ = only(check(detector("r.pth", backbone=", deep_stem=True")))
    assert problems == [
        (
            "6 tensors of the ResNet-18 in r.pth not loaded, because the module is built differently: conv1.weight, "
            "bn1.weight, bn1.bias and 3 more"
        )
    ]


def test_a_whole_detector_is_loaded_last(moco18):
    ckptconv.convert(moco18, "r18.pth", "moco")
    model = runtime.build(runtime.read_config(detector("r18.pth")), "it")
    torch.save({"state_dict": model.state_dict()}, "whole.pth")
    path = detector("r18.pth", more="model['init_cfg'] = dict(type='Pretrained', checkpoint='whole.pth')\n")
    report, problems, _ = only(check(path))
    assert (report.module, report.equal == report.total, problems) == ("", True, [])


def test_a_failure_is_charged_to_the_module_that_failed(moco18):
    ckptconv.convert(moco18, "r18.pth", "moco")
    save("neck.pth", **{"neck.x": torch.zeros(1)})
    more = "model['neck']['init_cfg'] = dict(type='Pretrained', checkpoint='neck.pth', prefix='nack.')\n"
    found = check(detector("r18.pth", more=more))
    backbone, neck = found.modules
    assert (backbone.module, backbone.equal, backbone.problems) == ("backbone", 120, ())
    assert [p.text for p in neck.problems] == [
        "no name in neck.pth starts with prefix='nack.'; its names start with neck"
    ]


def test_pixels_of_a_detector_with_branches(moco18):
    ckptconv.convert(moco18, "r18.pth", "moco")
    Path("soft.py").write_text(
        "_base_ = 'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'\n"
        "model = dict(detector=dict(backbone=dict(depth=18, init_cfg=dict(checkpoint='r18.pth')), "
        "neck=dict(in_channels=[64, 128, 256, 512])))\n"
    )
    found = check(Path("soft.py"))
    assert not found.good
    assert {r.module for r in found.modules} == {"student.backbone", "teacher.backbone"}
    assert all(r.problems[0].text.startswith("the network gets BGR with mean [103.53") for r in found.modules)


def test_images_that_are_not_normalised(moco18):
    ckptconv.convert(moco18, "r18.pth", "moco")
    more = "model['data_preprocessor'] = dict(_delete_=True, type='DetDataPreprocessor', pad_size_divisor=32)\n"
    _, problems, _ = only(check(detector("r18.pth", more=more)))
    assert problems[0].startswith("the network gets BGR with mean [0.0, 0.0, 0.0] and std [1.0, 1.0, 1.0]; moco was")


def test_a_backbone_that_loads_by_code_of_its_own():
    save("swin.pth", model={"patch_embed.proj.weight": torch.zeros(96, 3, 4, 4)})
    path = Path("swin.py")
    path.write_text(
        "_base_ = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'\n"
        "model = dict(backbone=dict(init_cfg=dict(checkpoint='swin.pth')))\n"
    )
    _, problems, fixes = only(check(path))
    assert problems == [
        (
            "100 tensors missing in swin.pth, initialised with random values: patch_embed.projection.bias, "
            "stages.*.blocks.*.attn.w_msa.qkv.weight, stages.*.blocks.*.attn.w_msa.qkv.bias and 7 more"
        )
    ]
    assert fixes == [("`ckptconv.inspect('swin.pth')`",)]


LOADS_WHILE_BUILT = """
import torch
from mmdet.models import RetinaNet
from mmdet.registry import MODELS

@MODELS.register_module(force=True)
class LoadsWhileBuilt(RetinaNet):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        torch.load('evil.pth')
"""


def test_nothing_is_executed_while_a_detector_is_built(here):
    save("evil.pth", payload=Marker())
    save("r18.pth", state_dict=raw_files.backbone_state(18))
    Path("loads_while_built.py").write_text(LOADS_WHILE_BUILT)
    more = "custom_imports = dict(imports=['loads_while_built'])\nmodel['type'] = 'LoadsWhileBuilt'\n"
    detector("r18.pth", more=more)
    done = command("check", "detector.py", TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1", PYTHONPATH=str(here))
    assert done.returncode == 3
    assert done.stderr.startswith("error: evil.pth is not safe: unpickling it would call posix.mkdir.")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("checkpoint", "message", "hint"),
    [
        ("absent.pth", "backbone starts from absent.pth, but the file does not exist", "A relative path starts from"),
    ],
)
def test_checkpoints_that_are_not_here(checkpoint, message, hint):
    with pytest.raises(UsageError) as raised:
        check(detector(checkpoint))
    assert raised.value.message == message
    assert raised.value.hint.startswith(hint)


def test_a_broken_checkpoint(moco18):
    ckptconv.convert(moco18, "r18.pth", "moco")
    data = Path("r18.pth").read_bytes()
    Path("r18.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableError):
        check(detector("r18.pth"))
    assert command("check", "detector.py").returncode == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = 1 / 0\n", "bad.py cannot be read: ZeroDivisionError: division by zero"),
        ("_base_ = 'nothing.py'\n", "bad.py cannot be read: FileNotFoundError: [Errno 2] No such file or directory: "),
        ("model = dict(\n", "bad.py cannot be read: SyntaxError: '(' was never closed (<unknown>, line 1)"),
        ("lr = 1\n", "bad.py has no model"),
        ("model = dict(type='MaskRNN')\n", "bad.py: its model cannot be built: KeyError: "),
        ("model = dict(type='ResNet', depth=51)\n", "bad.py: its model cannot be built: KeyError: "),
        ("raise SystemExit(0)\n", "bad.py cannot be read: SystemExit: 0"),
    ],
)
def test_bad_configs(text, message):
    Path("bad.py").write_text(text)
    with pytest.raises(UsageError) as raised:
        check(Path("bad.py"))
    assert raised.value.message.startswith(message)
    assert "\n" not in raised.value.message
    assert raised.value.hint
    del raised
    with warnings.catch_warnings():  # mmengine leaves a file open behind a config that fails
        warnings.simplefilter("ignore")
        gc.collect()


def test_a_config_that_imports_what_is_not_there_names_it():
    Path("bad.py").write_text("custom_imports = dict(imports=['no_such.models'], allow_failed_imports=False)\n")
    done = command("check", "bad.py")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(
        "error: bad.py imports no_such.models, which is not found here\nhint: For mmpretrain: mim"
    )


def test_a_config_that_does_not_exist():
    done = command("check", "absent.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: there is no config absent.py\nhint: Check the path; ckptconv emit-config writes one.\n"
    )


@pytest.mark.parametrize(
    ("package", "source", "cause"),
    [
        ("mmdet", "raise ImportError('broken')", "ImportError: broken"),
        ("mmengine", "raise ImportError('broken')", "ImportError: broken"),
        ("mmcv/_ext.py", "raise ImportError('no ops here')", "ModuleNotFoundError: No module named 'mmcv._ext'"),
    ],
)
def test_without_mmdetection(here, moco18, package, source, cause):
    """A package that does not import, or an mmcv without its compiled ops."""
    ckptconv.convert(moco18, "r18.pth", "moco")
    detector("r18.pth")
    blocker = "import sys\n"
    name = package.removesuffix(".py").replace("/", ".")
    if name == "mmcv._ext":
        blocker += "sys.modules['mmcv._ext'] = None\n"
        cause = "import of mmcv._ext halted; None in sys.modules"
    else:
        (here / "shadow" / name).mkdir(parents=True)
        (here / "shadow" / name / "__init__.py").write_text(source)
    (here / "shadow").mkdir(exist_ok=True)
    (here / "shadow" / "sitecustomize.py").write_text(blocker)
    run = [
        sys.executable,
        "-m",
        "ckptconv",
        "check",
        "detector.py",
    ]  # a process of its own: it imports what is shadowed
    path = os.pathsep.join(filter(None, (str(here / "shadow"), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(run, capture_output=True, text=True, check=False, env=env, timeout=120)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("error: MMDetection cannot be imported here: ")
    assert cause in done.stderr
    assert done.stderr.endswith("hint: See what is missing and how to fix it: ckptconv doctor\n")
