"""verify-ap with `TimmBackbone`: images of one size, frozen blocks, random arms, and small networks for large ones."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from ckptconv.backbones.interface import Hyperparameters
from ckptconv.errors import UsageError
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.config import python_source
from ckptconv.mmdetection.config.network import Network
from ckptconv.mmdetection.config.timm_args import timm_network
from ckptconv.mmdetection.modules import TimmBackbone
from ckptconv.mmdetection.modules import timm_network as modules
from ckptconv.mmdetection.verify import config_edits, lift, same_network, stand_in, tiers
from ckptconv.mmdetection.verify.adjustments import adjusted
from ckptconv.mmdetection.verify.compare_ap import FAIL, INCONCLUSIVE, PASS
from ckptconv.planning.identify import choose
from tests.mmdetection.modules.networks import NETWORKS, retinanet
from tests.support import pretrain
from tests.support.cases import case

pytestmark = pytest.mark.mmdet
TRAINING = config_edits.SyntheticTraining(train_images=20, val_images=6, epochs=4, val_interval=2)
DECAY = {"constructor": "LayerDecayOptimWrapperConstructor", "paramwise_cfg": {"decay_rate": 0.7}}
PAD = {"type": "BatchFixedSizePad", "size": (1024, 1024), "pad_mask": True}


@pytest.fixture(autouse=True)
def _quiet():
    with DefaultScope.overwrite_default_scope("mmdet"), warnings.catch_warnings(), runtime.quiet():
        warnings.simplefilter("ignore")
        yield


def config(backbone: dict[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    return {
        "model": {"type": "RetinaNet", "backbone": backbone or {}, **model},
        "val_evaluator": {"metric": "bbox"},
        "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 1e-4}, **DECAY},
    }


def shrunk(settings: dict[str, Any], training: config_edits.SyntheticTraining = TRAINING) -> dict[str, Any]:
    return config_edits.shrink(settings, training, Path("data"), ("circle",))


def of_case(name: str) -> tuple[Any, Network]:
    """The backbone of a case file, and how MMDetection builds it."""
    found = case(name)
    backbone = choose(found.sections, found.method, found.options).plan.backbone
    network = timm_network(backbone, Hyperparameters())
    assert network is not None
    return backbone, network


@pytest.mark.parametrize(("arguments", "side"), [({}, 128), ({"patch_size": 14}, 140), (None, 128)])
def test_a_network_of_one_size_takes_the_generated_images(arguments, side):
    backbone = {"type": "TimmBackbone", "name": "beit_base_patch16_224", "image_size": (1024, 1024)}
    backbone |= {} if arguments is None else {"arguments": arguments}
    assert shrunk(config(backbone))["model"]["backbone"] == backbone | {"image_size": (side, side)}


def test_a_network_of_any_size_is_given_none():
    backbone = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "image_size": None}
    assert shrunk(config(backbone))["model"]["backbone"] == backbone


def test_batches_are_not_padded_to_the_size_of_another_schedule():
    before = config(data_preprocessor={"type": "DetDataPreprocessor", "batch_augments": [PAD]})
    preprocessor = shrunk(before)["model"]["data_preprocessor"]
    assert preprocessor["batch_augments"] == [PAD | {"size": (128, 128)}]


def test_a_simple_pyramid_is_narrow_too():
    neck = {"type": "SimpleFeaturePyramid", "in_channels": 192, "out_channels": 256}
    model = shrunk(config(neck=neck, bbox_head={"in_channels": 256, "num_classes": 80}))["model"]
    assert model["neck"] == neck | {"out_channels": 64}
    assert model["bbox_head"] == {"in_channels": 64, "num_classes": 1}


def test_learning_rates_decay_by_layer_where_the_tier_has_one_rate():
    assert shrunk(config())["optim_wrapper"].items() >= DECAY.items()
    other = shrunk(config(), replace(TRAINING, backbone_lr_mult=0.1))["optim_wrapper"]
    assert "constructor" not in other
    assert other["paramwise_cfg"] == {"custom_keys": {"backbone": {"lr_mult": 0.1}}}
    plain = config() | {"optim_wrapper": {"paramwise_cfg": {"norm_decay_mult": 0}}}
    assert "paramwise_cfg" not in shrunk(plain)["optim_wrapper"]


@pytest.mark.parametrize(
    ("frozen", "tier", "trained", "note"),
    [
        ("all", "smoke", None, "model.backbone.frozen='all' is off: this tier trains the whole network"),
        (2, "smoke", None, "model.backbone.frozen=2 is off: this tier trains the whole network"),
        (2, "lift", None, "model.backbone.frozen=2 is off: this tier trains the whole network"),
        (0, "lift", None, "model.backbone.frozen=0 is off: this tier trains the whole network"),
        (
            "all",
            "lift",
            "all",
            "model.backbone.frozen='all' stays: the lift is that of frozen weights above frozen random ones",
        ),
        (None, "lift", None, None),
        ("all", "full", "all", None),
    ],
)
def test_frozen_blocks_train_or_it_is_said(frozen, tier, trained, note):
    before = config({"type": "TimmBackbone", "name": "x", "frozen": frozen})
    changed, notes = adjusted(before, tier, tier != "full")
    assert notes == ((note,) if note else ())
    if tier != "full":
        changed = lift.unfrozen(changed, lambda *_: (), whole=tier != "lift")
    assert changed["model"]["backbone"]["frozen"] == trained


def test_a_frozen_lift_says_so_in_its_reasons():
    assert lift.lifted({"box": [9.0, 10.0, 11.0]}, frozen=True).reasons[0].endswith("above frozen random weights")
    assert lift.lifted({"box": [9.0, 10.0, 11.0]}).reasons[0].endswith("above random weights")
    assert lift.lifted({"box": [-9.0, -10.0, -11.0]}, frozen=True).reasons[-1] == (
        "the checkpoint is worse than frozen random weights"
    )


def arms(kind: str, folder: Path, **options: Any) -> list[Path]:
    """The config files of both arms of a lift, of a file with other numbers than timm draws."""
    model = retinanet(kind, **options)
    torch.manual_seed(1)
    state = TimmBackbone(**{k: v for k, v in model["backbone"].items() if k != "type"}).state_dict()
    state = {name: torch.rand(value.shape) if value.is_floating_point() else value for name, value in state.items()}
    torch.save(state, folder / "file.pth")
    model["backbone"]["init_cfg"] = {"type": "Pretrained", "checkpoint": str(folder / "file.pth")}
    settings = {"model": model, "custom_imports": {"imports": ["ckptconv.mmdetection.modules"]}}
    takes = runtime.constructor_arguments(settings)
    one = lift.unfrozen(settings, takes, whole=False)
    paths = [folder / "converted.py", folder / "random.py"]
    for path, arm in zip(paths, (one, lift.from_random(one, takes)), strict=True):
        path.write_text(python_source.assignments(arm))
    return paths


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("dinov3", {}),
        ("beit", {"image_size": (64, 64)}),
        ("xcit", {"norm": False}),
        ("hiera", {"frozen": 1, "image_size": (64, 64)}),
        ("dinov2", {"frozen": "all"}),
        ("regnet", {}),
    ],
)
def test_the_arms_are_one_network_with_other_numbers_everywhere(kind, options, tmp_path):
    converted, random = arms(kind, tmp_path, **options)
    same_network.require_same_network(converted, random)
    one, other = (same_network._built(path).backbone for path in (converted, random))
    file = torch.load(tmp_path / "file.pth")
    assert all(bool((value == file[name]).all()) for name, value in one.state_dict().items() if name in file)
    assert not any(bool((value == file[name]).all()) for name, value in other.named_parameters())
    trains = {name for name, value in one.named_parameters() if value.requires_grad}
    assert trains == (set() if options.get("frozen") == "all" else set(one._used))


@pytest.mark.parametrize("kind", ["dinov2", "dinov3", "beit", "convnext", "swinv2", "regnet", "resnet"])
def test_residual_branches_of_the_random_arm_are_not_close_to_nothing(kind):
    pretrain.module("timm")
    name, arguments, own = NETWORKS[kind]
    usual, random = (TimmBackbone(name, arguments, **own, zero_init_residual=zero) for zero in (True, False))

    def faint(network: TimmBackbone) -> list[str]:
        """Factors and norms' weights at most 0.2; biases are 0 in every network."""
        vectors = ((n, v) for n, v in network.named_parameters() if v.dim() == 1 and not n.endswith("bias"))
        return [name for name, value in vectors if float(value.abs().max()) <= 0.2]

    assert faint(usual)
    assert not faint(random)
    assert list(usual.state_dict()) == list(random.state_dict())


@pytest.mark.parametrize("frozen", [1, 0])
def test_blocks_that_stay_frozen_are_refused(frozen, tmp_path):
    converted, random = arms("vit", tmp_path)
    for path in (converted, random):
        path.write_text(path.read_text().replace("type='TimmBackbone'", f"type='TimmBackbone', frozen={frozen}"))
    with pytest.raises(UsageError, match="parameters stay frozen in both arms of the lift"):
        same_network.require_same_network(converted, random)


LARGE = {
    "dinov2_vitl14_teacher_chunks": "ViT-192x4/14",
    "dinov3_vit7b16": "ViT-192x4/16, 4 registers, SwiGLU, RoPE",
    "dinov3_vitl16_sat493m": "ViT-192x4/16, 4 registers, RoPE",
    "eva02_vitb14": "EVA-02-192x4/14",
    "data2vec_vitl16": "BEiT-192x4/16",
    "dino_xcit_medium_24_p8_released": "XCiT-T4/8",
    "hiera_base_plus_mae": "Hiera-1-2-2-1, 32 channels",
    "seer_rg10b": "RegNetY-1-2-3-2, 16-32-80-168 channels",
    "simmim_swinv2b": "SwinV2-1-1-2-1, 32 channels, windows 12-12-12-6",
}
"""Case files of networks that a smoke test without a GPU does not train, and what it trains instead."""


def replaced(name: str, gpu: bool = False, **backbone: Any) -> tuple[dict[str, Any], stand_in.StandIn] | None:
    member, network = of_case(name)
    start = {"type": "Pretrained", "checkpoint": "file.pth"}
    before = config({**network.arguments, "init_cfg": start, **backbone}, neck={"in_channels": list(network.channels)})
    before["custom_hooks"] = [{"type": "CheckpointGuard", "fingerprint": "0" * 64}]
    return stand_in.replaced(before, member, network, gpu)


@pytest.mark.parametrize("name", LARGE)
def test_a_small_network_has_the_parts_of_the_large_one(name):
    pretrain.module("timm")
    made = replaced(name)
    assert made is not None
    changed, small = made
    assert small.name == LARGE[name]
    assert small.parameters < 4_000_000 < stand_in._LARGEST[False] < small.original_parameters
    backbone = shrunk(changed)["model"]["backbone"]
    assert "init_cfg" not in backbone
    assert changed["custom_hooks"] == []
    network = MODELS.build(Config({"backbone": backbone}).backbone)
    assert changed["model"]["neck"]["in_channels"] == list(network.channels) * (4 if network.plain else 1)
    own, arguments = of_case(name)[0], of_case(name)[1].arguments
    with torch.device("meta"):
        original = modules.create(arguments["name"], arguments.get("arguments", {}), arguments.get("image_size"), 0.0)
    assert type(network.model) is type(original)
    parts = [{re.sub(r"\d+", "N", n) for n, _ in model.named_parameters()} for model in (network, original)]
    assert parts[0] == parts[1]
    assert sum(value.numel() for value in original.parameters()) > 0.9 * stand_in.parameters(own)


def test_the_windows_and_maps_of_a_small_network_are_those_that_it_has():
    made = replaced("dinov3_vitl16_sat493m", window=14, global_blocks=[5, 11, 17, 23], out_indices=[11, 23])
    assert made is not None
    backbone = made[0]["model"]["backbone"]
    assert backbone["window"] == 14
    assert backbone["global_blocks"] == [1, 3]
    assert backbone["out_indices"] == [2, 3]
    assert not backbone["zero_init_residual"]


def test_a_number_that_the_config_adds_is_kept():
    arguments = {**of_case("eva02_vitb14")[1].arguments.get("arguments", {}), "attn_drop_rate": 0.1}
    made = replaced("eva02_vitb14", arguments=arguments)
    assert made is not None
    assert made[0]["model"]["backbone"]["arguments"]["attn_drop_rate"] == 0.1


@pytest.mark.parametrize(
    ("name", "gpu", "other"),
    [
        ("dinov3_vits16_teacher", False, False),
        ("dinov3_vitl16_sat493m", True, False),
        ("dinov3_vit7b16", True, True),
        ("dino_vits8_released", False, True),
    ],
)
def test_a_network_is_large_by_the_machine_and_by_its_patches(name, gpu, other):
    assert (replaced(name, gpu) is not None) == other


def test_another_class_of_backbone_stays():
    assert replaced("dinov3_vitl16_sat493m", type="VisionTransformer") is None


def test_what_is_said_of_a_small_network_claims_nothing_of_the_large_one():
    made = replaced("dinov3_vit7b16")
    assert made is not None
    assert made[1].note == (
        "ViT-7B/16, 4 registers, SwiGLU, RoPE has 6.7 billion parameters, too many to train in this tier here: it is "
        "compared with its checkpoint and not trained; ViT-192x4/16, 4 registers, SwiGLU, RoPE with 1.6 million, of "
        "the same class and with the same parts, is trained in its place, from random weights"
    )
    assert tiers.purpose("smoke", None, stand_in=True) == (
        "the detector starts from its checkpoint, and trains with a small network of the same class"
    )
    for status in (PASS, FAIL, INCONCLUSIVE):
        said = tiers.meaning("smoke", status, stand_in=True)
        assert "the network of the checkpoint was not trained" in said
        assert "the chain works" not in said
