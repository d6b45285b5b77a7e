"""TimmBackbone against timm's own classes: names, maps, sizes, and what a detector asks of a backbone."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.support import pretrain

if TYPE_CHECKING:
    from ckptconv.mmdetection.modules import TimmBackbone

NETWORKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", {"embed_dim": 32, "depth": 4, "num_heads": 2}, {}),
    "dinov2": ("vit_small_patch14_reg4_dinov2", {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 56}, {}),
    "dinov3": ("vit_small_patch16_dinov3_qkvb", {"embed_dim": 48, "depth": 4, "num_heads": 2}, {}),
    "eva02": ("eva02_tiny_patch14_224", {"embed_dim": 48, "depth": 4, "num_heads": 2}, {}),
    "beit": ("beit_base_patch16_224", {"embed_dim": 32, "depth": 2, "num_heads": 2}, {"image_size": (64, 96)}),
    "xcit": ("xcit_nano_12_p16_224", {"embed_dim": 32, "depth": 2, "num_heads": 2}, {}),
    "hiera": ("hiera_tiny_224", {"embed_dim": 16, "stages": (1, 1, 2, 1)}, {"image_size": (64, 96)}),
    "swinv2": ("swinv2_tiny_window8_256", {"embed_dim": 12, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}, {}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, {}),
    "regnet": ("regnety_002", {}, {}),
    "resnet": ("resnet10t", {}, {}),
}


def made(kind: str, **options: Any) -> TimmBackbone:
    from ckptconv.mmdetection.modules import TimmBackbone

    pretrain.module("timm")
    name, arguments, own = NETWORKS[kind]
    torch.manual_seed(0)
    return TimmBackbone(name, arguments, **{**own, **options}).eval()


def timms(kind: str, **more: Any) -> Any:
    """timm's own model of the same name."""
    name, arguments, own = NETWORKS[kind]
    size = {"img_size": own["image_size"]} if "image_size" in own else {}
    return (
        pretrain.module("timm")
        .create_model(name, num_classes=0, global_pool="", **{**arguments, **size, **more})
        .eval()
    )


def images(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", NETWORKS)
def test_names_are_those_of_timm(kind: str) -> None:
    backbone, model = made(kind), timms(kind)
    assert list(backbone.state_dict()) == list(model.state_dict())
    assert [name for name, _ in backbone.named_parameters()] == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("kind", NETWORKS)
def test_maps_are_those_of_timm(kind: str) -> None:
    backbone = made(kind)
    dynamic = {"dynamic_img_size": True} if kind in ("vit", "dinov2", "dinov3", "eva02", "swinv2") else {}
    model = timms(kind, **dynamic)
    model.load_state_dict(backbone.state_dict(), strict=True)
    x = images(56, 84) if kind in ("dinov2", "eva02") else images()
    plain = {"norm": True} if backbone.plain else {}
    expected = model.forward_intermediates(x, intermediates_only=True, **plain)
    maps = backbone(x)
    assert len(maps) == (1 if backbone.plain else 4)
    for ours, theirs in zip(maps, expected[-len(maps) :], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_copy_and_a_pickle_hold_one_network(kind: str) -> None:
    backbone = made(kind)
    for other in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        with torch.no_grad():
            for value in other.parameters():
                value.add_(1)
            changed = other(images())
        assert all(a is b for a, b in zip(other.parameters(), other.model.parameters(), strict=True))
        assert all((a != b).any() for a, b in zip(changed, backbone(images()), strict=True))
