"""timm's networks of stages, and XCiT: their names and sizes, and what timm's own filters make of official files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptconv
from ckptconv import backbones
from ckptconv.backbones import regnet, swin_targets
from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.backbones.hiera import Hiera
from ckptconv.backbones.interface import Backbone, TimmModel
from ckptconv.backbones.regnet import RegNetY, generating
from ckptconv.backbones.resnet import ResNet
from ckptconv.backbones.swin import Swin
from ckptconv.backbones.xcit import Xcit
from ckptconv.errors import UsageError
from ckptconv.planning.identify import choose
from ckptconv.planning.matching import apply_rules
from ckptconv.planning.options import Options
from ckptconv.spec import Section
from tests.backbones import test_swin
from tests.backbones.test_timm import Tensors, build, shapes
from tests.support import pretrain
from tests.support.specs import state

# -- published models --------------------------------------------------------------------------------------------------

HIERAS = [f"hiera_{size}_224" for size in ("tiny", "small", "base", "base_plus", "large", "huge")]
XCITS = [
    f"xcit_{size}_p{patch}_224"
    for size in ("nano_12", "tiny_12", "small_12", "tiny_24", "small_24", "medium_24", "large_24")
    for patch in (8, 16)
]


@pytest.mark.mmdet
@pytest.mark.parametrize("name", [*HIERAS, *XCITS])
def test_a_published_model_is_read_back_under_its_name(name: str) -> None:
    with torch.device("meta"):
        network = build(TimmModel(name))
    member = backbones.read(state(shapes(network)))
    assert member is not None
    assert member.unusual == ""
    assert not member.partial
    assert dict(member.entries()) == shapes(network)
    assert list(member.entries()) == list(network.state_dict())
    assert member.timm_model() == TimmModel(name)


def written(member: Backbone) -> dict[str, tuple[int, ...]]:
    """Its entries under timm's names."""
    rules = member.dialect("timm").rules
    entries = state(member.entries())
    moves = apply_rules(rules, entries).moves if rules else []
    return {m.target: m.spec.shape for m in moves} or dict(member.entries())


@pytest.mark.mmdet
@pytest.mark.parametrize("name", regnet._PUBLISHED)
def test_a_published_regnet_is_what_timm_builds_under_its_name(name: str) -> None:
    parameters = regnet._PUBLISHED[name]
    depths, widths = parameters.stages()
    member = RegNetY((*depths,), (*widths,), parameters.group_size)  # type: ignore[arg-type]
    assert member.timm_model() == TimmModel(name)
    with torch.device("meta"):
        assert written(member) == shapes(build(TimmModel(name)))
    assert backbones.read(state(member.entries())) == member


SWIN_MODELS = {name: key for key, name in swin_targets._MODELS.items()}


@pytest.mark.mmdet
@pytest.mark.parametrize("name", SWIN_MODELS)
def test_a_published_swin_is_what_timm_builds_under_its_name(name: str) -> None:
    version, (width, depths), windows = SWIN_MODELS[name]
    member = test_swin.swin(width, depths, window_sizes=windows, version=version)
    assert member.timm_model() == TimmModel(name)
    with torch.device("meta"):
        network = build(TimmModel(name))
    assert written(member) == shapes(network)
    sides = [stage.blocks[0].attn.window_size for stage in network.layers]
    assert sides == [(side, side) for side in windows]


CONVNEXT_SIZES = ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large")


@pytest.mark.mmdet
@pytest.mark.parametrize(
    "name",
    [
        *(f"convnext{version}_{size}" for version in ("", "v2") for size in CONVNEXT_SIZES),
        *("convnext_xlarge", "convnextv2_huge"),
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200"),
        *("wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    ],
)
def test_a_published_convolutional_network_is_read_from_timms_names_and_written_again(name: str) -> None:
    with torch.device("meta"):
        network = build(TimmModel(name))
    plan = choose({"": Section(state(shapes(network)), {})}, "timm", Options(target="timm")).plan
    assert plan.backbone is not None
    assert plan.backbone.timm_model() == TimmModel(name)
    assert {m.target: m.spec.shape for m in plan.moves} == shapes(network)


# -- sizes that have no name -------------------------------------------------------------------------------------------

OTHERS: Mapping[str, tuple[Backbone, str, Mapping[str, Any]]] = {
    "Hiera": (
        Hiera(128, 256, (1, 1, 2, 1), 2, positions=64**2, in_channels=4),
        "hiera_tiny_224",
        {
            "embed_dim": 128,
            "stages": [1, 1, 2, 1],
            "num_heads": 2,
            "img_size": [256, 256],
            "mlp_ratio": 2.0,
            "in_chans": 4,
        },
    ),
    "XCiT": (
        Xcit(64, 2, 4, 128, 8, class_depth=1, qkv_bias=False, positions=False),
        "xcit_small_12_p16_224",
        {
            "embed_dim": 64,
            "depth": 2,
            "patch_size": 8,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            "cls_attn_layers": 1,
            "use_pos_embed": False,
            "qkv_bias": False,
        },
    ),
    "Swin": (
        test_swin.MINI,
        "swin_tiny_patch4_window7_224",
        {
            "embed_dim": 16,
            "depths": [2, 2, 2, 1],
            "window_size": 3,
            "img_size": 96,
            "num_heads": [2, 4, 8, 16],
            "mlp_ratio": 2.0,
        },
    ),
    "Swin, windows that shrink": (
        replace(test_swin.LARGE, in_channels=1),
        "swin_tiny_patch4_window7_224",
        {
            "embed_dim": 192,
            "depths": [2, 2, 18, 2],
            "window_size": [12, 12, 12, 6],
            "img_size": 192,
            "num_heads": [6, 12, 24, 48],
            "in_chans": 1,
        },
    ),
    "ConvNeXt": (
        ConvNeXt((1, 1, 2, 1), (8, 16, 32, 64), False, True, True, 8, 4),
        "convnext_tiny",
        {"depths": [1, 1, 2, 1], "dims": [8, 16, 32, 64], "patch_size": 8, "in_chans": 4},
    ),
    "ConvNeXt without layer scale": (
        ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768), False, False, True, 4, 3),
        "convnextv2_tiny",
        {"use_grn": False},
    ),
    "ConvNeXt V2 with layer scale": (
        ConvNeXt((1, 1, 2, 1), (8, 16, 32, 64), True, True, True, 4, 3),
        "convnextv2_tiny",
        {"depths": [1, 1, 2, 1], "dims": [8, 16, 32, 64], "ls_init_value": 1e-6},
    ),
    "ResNet": (
        ResNet((1, 1, 1, 1), False, 64, 16, 16, 1, 7, 4),
        "resnet18",
        {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128], "in_chans": 4},
    ),
    "ResNeXt": (
        ResNet((1, 2, 1, 1), True, 64, 32, 64, 4, 7, 3),
        "resnet50",
        {"layers": [1, 2, 1, 1], "cardinality": 4, "base_width": 32, "channels": [32, 64, 128, 256]},
    ),
}


@pytest.mark.mmdet
@pytest.mark.parametrize("which", OTHERS)
def test_another_size_is_a_published_model_with_arguments(which: str) -> None:
    member, name, arguments = OTHERS[which]
    assert member.timm_model() == TimmModel(name, arguments)
    assert backbones.read(state(member.entries())) == member
    with torch.device("meta"):
        assert written(member) == shapes(build(TimmModel(name, arguments)))


@pytest.mark.mmdet
@pytest.mark.parametrize(
    ("depths", "widths", "group"),
    [
        ((2, 7, 17, 1), (2020, 4040, 11110, 28280), 1010),  # SEER of 10 billion parameters
        ((1, 2, 4, 1), (16, 32, 64, 128), 8),
        ((1, 1, 1, 1), (8, 16, 32, 64), 8),
    ],
)
def test_a_regnet_without_a_name_has_parameters_that_give_it(
    depths: regnet.Four, widths: regnet.Four, group: int
) -> None:
    model = RegNetY(depths, widths, group).timm_model()
    assert model is not None
    assert (model.name, set(model.arguments)) == ("regnety_032", {"w0", "wa", "wm", "group_size", "depth"})
    with torch.device("meta"):
        assert written(RegNetY(depths, widths, group)) == shapes(build(model))


def test_a_regnet_that_gets_narrower_or_grows_too_fast_has_no_parameters() -> None:
    """Channels grow by a line over the blocks, cut into steps: six blocks after the first are too few for 2-2-2-2."""
    assert generating((1, 1, 1, 1), (64, 32, 16, 8), 8) is None
    assert generating((2, 2, 2, 2), (32, 64, 128, 256), 16) is None
    member = RegNetY((1, 1, 1, 1), (64, 32, 16, 8), 8)
    assert member.timm_model() is None
    assert member.obstacle("timm") == (
        "no width, slope and multiplier, from which timm builds a RegNet, give its channels and blocks"
    )


OBSTACLES = {
    "a stem for small images": (
        ResNet((2, 2, 2, 2), False, 64, 64, 64, 1, 3, 3),
        "its stem is 3x3, for small images, and timm's ResNet has a 7x7 stem",
    ),
    "a wide stem": (
        ResNet((3, 4, 6, 3), True, 128, 128, 128, 1, 7, 3),
        "its stem has 128 channels, and that of timm's ResNet always has 64",
    ),
    "positions": (
        replace(test_swin.TINY, positions=3136),
        "it has an absolute position embedding, which timm's Swin does not have",
    ),
    "no norm of patches": (
        replace(test_swin.TINY, patch_norm=False),
        "it does not normalise the first patches, and timm's Swin does",
    ),
    "no windows": (
        test_swin.V2,
        "no tensor of the file tells the size of its windows: relative_coords_table does, which is a buffer",
    ),
    "small patches": (
        ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768), False, True, True, 2, 3),
        "its patches have 2 pixels, where timm's ConvNeXt halves its map before the first stage, too",
    ),
    "large patches": (Xcit(384, 12, 8, 1536, 32), "its patches have 32 pixels; those of timm's XCiT have 8 or 16"),
    "a long image": (
        Hiera(96, 384, (1, 2, 7, 2), 1, positions=200),
        "its 200 positions are not a square grid, so nothing tells the sides of its images",
    ),
}


@pytest.mark.parametrize("which", OBSTACLES)
def test_what_timm_does_not_hold_has_a_reason_and_no_model(which: str) -> None:
    member, why = OBSTACLES[which]
    assert member.obstacle("timm") == why
    assert member.timm_model() is None


# -- timm's filters of official files ----------------------------------------------------------------------------------


def random(names: Mapping[str, tuple[int, ...]]) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.zeros((), dtype=torch.int64)
        if name.endswith("num_batches_tracked")
        else torch.randn(shape, generator=generator)
        for name, shape in names.items()
    }


def hiera(at: Tensors) -> Any:
    return {"model_state": {k.replace("head.norm.", "encoder_norm."): v for k, v in at.items()}}


def xcit(at: Tensors) -> Any:
    made = {k.replace("pos_embed.", "pos_embeder."): v for k, v in at.items()}
    for name in [k for k in made if ".attn.q." in k]:
        parts = [made.pop(name.replace(".q.", f".{part}.")) for part in "qkv"]
        made[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    return made


def seer(at: Tensors) -> Any:
    theirs = {"conv1.conv": "f.a.0", "conv1.bn": "f.a.1", "conv2.conv": "f.b.0", "conv2.bn": "f.b.1"} | {
        "se.fc1": "f.se.excitation.0",
        "se.fc2": "f.se.excitation.2",
        "conv3.conv": "f.c",
        "conv3.bn": "f.final_bn",
        "downsample.conv": "proj",
        "downsample.bn": "bn",
    }
    trunk = {}
    for name, tensor in at.items():
        stage, _, rest = name.partition(".")
        if stage == "stem":
            part, _, last = rest.partition(".")
            trunk[f"_feature_blocks.conv1.stem.{int(part == 'bn')}.{last}"] = tensor
        else:
            block, _, rest = rest.partition(".")
            part, _, last = rest.rpartition(".")
            trunk[f"_feature_blocks.res{int(stage[1]) + 1}.block{stage[1]}-{block}.{theirs[part]}.{last}"] = tensor
    return {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": {}}}}}


def simmim(at: Tensors) -> Any:
    return {"model": {f"encoder.{k}": v for k, v in at.items()}}


_REGNET = RegNetY((1, 2, 4, 1), (16, 32, 64, 128), 8)
_V2 = replace(test_swin.MINI, version=2, window_sizes=(6, 6, 6, 3))
FILES: Mapping[str, tuple[Backbone, str, Callable[[Tensors], Any]]] = {
    "Hiera": (Hiera(64, 128, (1, 1, 2, 1), 1), "hiera", hiera),
    "XCiT": (Xcit(64, 2, 4, 128, 16), "dino", xcit),
    "SEER": (_REGNET, "seer", seer),
    "Swin": (test_swin.MINI, "swin", lambda at: {"model": at}),
    "Swin V2": (_V2, "swin", lambda at: {"model": at}),
    "ConvNeXt": (
        ConvNeXt((1, 1, 2, 1), (8, 16, 32, 64), False, True, True, 4, 3),
        "convnext",
        lambda at: {"model": at},
    ),
    "ConvNeXt V2": (
        ConvNeXt((1, 1, 2, 1), (8, 16, 32, 64), True, False, True, 4, 3),
        "convnext",
        lambda at: {"model": at},
    ),
    "ConvNeXt V2 of a size with 1x1 convolutions": (
        ConvNeXt((2, 2, 6, 2), (40, 80, 160, 320), True, False, True, 4, 3),
        "convnext",
        lambda at: {"model": at},
    ),
}


def filtered(content: Any, network: Any) -> Tensors:
    """What the filter of the network's module makes of a file, as `pretrained=True` applies it."""
    module = pretrain.module(type(network).__module__)
    if hasattr(module, "checkpoint_filter_fn"):
        made: Tensors = module.checkpoint_filter_fn(content, network)
        return made
    regnets: Tensors = module._filter_fn(content)
    return regnets


@pytest.mark.mmdet
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("which", FILES)
def test_the_output_is_what_timms_own_filter_makes_of_the_file(which: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Name by name and bit by bit, and timm's network loads it with strict=True."""
    member, method, save = FILES[which]
    at = {k: t.to(dtype) if t.is_floating_point() else t for k, t in random(member.entries()).items()}
    torch.save(save(at), tmp_path / "source.pth")
    ckptconv.convert(tmp_path / "source.pth", tmp_path / "out.pth", method, target="timm")
    made = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    model = member.timm_model()
    assert model is not None
    network = build(model)
    wanted = filtered(save(dict(at)), network)
    assert made.keys() == wanted.keys()
    assert all(
        torch.equal(made[name], wanted[name]) and made[name].dtype == dtype for name in made if wanted[name].shape
    )
    network.load_state_dict(made, strict=True)


@pytest.mark.mmdet
def test_a_hiera_for_other_images_loads_into_timms(tmp_path: Path) -> None:
    member, method, save = FILES["Hiera"]
    torch.save(save(random(member.entries())), tmp_path / "source.pth")
    receipt = ckptconv.convert(tmp_path / "source.pth", tmp_path / "out.pth", method, image_size=256)
    assert receipt.plan.backbone is not None
    model = receipt.plan.backbone.timm_model()
    assert model is not None
    assert model.arguments["img_size"] == [256, 256]
    build(model).load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"], strict=True)


@pytest.mark.parametrize(
    ("asked", "message", "hint"),
    [
        (
            {"image_size": 260},
            "`image_size=260` is not a multiple of 32, the pixels of a mask unit",
            "Give 256 or 288.",
        ),
        (
            {"patch_size": 8},
            "`patch_size=8`: the patches of Hiera-1-1-2-1, 64 channels overlap, and are not resized",
            "Leave it out.",
        ),
    ],
)
def test_a_size_that_a_hiera_does_not_take_is_refused(
    asked: Mapping[str, int], message: str, hint: str, tmp_path: Path
) -> None:
    member, method, save = FILES["Hiera"]
    torch.save(save(random(member.entries())), tmp_path / "source.pth")
    with pytest.raises(UsageError) as caught:
        ckptconv.convert(tmp_path / "source.pth", tmp_path / "out.pth", method, **asked)  # type: ignore[arg-type]
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_the_kinds_of_networks_are_all_here() -> None:
    kinds = {type(member) for member, *_ in (*OTHERS.values(), *FILES.values())}
    assert kinds == {Hiera, Xcit, RegNetY, Swin, ConvNeXt, ResNet}
