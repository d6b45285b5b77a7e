"""What MMDetection builds of a converted file computes what the official code computed, for each of `tests/official/`.

Each network goes the user's way: its official checkpoint, `convert`, `emit-config`, the detector that MMDetection
builds and initialises from that config, and then the maps of its backbone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import ckptconv
from ckptconv.methods import METHODS
from tests.support import official, pretrain
from tests.support.official import Features, Map, Network

pytestmark = pytest.mark.mmdet

CLOSE = 1e-5
"""The largest difference, as a part of the largest number of the map."""

_SOON = "no target of its family is built by MMDetection yet"
PENDING: Mapping[str, str] = dict.fromkeys(
    (
        "beit_vit",
        "beitv2_vit",
        "dino_vit",
        "dino_xcit",
        "dinov2_vit",
        "dinov2_vit_registers",
        "dinov2_vit_swiglu",
        "dinov2_vit_swiglu_registers",
        "dinov3_convnext",
        "dinov3_vit",
        "dinov3_vit_7b_form",
        "dinov3_vit_bf16_periods",
        "dinov3_vit_swiglu",
        "dinov3_vit_teacher",
        "eupe_vit",
        "eva02_apart",
        "eva02_packed",
        "fcmae_convnextv2",
        "franca_vit",
        "hiera_mae",
        "ibot_vit",
        "ijepa_vit",
        "mae_vit",
        "msn_vit",
        "pe_core",
        "pe_spatial",
        "pe_spatial_layer_scale",
        "radio_vit",
        "seer_regnety",
        "simclrv2_r50_sk",
        "simmim_swinv2",
        "tipsv2_vit",
        "tipsv2_vit_hub",
    ),
    _SOON,
)
"""Networks that ckptconv cannot yet put into a detector with these features: the reason."""


def marked(network: Network) -> Any:
    reason = PENDING.get(network.name)
    return pytest.param(
        network, id=network.name, marks=[pytest.mark.xfail(reason=reason, strict=True)] if reason else []
    )


EVERY = pytest.mark.parametrize("network", [marked(network) for network in official.networks()])


@dataclass(frozen=True)
class Built:
    """A detector's backbone, and whether its last map is normed by what the file holds.

    ``smallest``: sides of maps at least this long are compared. MMDetection's Swin shifts its windows in every second
    block, like its authors' code for detection; their code for pre-training does not where one window holds the map.
    """

    backbone: nn.Module
    normed: bool
    smallest: int


def convert(network: Network, folder: Path, checkpoint: Mapping[str, Any] | None = None) -> Path:
    source = network.write(folder, checkpoint)
    ckptconv.convert(source, folder / "backbone.pth", "auto" if network.guessed else network.method, force=True)
    source.unlink()
    return folder / "backbone.pth"


def build(converted: Path, **choices: Any) -> Built:
    """The backbone of the RetinaNet of the emitted config, as MMDetection initialises it."""
    pretrain.module("timm")
    text = ckptconv.emit_config(converted, detector="retinanet", guard=False, **choices).text
    path = converted.with_name("config.py")
    path.write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mmengine's and mmdet's own code
        config = Config.fromfile(path)
        init_default_scope("mmdet")
        torch.manual_seed(1)
        detector = MODELS.build(config.model)
        detector.init_weights()
    detector.eval()
    backbone: nn.Module = detector.backbone
    for name, norm in backbone.named_children():
        if name in {f"norm{i}" for i in range(4)} and isinstance(norm, nn.LayerNorm):
            setattr(backbone, name, nn.Identity())  # MMDetection's Swin has norms that no file of Swin's authors has
    arguments = config.model.backbone
    return Built(
        backbone,
        normed=arguments.get("norm", arguments.type == "TimmBackbone"),
        smallest=arguments.window_size + 1 if arguments.type == "SwinTransformer" else 1,
    )


def computed(built: Built, features: Features) -> tuple[Tensor, ...]:
    with torch.no_grad():
        maps: tuple[Tensor, ...] = built.backbone(official.image(*features.size))
    return maps


def expected(built: Built, features: Features) -> tuple[Map, ...]:
    return features.normed if built.normed and features.normed else features.plain


def differences(built: Built, network: Network) -> Iterator[float]:
    for features in network.features:
        found = computed(built, features)
        pairs = zip(expected(built, features)[-len(found) :], found, strict=True)
        yield max(map_.difference(ours) for map_, ours in pairs if min(map_.shape[2:]) >= built.smallest)


@EVERY
def test_the_maps_are_those_of_the_official_code(network: Network, tmp_path: Path) -> None:
    built = build(convert(network, tmp_path))
    for features, difference in zip(network.features, differences(built, network), strict=True):
        assert difference <= CLOSE, f"{features}: {difference:.1e}"


@pytest.mark.parametrize("changed", ["conv1.weight", "layer1.0.bn2.running_mean", "layer4.1.bn2.bias"])
def test_one_other_number_is_seen(changed: str, tmp_path: Path) -> None:
    network = official.network("moco_resnet18")
    checkpoint = network.checkpoint()
    official.change(checkpoint["state_dict"][f"module.encoder_q.{changed}"])
    assert max(differences(build(convert(network, tmp_path, checkpoint)), network)) > CLOSE


def test_there_is_a_file_for_every_pending_network() -> None:
    assert PENDING.keys() <= {network.name for network in official.networks()}


def test_the_files_are_small_and_their_methods_known() -> None:
    assert len(official.networks()) >= 14
    names = {method.name for method in METHODS}
    for network in official.networks():
        assert network.method in names or network.name in PENDING, network.name
        assert (official.FOLDER / f"{network.name}.json").stat().st_size < 60_000
