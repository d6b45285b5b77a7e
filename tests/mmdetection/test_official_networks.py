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
from ckptconv.backbones import TargetName
from ckptconv.conversion import provenance
from ckptconv.formats import open_checkpoint
from ckptconv.methods import METHODS
from ckptconv.mmdetection.modules.timm_backbone import TimmBackbone
from tests.support import official, pretrain
from tests.support.official import Features, Map, Network

pytestmark = pytest.mark.mmdet

CLOSE = 1e-5
"""The largest difference, as a part of the largest number of the map."""

_OTHER_SHORTCUT = "timm's selective kernels do not average the shortcut of the first stage, as SimCLRv2's do"
PENDING: Mapping[str, str] = {"simclrv2_r50_sk": _OTHER_SHORTCUT}
"""Networks that ckptconv cannot yet put into a detector with these features: the reason."""

NOT_OF_TIMM: Mapping[str, str] = {**PENDING}
"""Networks that ckptconv cannot yet write for timm: the reason."""


def marked(pending: Mapping[str, str]) -> list[Any]:
    return [
        pytest.param(
            network,
            id=network.name,
            marks=pytest.mark.xfail(reason=pending[network.name], strict=True) if network.name in pending else (),
        )
        for network in official.networks()
    ]


@dataclass(frozen=True)
class Built:
    """A detector's backbone, and whether its last map is normed by what the file holds.

    ``smallest``: sides of maps at least this long are compared. MMDetection's Swin shifts its windows in every second
    block, like its authors' code for detection; their code for pre-training does not where one window holds the map.
    """

    backbone: nn.Module
    normed: bool
    smallest: int


def convert(
    network: Network,
    folder: Path,
    checkpoint: Mapping[str, Any] | None = None,
    target: TargetName | None = None,
) -> Path:
    source = network.write(folder, checkpoint)
    method = "auto" if network.guessed else network.method
    ckptconv.convert(source, folder / "backbone.pth", method, target=target, force=True)
    source.unlink()
    return folder / "backbone.pth"


def build(converted: Path, size: tuple[int, int] | None = None) -> Built:
    """The backbone of the RetinaNet of the emitted config, as MMDetection initialises it.

    ``size`` replaces the config's size of images in a network that takes one size only.
    """
    pretrain.module("timm")
    text = ckptconv.emit_config(converted, detector="retinanet", guard=False).text
    if "mmpretrain" in text:
        pretrain.models()
    path = converted.with_name("config.py")
    path.write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mmengine's and mmdet's own code
        config = Config.fromfile(path)
        if size is not None and "image_size" in config.model.backbone:
            config.model.backbone.image_size = size
        init_default_scope("mmdet")
        torch.manual_seed(1)
        detector = MODELS.build(config.model)
        detector.init_weights()
    detector.eval()
    backbone: nn.Module = detector.backbone
    for name, norm in backbone.named_children():
        if name in {f"norm{i}" for i in range(4)} and isinstance(norm, nn.LayerNorm):
            setattr(
                backbone, name, nn.Identity()
            )  # of Swin and ConvNeXt for each map; no file of their authors has them
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
    return features.normed if built.normed and len(features.normed) == 1 else features.plain


def differences(converted: Path, network: Network) -> Iterator[float]:
    built = None
    for features in network.features:
        if built is None or getattr(built.backbone, "image_size", None):
            built = build(converted, features.size)
        found = computed(built, features)
        pairs = zip(expected(built, features)[-len(found) :], found, strict=True)
        yield max(map_.difference(ours) for map_, ours in pairs if min(map_.shape[2:]) >= built.smallest)


def from_file(converted: Path, norm: bool, size: tuple[int, int]) -> TimmBackbone:
    """What a file for timm says of its network, built without a config."""
    pretrain.module("timm")
    with open_checkpoint(converted) as checkpoint:
        origin = provenance.origin(checkpoint)
    assert origin is not None
    assert origin.timm is not None
    stated, resampling = origin.hyperparameters, origin.hyperparameters.position_resampling
    given: dict[str, Any] = {
        "norm": norm,
        "norm_eps": stated.eps,
        "position_resampling": resampling and vars(resampling),
        "rope_periods": stated.rope_periods,
        "init_cfg": {"type": "Pretrained", "checkpoint": str(converted)},
    }
    backbone = TimmBackbone(origin.timm.name, origin.timm.arguments, **given)
    if backbone.image_size is not None:  # its class takes images of one size
        backbone = TimmBackbone(origin.timm.name, origin.timm.arguments, image_size=size, **given)
    backbone.init_weights()
    return backbone.eval()


@pytest.mark.parametrize("network", marked(NOT_OF_TIMM))
def test_a_file_for_timm_says_how_its_network_is_built(network: Network, tmp_path: Path) -> None:
    """Without a config, so that what a config must say is in the file."""
    converted = convert(network, tmp_path, target="timm")
    for features in network.features:
        for norm, maps in ((False, features.plain), (True, features.normed)):
            if maps and (len(maps) == 1 or not norm):  # timm norms the map of a plain network alone
                built = Built(from_file(converted, norm, features.size), norm, 1)
                for map_, found in zip(maps, computed(built, features), strict=True):
                    assert map_.difference(found) <= CLOSE, f"{features}, {'normed' if norm else 'plain'}"


@pytest.mark.parametrize("network", marked(PENDING))
def test_the_maps_are_those_of_the_official_code(network: Network, tmp_path: Path) -> None:
    converted = convert(network, tmp_path)
    for features, difference in zip(network.features, differences(converted, network), strict=True):
        assert difference <= CLOSE, f"{features}: {difference:.1e}"


@pytest.mark.parametrize("changed", ["conv1.weight", "layer1.0.bn2.running_mean", "layer4.1.bn2.bias"])
def test_one_other_number_is_seen(changed: str, tmp_path: Path) -> None:
    network = official.network("moco_resnet18")
    checkpoint = network.checkpoint()
    official.change(checkpoint["state_dict"][f"module.encoder_q.{changed}"])
    assert max(differences(convert(network, tmp_path, checkpoint), network)) > CLOSE


@pytest.mark.parametrize(
    "changed",
    [
        "pos_embed",
        "register_tokens",
        "cls_token",
        "patch_embed.proj.bias",
        "blocks.0.ls1.gamma",
        "blocks.2.mlp.fc2.bias",
    ],
)
def test_one_other_number_is_seen_through_timm(changed: str, tmp_path: Path) -> None:
    network = official.network("dinov2_vit_registers")
    checkpoint = network.checkpoint()
    official.change(checkpoint[changed])
    converted = convert(network, tmp_path, checkpoint, "timm")
    features = network.features[1]
    (found,) = computed(Built(from_file(converted, True, features.size), True, 1), features)
    assert features.normed[0].difference(found) > CLOSE


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("mae_vit", 320),
        ("dino_vit", 320),
        ("dinov2_vit", 280),
        ("dinov2_vit_registers", 280),
        ("tipsv2_vit", 280),
        ("pe_core", 320),
        ("radio_vit", 320),
        ("eva02_apart", 280),
    ],
)
def test_positions_that_convert_resized_are_those_that_the_backbone_resizes(
    name: str, side: int, tmp_path: Path
) -> None:
    """Each method's own way: as it is, the backbone resizes them, and that is the official code's way."""
    network = official.network(name)
    source = network.write(tmp_path)
    for size, file in ((None, "own.pth"), (side, "resized.pth")):
        ckptconv.convert(source, tmp_path / file, network.method, target="timm", image_size=size)
    wanted, found = (from_file(tmp_path / file, False, (side, side)) for file in ("own.pth", "resized.pth"))
    assert wanted.pos_embed.shape != found.pos_embed.shape
    with torch.no_grad():
        (expected_map,), (resized_map,) = (one(official.image(side, side)) for one in (wanted, found))
    assert (expected_map - resized_map).abs().max() <= CLOSE * expected_map.abs().max()


def test_a_method_states_which_map_its_own_users_take() -> None:
    norms = {method.name: method.norm for method in METHODS}
    stated = {one.name: norms[one.method] for one in official.networks() if len(one.features[0].normed) == 1}
    assert len(stated) > 15
    assert stated == {name: official.network(name).taken == "normed" for name in stated}


def test_there_is_a_file_for_every_pending_network() -> None:
    assert PENDING.keys() | NOT_OF_TIMM.keys() <= {network.name for network in official.networks()}


def test_the_files_are_small_and_their_methods_known() -> None:
    assert len(official.networks()) >= 14
    names = {method.name for method in METHODS}
    for network in official.networks():
        assert network.method in names or network.name in PENDING, network.name
        assert (official.FOLDER / f"{network.name}.json").stat().st_size < 60_000
