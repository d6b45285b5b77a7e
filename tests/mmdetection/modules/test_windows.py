"""Windows over the attention of plain transformers, against blocks that are run window by window."""

from __future__ import annotations

import pytest
import torch

from ckptconv.mmdetection.modules.windows import spread_evenly
from tests.mmdetection.modules.networks import images, made, randomise

KINDS = ("vit", "dinov2", "dinov3", "eva02")


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_of_the_whole_grid_changes_nothing(kind):
    size = (56, 56) if kind in ("dinov2", "eva02") else (64, 64)
    plain, windowed = made(kind), made(kind, window=4, global_blocks=())
    for backbone in (plain, windowed):
        randomise(backbone)
    assert torch.equal(windowed(images(*size))[0], plain(images(*size))[0])
    assert not torch.equal(windowed(images())[0], plain(images())[0])


@pytest.mark.parametrize("kind", KINDS)
def test_attention_window_by_window(kind):
    """One block on 5 x 7 patches: windows of 3, cut out of the normed grid one after the other, zeros beyond it."""
    backbone = made(kind, window=3, global_blocks=(1, 2, 3), out_indices=(0,), norm=False)
    randomise(backbone)
    model, patch = backbone.model, backbone.strides[0]
    x = images(5 * patch, 7 * patch)
    with torch.no_grad():
        (ours,) = backbone(x)
        tokens = model._pos_embed(model.patch_embed(x))
        tokens, rope = tokens if isinstance(tokens, tuple) else (tokens, None)
        block, prefix = model.blocks[0], model.num_prefix_tokens
        normed = block.norm1(tokens)
        grid = torch.zeros(2, 6, 9, normed.shape[2])
        grid[:, :5, :7] = normed[:, prefix:].reshape(2, 5, 7, -1)
        out, firsts = torch.zeros_like(grid), []
        for top in (0, 3):
            for left in (0, 3, 6):
                part = grid[:, top : top + 3, left : left + 3].reshape(2, 9, -1)
                options = {}
                if rope is not None:
                    rows = torch.zeros(6, 9, rope.shape[1])
                    rows[:5, :7] = rope.reshape(5, 7, -1)
                    options = {"rope": rows[top : top + 3, left : left + 3].reshape(9, -1)}
                seen = block.attn(torch.cat([normed[:, :prefix], part], 1), **options)
                firsts.append(seen[:, :prefix])
                out[:, top : top + 3, left : left + 3] = seen[:, prefix:].reshape(2, 3, 3, -1)
        attended = torch.cat([torch.stack(firsts).mean(0), out[:, :5, :7].reshape(2, 35, -1)], 1)
        first, second = (_scale(block, number) for number in (1, 2))
        tokens = tokens + first(attended)
        tokens = tokens + second(block.mlp(block.norm2(tokens)))
    expected = tokens[:, prefix:].reshape(2, 5, 7, -1).permute(0, 3, 1, 2)
    assert torch.allclose(ours, expected, atol=1e-5)


def _scale(block, number):
    """LayerScale, which timm's two classes write in two ways."""
    if hasattr(block, f"ls{number}"):
        return getattr(block, f"ls{number}")
    gamma = getattr(block, f"gamma_{number}")
    return lambda x: x if gamma is None else gamma * x


@pytest.mark.parametrize("kind", ["vit", "dinov3"])
def test_two_sizes_before_one_backward_pass(kind):
    """Checkpointing computes each block again with the grid that it had: a portrait's as long as a landscape's."""
    gradients = []
    for with_cp in (False, True):
        backbone = made(kind, window=2, with_cp=with_cp).train()
        maps = [backbone(images(64, 96))[0], backbone(images(96, 64))[0]]
        sum(one.square().sum() for one in maps).backward()
        gradients.append([one.grad for one in backbone.parameters() if one.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_global_blocks_are_spread_as_in_vitdet():
    assert spread_evenly(12) == (2, 5, 8, 11)
    assert spread_evenly(24) == (5, 11, 17, 23)
    assert spread_evenly(32) == (7, 15, 23, 31)
    assert spread_evenly(3) == (0, 1, 2)
    three = made("vit", window=2)
    assert torch.equal(three(images())[0], made("vit")(images())[0])  # four blocks, all of them global


def test_nothing_is_left_on_the_network():
    backbone = made("vit", window=2, global_blocks=(3,), position_resampling={"offset": 0.1})
    before = {name: sorted(vars(one)) for name, one in backbone.model.named_modules()}
    with pytest.raises(RuntimeError):
        backbone(torch.zeros(1, 4, 64, 64))
    backbone(images())
    assert {name: sorted(vars(one)) for name, one in backbone.model.named_modules()} == before
