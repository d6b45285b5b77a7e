"""Tables of positions for other images: the method's own way, timm's way, and files for networks of one size."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from ckptconv.mmdetection.modules import positions, relative_positions
from tests.mmdetection.modules.networks import images, made, randomise, timms
from tests.support import pretrain

# What `VisionTransformer.interpolate_pos_encoding` of facebookresearch/dino (vision_transformer.py) makes, for an image
# of 96x80 pixels and patches of 16, of a table for 64x64 whose numbers are sin(0), sin(1.7), sin(3.4), …: two channels.
OFFICIAL = [
    [-0.23445, -1.11515],
    [0.37886, 0.48467],
    [-0.13071, 0.24308],
    [-0.45406, -0.60725],
    [0.88924, 0.50835],
    [-0.70649, -0.70413],
    [0.54103, 0.17975],
    [0.00041, 0.23638],
    [-0.66044, -0.23462],
    [0.98298, -0.03572],
    [-1.12896, 0.03641],
    [0.6019, -0.27284],
    [0.17308, 0.16078],
    [-0.74584, 0.3227],
    [0.82883, -0.74261],
    [-0.98312, 0.70021],
    [0.37298, -0.55992],
    [0.24995, 0.01515],
    [-0.47135, 0.6825],
    [0.29475, -1.04119],
    [-0.30564, 1.06364],
    [-0.07534, -0.58196],
    [0.20328, -0.15329],
    [0.07889, 0.72023],
    [-0.44872, -0.82294],
    [0.32758, 1.0649],
    [-0.41783, -0.43938],
    [0.10942, -0.24752],
    [0.50299, 0.55225],
    [-0.92744, -0.41921],
]


def table(rows: int, channels: int = 2) -> torch.Tensor:
    return torch.arange(rows * channels, dtype=torch.float32).mul(1.7).sin().reshape(1, rows, channels)


def how(**given) -> positions.Resampling:
    return positions.complete(given)


def test_dinos_own_way():
    made_by_us = positions.resampled(table(17), (4, 4), (6, 5), 1, how(offset=0.1))
    assert torch.equal(made_by_us[:, :1], table(17)[:, :1])  # the class token's
    assert torch.allclose(made_by_us[0, 1:], torch.tensor(OFFICIAL), atol=2e-5)
    other = positions.resampled(table(17), (4, 4), (6, 5), 1, how())
    assert (other[0, 1:] - torch.tensor(OFFICIAL)).abs().max() > 1e-3


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_the_same_grid_keeps_the_table(mode, align_corners, offset):
    given = table(13)
    same = positions.resampled(given, (3, 4), (3, 4), 1, how(mode=mode, align_corners=align_corners, offset=offset))
    assert same is given


@pytest.mark.parametrize(("new", "prefix"), [((6, 5), 0), ((2, 9), 1), ((9, 9), 5)])
def test_timms_way_is_timms(new, prefix):
    resample = pretrain.module("timm.layers").resample_abs_pos_embed
    given = table(16 + prefix).half()
    expected = resample(given, new_size=list(new), num_prefix_tokens=prefix)
    ours = positions.resampled(given, (4, 4), new, prefix, how(antialias=True))
    assert ours.dtype == torch.float16
    assert torch.equal(ours, expected)


def test_bilinear_and_corners_are_what_interpolate_makes():
    given = table(16)
    grid = given.reshape(1, 4, 4, 2).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, size=(7, 4), mode="bilinear", align_corners=True)
    ours = positions.resampled(given, (4, 4), (7, 4), 0, how(mode="bilinear", align_corners=True))
    assert torch.equal(ours, expected.permute(0, 2, 3, 1).reshape(1, 28, 2))


@pytest.mark.parametrize("kind", ["vit", "dinov2", "eva02"])
def test_a_network_resizes_its_table_as_it_is_told(kind):
    """At the size of its table nothing changes; at another one, only what a table resized beforehand changes."""
    side = {"vit": 224, "dinov2": 56, "eva02": 224}[kind]
    told, timm = made(kind, position_resampling={"offset": 0.1}), made(kind)
    for backbone in (told, timm):
        randomise(backbone)
    x = images(side, side)
    assert torch.equal(told(x)[0], timm(x)[0])
    x = images(56, 84)
    patch = told.strides[0]
    grid, new = side // patch, (-(-56 // patch), -(-84 // patch))
    prefix = told.pos_embed.shape[1] - grid * grid
    resized = positions.resampled(told.pos_embed, (grid, grid), new, prefix, how(offset=0.1))
    model = timms(kind, img_size=(new[0] * patch, new[1] * patch))
    model.load_state_dict({**told.state_dict(), "pos_embed": resized}, strict=True)
    padded = torch.nn.functional.pad(x, (0, new[1] * patch - 84, 0, new[0] * patch - 56))
    (expected,) = model.forward_intermediates(padded, indices=1, norm=True, intermediates_only=True)
    assert torch.equal(told(x)[0], expected)
    assert not torch.equal(timm(x)[0], expected)
    assert told.pos_embed is told.model.pos_embed
    assert told.model.patch_embed.grid_size == (grid, grid)


def test_the_resized_table_learns():
    backbone = made("vit", position_resampling={"offset": 0.1})
    backbone(images())[0].sum().backward()
    assert backbone.pos_embed.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["beit", "hiera"])
def test_a_file_for_another_size_is_resized_once(kind):
    """A Hiera's as timm does, a BEiT's as its authors do; and a file for this size is taken as it is."""
    from mmengine.runner.checkpoint import load_state_dict

    usual = timms(kind, img_size=224)
    randomise(usual)
    file = usual.state_dict()
    for load in (lambda one: one.load_state_dict(file), lambda one: load_state_dict(one, file, strict=True)):
        backbone = made(kind)
        load(backbone)
        resized = {name for name, value in backbone.state_dict().items() if value.shape != file[name].shape}
        if kind == "hiera":
            expected = {
                "pos_embed": pretrain.module("timm.layers").resample_abs_pos_embed(
                    file["pos_embed"], new_size=[16, 24], num_prefix_tokens=0
                )
            }
        else:
            expected = {
                name: relative_positions.resampled(file[name], (14, 14), (4, 6)) for name in file if "table" in name
            }
        assert resized == set(expected)
        assert resized
        for name, value in backbone.state_dict().items():
            assert torch.equal(value, expected.get(name, file[name])), name
        again = made(kind, seed=1)
        again.load_state_dict(backbone.state_dict(), strict=True)
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), backbone.parameters(), strict=True))


def test_resizing_is_said_in_the_log():
    backbone = made("hiera")
    with mock.patch("ckptconv.mmdetection.modules.timm_backbone.print_log") as log:
        backbone.load_state_dict(timms("hiera", img_size=224).state_dict())
        backbone.load_state_dict(backbone.state_dict())
    log.assert_called_once_with(
        "TimmBackbone resizes pos_embed of the file once, for images of 64x96: 1 x 3136 x 16 to 1 x 384 x 16",
        logger="current",
    )


def test_a_file_of_a_network_of_one_size_is_resized_the_methods_way():
    usual = timms("hiera", img_size=224)
    randomise(usual)
    backbone = made("hiera", position_resampling={"mode": "bilinear"})
    backbone.load_state_dict(usual.state_dict())
    expected = positions.resampled(usual.pos_embed, (56, 56), (16, 24), 0, how(mode="bilinear"))
    assert torch.equal(backbone.pos_embed, expected)


def test_a_table_of_another_network_is_not_resized():
    usual = timms("hiera", img_size=224).state_dict()
    usual["pos_embed"] = torch.zeros(1, 3137, 16)
    with pytest.raises(RuntimeError, match="size mismatch for pos_embed"):
        made("hiera").load_state_dict(usual)


def test_rotary_periods_are_those_that_are_given():
    """Periods rounded to bfloat16, as in DINOv3's releases, also after a cast that makes timm compute its own."""
    own = made("dinov3").rope.periods
    rounded = own.bfloat16().float()
    backbone, usual = made("dinov3", rope_periods=rounded.tolist()), made("dinov3")
    for one in (backbone, usual):
        randomise(one)
    assert torch.equal(backbone.rope.periods, rounded)
    x = images()
    assert not torch.equal(backbone(x)[0], usual(x)[0])
    assert torch.equal(backbone.bfloat16().rope.periods.float(), rounded)


def test_the_reference_grid_of_rotary_positions_can_be_left_out():
    """The Perception Encoder's own code counts patches; timm scales the grid to the one of pre-training."""
    from ckptconv.mmdetection.modules import TimmBackbone

    made("vit")
    small = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64}
    with_grid = TimmBackbone("vit_pe_core_tiny_patch16_384", {**small, "ref_feat_shape": [4, 6]}).eval()
    without = TimmBackbone("vit_pe_core_tiny_patch16_384", {**small, "ref_feat_shape": None}).eval()
    without.load_state_dict(with_grid.state_dict())
    assert torch.equal(without(images(64, 96))[0], with_grid(images(64, 96))[0])
    assert not torch.equal(without(images(96, 64))[0], with_grid(images(96, 64))[0])


def test_timms_way_and_vitdets_give_other_tables_than_dinos() -> None:
    """At 256x352: so a receipt says where the network's own way is not taken, or not known."""
    torch.manual_seed(0)
    table = torch.nn.init.trunc_normal_(torch.empty(1, 197, 8), std=0.2)
    ways = (positions.complete({"antialias": True}), positions.complete({}), positions.complete({"offset": 0.1}))
    timms, vitdets, dinos = (positions.resampled(table, (14, 14), (16, 22), 1, how) for how in ways)
    assert (timms - dinos).abs().max() > 1e-2
    assert (vitdets - dinos).abs().max() > 1e-2
