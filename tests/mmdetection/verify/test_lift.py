"""The arms of a lift as MMDetection builds them: one network, all of which trains, from a file and from random weights.

Each network is the real class; what freezes it is its own default or is written in the config.
"""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.config.lazy import LazyObject
from mmengine.model.weight_init import PretrainedInit
from mmengine.registry import DefaultScope

from ckptconv.errors import UsageError
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.verify import lift, same_network

pytestmark = pytest.mark.mmdet
NARROW = {"base_channels": 8, "stem_channels": 8}
WAYS: dict[str, dict[str, Any]] = {
    "name": {"type": "ResNet"},
    "scope": {"type": "mmdet.ResNet"},
    "path": {"type": "mmdet.models.backbones.resnet.ResNet"},
    "short path": {"type": "mmdet.models.ResNet"},
    "key": {"type": "ResNet", "_scope_": "mmdet"},
    "class": {"type": ResNet},
    "lazy": {"type": LazyObject("mmdet.models", "ResNet")},
}
RELATIVES: dict[str, dict[str, Any]] = {
    "ResNetV1d": {"depth": 18},
    "ResNeXt": {"depth": 50, "groups": 2, "base_width": 4},
    "Res2Net": {"depth": 50, "scales": 4, "base_width": 26},
    "ResNeSt": {"depth": 50},
    "RegNet": {"arch": "regnetx_400mf"},
    "DetectoRS_ResNet": {"depth": 50},
    "TridentResNet": {"depth": 50, "num_branch": 3, "test_branch_idx": 1, "trident_dilations": (1, 2, 3)}
    | {"num_stages": 3, "strides": (1, 2, 2), "dilations": (1, 1, 1), "out_indices": (2,)},
    "HRNet": {
        "extra": {
            f"stage{i}": {"num_modules": 1, "num_branches": i, "num_channels": (8, 8, 8, 8)[:i]}
            | {"block": "BOTTLENECK" if i == 1 else "BASIC", "num_blocks": (1,) * i}
            for i in (1, 2, 3, 4)
        }
    },
    "MobileNetV2": {"frozen_stages": 2, "norm_eval": True},
    "SwinTransformer": {"embed_dims": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 4), "frozen_stages": 2},
}


@pytest.fixture(autouse=True)
def _quiet():
    with DefaultScope.overwrite_default_scope("mmdet"), warnings.catch_warnings(), runtime.quiet():
        warnings.simplefilter("ignore")
        yield


def both(backbone: dict[str, Any], **others: Any) -> list[dict[str, Any]]:
    """The backbones of the two arms."""
    config = {"model": {"type": "RetinaNet", "backbone": backbone}, **others}
    takes = runtime.constructor_arguments(config)
    free = lift.unfrozen(config, takes)
    return [arm["model"]["backbone"] for arm in (free, lift.from_random(free, takes))]


def built(backbone: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(0)
    module = MODELS.build(Config({"backbone": backbone}).backbone)
    module.init_weights()
    module.train()
    return module


def file_of(backbone: dict[str, Any], path: Path) -> str:
    torch.manual_seed(1)
    state = MODELS.build(Config({"backbone": backbone}).backbone).state_dict()
    head = "backbone." if backbone["type"] == "SwinTransformer" else ""  # it reads no other names
    torch.save({head + name: torch.rand(v.shape) if v.is_floating_point() else v for name, v in state.items()}, path)
    return str(path)


def assert_alike(one: torch.nn.Module, other: torch.nn.Module) -> None:
    """The same modules in the same mode, all of which trains, with other numbers."""
    assert [(n, type(m), m.training) for n, m in one.named_modules()] == [
        (n, type(m), m.training) for n, m in other.named_modules()
    ]
    assert all(module.training for module in one.modules())
    shapes = [[(n, v.shape, v.requires_grad) for n, v in m.named_parameters()] for m in (one, other)]
    assert shapes[0] == shapes[1]
    assert all(trains for _, _, trains in shapes[0])
    weights = [(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True) if a.dim() > 1]
    assert not any(bool((a == b).all()) for a, b in weights)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("start", ["Pretrained", "mmengine.Pretrained", PretrainedInit, "pretrained"], ids=str)
def test_the_arms_are_alike_whatever_way_the_type_is_written(way, start, tmp_path):
    backbone = {**WAYS[way], "depth": 18, **NARROW}
    file = file_of(backbone | {"type": "ResNet"}, tmp_path / "file.pth")
    said = {"pretrained": file} if start == "pretrained" else {"init_cfg": {"type": start, "checkpoint": file}}
    converted, random = map(built, both({**backbone, "frozen_stages": 1, **said}))
    assert torch.equal(converted.conv1.weight, torch.load(file)["conv1.weight"])
    assert_alike(converted, random)
    assert not any(bool((block.bn2.weight == 0).any()) for block in random.layer1)  # a branch that starts at 0


@pytest.mark.parametrize("name", RELATIVES)
def test_the_arms_of_every_relative_are_alike(name, tmp_path):
    backbone = {"type": name, **RELATIVES[name]}
    backbone |= NARROW if "Res" in name else {}
    file = file_of(backbone, tmp_path / "file.pth")
    converted, random = map(built, both({**backbone, "init_cfg": {"type": "Pretrained", "checkpoint": file}}))
    assert_alike(converted, random)


def test_norms_that_do_not_train_are_set_free(tmp_path):
    backbone = {"type": "mmdet.ResNet", "depth": 18, **NARROW, "norm_cfg": {"type": "BN", "requires_grad": False}}
    assert_alike(*map(built, both({**backbone, "pretrained": file_of(backbone, tmp_path / "file.pth")})))


def test_networks_inside_and_beside_the_backbone_train_too():
    start = {"type": "Pretrained", "checkpoint": "file.pth"}
    inner = {"type": "mmdet.ResNet", "depth": 18, "init_cfg": start}
    config = {
        "model": {
            "type": "FasterRCNN",
            "backbone": {"type": "TwoStreams", "rgb": dict(inner), "depth": [dict(inner)]},
            "neck": {"type": "RFP", "rfp_backbone": {"type": "DetectoRS_ResNet", "pretrained": "file.pth"}},
            "roi_head": {"shared_head": {"type": "ResLayer", "depth": 50, "init_cfg": start}},
            "bbox_head": {"type": "FCOSHead", "norm_cfg": {"type": "GN", "requires_grad": False}},
        }
    }
    takes = runtime.constructor_arguments(config)
    random = lift.from_random(lift.unfrozen(config, takes), takes)["model"]
    free = {"frozen_stages": -1, "norm_eval": False, "zero_init_residual": False}
    assert random["backbone"] == {
        "type": "TwoStreams",
        "rgb": {"type": "mmdet.ResNet", "depth": 18, **free},
        "depth": [{"type": "mmdet.ResNet", "depth": 18, **free}],
    }
    assert random["neck"]["rfp_backbone"] == {"type": "DetectoRS_ResNet", "pretrained": None, **free}
    assert random["roi_head"]["shared_head"] == {"type": "ResLayer", "depth": 50, "norm_eval": False}
    assert random["bbox_head"] == config["model"]["bbox_head"]  # a head starts from nothing in both arms


MODULES = """
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from torch import load

@MODELS.register_module()
class HisOwnResNet(ResNet):
    def __init__(self, **others):
        super().__init__(**others)

@MODELS.register_module()
class ReadsItself(ResNet):
    def __init__(self, weights, **others):
        super().__init__(**others)
        self.weights = weights
    def init_weights(self):
        super().init_weights()
        self.load_state_dict(load(self.weights))

@MODELS.register_module()
class FreezesItself(ResNet):
    def __init__(self, **others):
        super().__init__(**others)
        self.conv1.requires_grad_(False)

@MODELS.register_module()
class NeverTrains(ResNet):
    def train(self, mode=True):
        super().train(mode if self.init_cfg is not None and 'checkpoint' in self.init_cfg else False)
        return self
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arms")
    (folder / "networks_of_a_user.py").write_text(MODULES)
    file_of({"type": "ResNet", "depth": 18, **NARROW}, folder / "file.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


def arm(home: Path, name: str, kind: str, start: str, **said: Any) -> Path:
    text = f"""
    custom_imports = dict(imports='networks_of_a_user')
    model = dict(
        type='RetinaNet',
        backbone=dict(type={kind!r}, depth=18, base_channels=8, stem_channels=8, norm_eval=False, **{said!r}, {start}),
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5),
        bbox_head=dict(type='RetinaHead', num_classes=3, in_channels=8, stacked_convs=1, feat_channels=8,
            anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[1.0],
                strides=[8, 16, 32, 64, 128]),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder')))
    """
    (home / f"{name}.py").write_text(textwrap.dedent(text))
    return home / f"{name}.py"


def compared(home: Path, kind: str, random: str = "", **said: Any) -> None:
    start = f"init_cfg=dict(type='Pretrained', checkpoint={str(home / 'file.pth')!r})"
    same_network.require_same_network(arm(home, "one", kind, start, **said), arm(home, "other", kind, random, **said))


@pytest.mark.parametrize("kind", ["ResNet", "mmdet.ResNet", "HisOwnResNet"])
def test_arms_that_are_alike_are_taken(home, kind):
    compared(home, kind)


def test_a_users_own_class_takes_what_its_base_takes(home):
    known = runtime.constructor_arguments({"custom_imports": {"imports": "networks_of_a_user"}})
    assert {"frozen_stages", "norm_eval", "zero_init_residual"} <= known({"type": "HisOwnResNet"}, None)
    assert (
        known({"type": "NoSuchClass"}, None)
        == known({"type": "no_such.Class"}, "mmdet")
        == known({}, None)
        == frozenset()
    )


REFUSED = {
    "ReadsItself": "the random arm holds 20 of 20 weights of the checkpoint: backbone.conv1.weight, "
    "backbone.layer*.*.conv*.weight, backbone.layer*.*.downsample.*.weight",
    "FreezesItself": "parameters stay frozen in both arms of the lift, so random weights cannot learn: "
    "backbone.conv1.weight",
    "NeverTrains": "the arms of the lift are not the same network: module backbone differs",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_arms_of_which_nothing_can_be_learnt_are_refused(home, kind, monkeypatch):
    monkeypatch.chdir(home)
    with pytest.raises(UsageError) as error:
        compared(home, kind, **({"weights": "file.pth"} if kind == "ReadsItself" else {}))
    assert error.value.message == REFUSED[kind]
