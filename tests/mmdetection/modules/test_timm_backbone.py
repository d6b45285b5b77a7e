"""TimmBackbone against timm's own classes: names, maps, sizes, and what a detector asks of a backbone."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from ckptconv.errors import EnvironmentMissingError
from ckptconv.mmdetection.environment import fixes
from ckptconv.mmdetection.modules import timm_network
from tests.mmdetection.modules.networks import NETWORKS, images, made, randomise, timms

PLAIN = ("vit", "dinov2", "dinov3", "eva02", "beit", "xcit")
SAME_COUNT = (
    "images of 112x448 have as many patches as those of 224x224, for which the file is: nothing tells their tables "
    "apart; give another image_size"
)
STAGED = tuple(kind for kind in NETWORKS if kind not in PLAIN)


@pytest.mark.parametrize("kind", NETWORKS)
def test_names_are_those_of_timm(kind):
    backbone, model = made(kind), timms(kind)
    assert list(backbone.state_dict()) == list(model.state_dict())
    assert [name for name, _ in backbone.named_parameters()] == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("kind", NETWORKS)
def test_maps_are_those_of_timm(kind):
    backbone, model = made(kind), timms(kind)
    randomise(backbone)
    model.load_state_dict(backbone.state_dict(), strict=True)
    x = images(*{"dinov2": (56, 84), "eva02": (56, 84), "swinv2": (256, 256)}.get(kind, (64, 96)))
    options = {"norm": True} if kind in PLAIN else {}
    expected = model.forward_intermediates(x, intermediates_only=True, **options)
    maps = backbone(x)
    assert len(maps) == (1 if kind in PLAIN else 4)
    assert tuple(one.shape[1] for one in maps) == backbone.channels
    for ours, theirs in zip(maps, expected[-len(maps) :], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_copy_and_a_pickle_hold_one_network(kind):
    backbone = made(kind)
    for other in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        with torch.no_grad():
            for value in other.parameters():
                value.add_(1)
            changed = other(images())
        assert all(a is b for a, b in zip(other.parameters(), other.model.parameters(), strict=True))
        assert all((a != b).any() for a, b in zip(changed, backbone(images()), strict=True))


def test_another_type_and_another_mode_reach_the_whole_network():
    backbone = made("dinov3").to(torch.float64)
    (given,) = backbone(images().double())
    assert given.dtype == torch.float64
    assert not backbone.model.training
    backbone.train()
    assert backbone.model.training
    assert backbone.model.blocks[0].training


@pytest.mark.parametrize("kind", STAGED)
def test_strides_of_stages(kind):
    backbone = made(kind, out_indices=(1, 3))
    assert backbone.strides == (8, 32)
    assert [tuple(one.shape[2:]) for one in backbone(images())] == [(8, 12), (2, 3)]


def test_blocks_are_chosen():
    early, last = made("vit", out_indices=(0, 3))(images())
    (usual,) = made("vit")(images())
    assert torch.equal(last, usual)
    assert not torch.equal(early, last)


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("vit", {"out_indices": (4,)}, "out_indices has 4, and vit_tiny_patch16_224 has the blocks 0 to 3"),
        ("regnet", {"out_indices": (0, 4)}, "out_indices has 4, and regnety_002 has the stages 0 to 3"),
        ("resnet", {"out_indices": (-1,)}, "out_indices has -1, and resnet10t has the stages 0 to 3"),
        ("resnet", {"out_indices": (3, 1)}, "out_indices names stages in their order, each once: not (3, 1)"),
        ("vit", {"image_size": (64, 64)}, "vit_tiny_patch16_224 takes images of any size: leave out image_size"),
        ("xcit", {"image_size": (64, 64)}, "xcit_nano_12_p16_224 takes images of any size: leave out image_size"),
        ("vit", {"frozen": 5}, "frozen is 'all' or 0 to 4 blocks of vit_tiny_patch16_224: not 5"),
        ("vit", {"frozen": "some"}, "frozen is 'all' or 0 to 4 blocks of vit_tiny_patch16_224: not 'some'"),
        ("vit", {"frozen": True}, "frozen is 'all' or 0 to 4 blocks of vit_tiny_patch16_224: not True"),
        (
            "hiera",
            {"window": 7},
            "window works for timm's VisionTransformer and Eva, and hiera_tiny_224 is another class",
        ),
        (
            "vit",
            {"window": 2, "global_blocks": (4,)},
            "global_blocks has 4, and vit_tiny_patch16_224 has the blocks 0 to 3",
        ),
        ("vit", {"global_blocks": (1,)}, "global_blocks is given without window"),
        (
            "dinov3",
            {"position_resampling": {"offset": 0.1}},
            "position_resampling is given, but vit_small_patch16_dinov3_qkvb has no table of positions",
        ),
        (
            "vit",
            {"position_resampling": {"size": 2}},
            "position_resampling has no 'size': it has mode, antialias, align_corners, offset, square",
        ),
        (
            "vit",
            {"rope_periods": (1.0,)},
            "rope_periods is given, but the network has no rotary positions with periods",
        ),
        ("dinov3", {"rope_periods": (1.0,)}, "rope_periods has 1 numbers, the network takes 6"),
        (
            "beit",
            {"image_size": (112, 448)},
            SAME_COUNT,
        ),
    ],
)
def test_what_it_cannot_be_is_refused(kind, options, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        made(kind, **options)


def test_a_name_or_an_argument_that_timm_does_not_know():
    made("vit")
    from ckptconv.mmdetection.modules import TimmBackbone

    with pytest.raises(ValueError, match=r"^timm \S+ has no 'resnet52'; near: resnet"):
        TimmBackbone("resnet52")
    with pytest.raises(ValueError, match=r"^timm cannot build resnet10t: .*unexpected keyword argument 'embed_dim'"):
        TimmBackbone("resnet10t", {"embed_dim": 3})
    with pytest.raises(ValueError, match=r"^hiera_tiny_224 gives no maps of images of 30x30: "):
        TimmBackbone("hiera_tiny_224", image_size=(30, 30))


def test_without_timm_the_command_that_installs_it_is_named():
    from ckptconv.mmdetection.modules import TimmBackbone

    with mock.patch.dict(sys.modules, {"timm": None}), pytest.raises(EnvironmentMissingError) as caught:
        TimmBackbone("resnet10t")
    assert str(caught.value) == "TimmBackbone needs the package timm\npip install 'timm==1.0.31'"


def test_the_version_is_the_one_that_is_tested():
    """Newer and older ones have other names and other defaults."""
    made("resnet")
    root = Path(__file__).parents[3]
    asked = re.search(r'^timm = \["(.*?)"', (root / "pyproject.toml").read_text(), re.MULTILINE)
    tested = re.search(r"^timm==.*$", (root / "constraints.txt").read_text(), re.MULTILINE)
    assert asked[1] == tested[0] == timm_network._SUPPORTED == f"timm=={sys.modules['timm'].__version__}"
    assert (f"pip install '{asked[1]}'",) == fixes.TIMM


def test_nothing_is_downloaded():
    timm = sys.modules.get("timm") or (made("vit"), sys.modules["timm"])[1]
    with mock.patch.object(timm, "create_model", wraps=timm.create_model) as create:
        made("resnet")
    assert all(call.kwargs["pretrained"] is False for call in create.call_args_list)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("norm", [True, False])
def test_what_no_map_depends_on_needs_no_gradient(kind, norm):
    backbone = made(kind, norm=norm, out_indices=(0,)).train()
    sum(one.square().sum() for one in backbone(images())).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    assert not all(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("kind", ["vit", "dinov3", "xcit"])
def test_images_are_padded_to_whole_patches(kind):
    backbone = made(kind)
    x = images(60, 83)
    whole = torch.nn.functional.pad(x, (0, 13, 0, 4))
    assert torch.equal(backbone(x)[0], backbone(whole)[0])
    assert backbone(x)[0].shape[2:] == (4, 6)


@pytest.mark.parametrize("kind", ["convnext", "regnet", "resnet"])
def test_images_of_convolutional_networks_are_not_padded(kind):
    backbone, model = made(kind), timms(kind)
    model.load_state_dict(backbone.state_dict())
    expected = model.forward_intermediates(images(61, 85), intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(backbone(images(61, 85)), expected[-4:], strict=True))


@pytest.mark.parametrize("kind", ["beit", "hiera"])
def test_smaller_images_of_a_network_of_one_size(kind):
    backbone = made(kind)
    x = images(40, 70)
    maps = backbone(x)
    whole = backbone(torch.nn.functional.pad(x, (0, 26, 0, 24)))
    assert [tuple(one.shape[2:]) for one in maps] == [(-(-40 // s), -(-70 // s)) for s in backbone.strides]
    for ours, all_of_it in zip(maps, whole, strict=True):
        assert torch.equal(ours, all_of_it[..., : ours.shape[2], : ours.shape[3]])


@pytest.mark.parametrize("kind", ["beit", "hiera"])
def test_larger_images_of_a_network_of_one_size_are_refused(kind):
    name = NETWORKS[kind][0]
    with pytest.raises(ValueError, match=r"^an image of") as caught:
        made(kind)(images(64, 128))
    assert str(caught.value) == (
        f"an image of 64x128 pixels, and {name} was built for at most 64x96: "
        "resize images to that, or give the TimmBackbone another image_size=(height, width)"
    )


def test_every_layer_norm_gets_the_epsilon():
    for kind in ("vit", "hiera", "convnext"):
        norms = [one for one in made(kind, norm_eps=1e-4).modules() if isinstance(one, torch.nn.LayerNorm)]
        assert norms
        assert {one.eps for one in norms} == {1e-4}


def test_stochastic_depth_grows_with_depth():
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in made("vit", drop_path_rate=0.3).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    assert not any(type(one).__name__ == "DropPath" for one in made("swinv2").modules())  # timm's own default is 0.1


def test_checkpointing_changes_no_number():
    for kind in ("vit", "dinov3", "eva02", "beit", "xcit", "hiera", "swinv2", "convnext", "regnet", "resnet"):
        window = {"window": 2} if kind in ("vit", "dinov3", "eva02") else {}
        plain, saving = (made(kind, with_cp=with_cp, **window).train() for with_cp in (False, True))
        for backbone in (plain, saving):
            sum(one.square().sum() for one in backbone(images())).backward()
        for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), (kind, name)
            assert a.grad is None or torch.equal(a.grad, b.grad), (kind, name)


@pytest.mark.parametrize("kind", ["vit", "dinov3", "beit", "xcit", "hiera", "swinv2", "convnext", "regnet", "resnet"])
def test_checkpointing_computes_blocks_again(kind):
    counted: Counter[str] = Counter()
    backbone = made(kind, with_cp=True).train()
    leaves = {name: one for name, one in backbone.named_modules() if not list(one.children())}
    for name, one in leaves.items():
        one.register_forward_hook(lambda *_, name=name: counted.update([name]))
    maps = backbone(images())
    before = dict(counted)
    sum(one.sum() for one in maps).backward()
    again = [name for name in before if counted[name] == 2 * before[name]]
    assert len(again) > len(before) / 2


def trainable(backbone: Any) -> set[str]:
    return {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}


def test_all_of_it_is_frozen():
    backbone = made("regnet", frozen="all").train()
    assert not trainable(backbone)
    assert not any(one.training for one in (backbone.model, *backbone.modules()))
    before = copy.deepcopy(backbone.state_dict())
    backbone(images())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_the_first_blocks_are_frozen():
    backbone = made("vit", frozen=2, drop_path_rate=0.5).train()
    assert trainable(backbone) == {
        name for name, _ in backbone.named_parameters() if name.startswith(("blocks.2.", "blocks.3.", "norm."))
    }
    assert [block.training for block in backbone.blocks] == [False, False, True, True]
    assert not backbone.patch_embed.training
    assert trainable(made("vit", frozen=0)) == {
        name for name, _ in backbone.named_parameters() if name.startswith(("blocks.", "norm."))
    }


def test_the_first_blocks_of_stages_are_frozen():
    backbone = made("resnet", frozen=1).train()
    assert {name.split(".")[0] for name in trainable(backbone)} == {"layer2", "layer3", "layer4"}
    assert [backbone.get_submodule(name).training for name in ("bn1", "layer1", "layer2")] == [False, False, True]


def test_mmengine_does_not_initialise_what_timm_has():
    backbone = made("vit")
    before = copy.deepcopy(backbone.state_dict())
    backbone.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    from ckptconv.mmdetection.modules import TimmBackbone

    torch.manual_seed(0)
    staged = TimmBackbone("maxvit_tiny_tf_224", {"embed_dim": (32, 32, 32, 32), "depths": (1, 1, 1, 1)})
    assert hasattr(staged.stem, "init_weights")  # which mmengine calls otherwise
    before = copy.deepcopy(staged.state_dict())
    staged.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in staged.state_dict().items())


@pytest.mark.parametrize(
    "argument",
    [
        {"pretrained": True},
        {"checkpoint_path": "other.pth"},
        {"pretrained_cfg": {"file": "other.pth"}},
        {"pretrained_cfg_overlay": {"file": "other.pth"}},
        {"cache_dir": "other"},
    ],
    ids=lambda argument: next(iter(argument)),
)
def test_nothing_is_loaded_but_by_init_cfg(argument):
    made("vit")
    from ckptconv.mmdetection.modules import TimmBackbone

    name = next(iter(argument))
    sentence = f"arguments has {name!r}, with which timm loads weights: name the file in init_cfg instead"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        TimmBackbone("vit_tiny_patch16_224", argument)
