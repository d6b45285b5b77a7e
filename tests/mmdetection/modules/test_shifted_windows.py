"""The windows of timm's Swins for images of any size; `test_official_networks` has the maps of their authors' code."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.mmdetection.modules.networks import NETWORKS, images, made, timms

LARGE = 32 * 16
"""The side of images whose last map, of stride 32, has four windows of 8."""


def following(backbone: Any) -> list[Any]:
    return [one for one in backbone.model.modules() if "_attn" in vars(one)]


def test_timm_built_for_a_large_image_gives_the_same() -> None:
    backbone = made("swinv2")
    model = timms("swinv2", img_size=LARGE, pretrained_window_sizes=(8, 8, 8, 8))
    model.load_state_dict(backbone.state_dict(), strict=True)
    x = images(LARGE, LARGE)
    for ours, theirs in zip(backbone(x), model.forward_intermediates(x, intermediates_only=True), strict=True):
        assert torch.equal(ours, theirs)


def test_an_image_of_another_size_before_changes_nothing() -> None:
    backbone = made("swinv2")
    first = backbone(images())
    backbone(images(LARGE, 256))
    assert all(torch.equal(a, b) for a, b in zip(backbone(images()), first, strict=True))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
def test_a_copy_has_its_own_blocks(copied: Callable[[Any], Any]) -> None:
    blocks = following(copied(made("swinv2")))
    assert len(blocks) == 5
    assert all(block._attn.block is block for block in blocks)


def test_a_block_is_computed_again_with_the_windows_that_it_had() -> None:
    gradients = []
    for with_cp in (False, True):
        backbone = made("swinv2", with_cp=with_cp).train()
        maps = backbone(images(LARGE, 256))
        backbone(images())
        sum(one.square().sum() for one in maps).backward()
        gradients.append([one.grad for one in backbone.parameters() if one.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_network_told_to_partition_always_is_left_alone() -> None:
    from ckptconv.mmdetection.modules import TimmBackbone

    name, arguments, _ = NETWORKS["swinv2"]
    assert not following(TimmBackbone(name, {**arguments, "always_partition": True}))
