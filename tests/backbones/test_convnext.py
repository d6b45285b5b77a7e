"""The ConvNeXt family against mmpretrain's own class: names, shapes, and the features of converted checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch.nn import functional

import ckptconv
from ckptconv.backbones import interface
from ckptconv.backbones.convnext import ConvNeXt, read
from ckptconv.backbones.interface import described
from ckptconv.methods.naming_schemes import CONVNEXT
from ckptconv.patterns import Pattern
from ckptconv.planning.make_plan import make_plan
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.problem_texts import text_of
from ckptconv.spec import DTYPES, Section, TensorSpec
from tests.support import pretrain
from tests.support.specs import state

SIZES = {  # facebookresearch/ConvNeXt models/convnext.py, facebookresearch/ConvNeXt-V2 models/convnextv2.py
    "atto": ((2, 2, 6, 2), 40),
    "femto": ((2, 2, 6, 2), 48),
    "pico": ((2, 2, 6, 2), 64),
    "nano": ((2, 2, 8, 2), 80),
    "tiny": ((3, 3, 9, 3), 96),
    "small": ((3, 3, 27, 3), 96),
    "base": ((3, 3, 27, 3), 128),
    "large": ((3, 3, 27, 3), 192),
    "xlarge": ((3, 3, 27, 3), 256),
    "huge": ((3, 3, 27, 3), 352),
}


def convnext(
    depths: tuple[int, ...] = (3, 3, 9, 3),
    width: int = 96,
    grn: bool = False,
    layer_scale: bool | None = None,
    final_norm: bool = True,
    patch: int = 4,
    in_channels: int = 3,
) -> ConvNeXt:
    one, two, three, four = depths
    return ConvNeXt(
        depths=(one, two, three, four),
        embed_dims=(width, width * 2, width * 4, width * 8),
        grn=grn,
        layer_scale=not grn if layer_scale is None else layer_scale,
        final_norm=final_norm,
        patch_size=patch,
        in_channels=in_channels,
    )


def plan_of(names: Mapping[str, TensorSpec], target: str = "official") -> Plan:
    return make_plan(
        CONVNEXT, replace(CONVNEXT.layouts[0], without=interface.PARTS), "", Section(names, {}), Options(target=target)
    )


# -- mmpretrain's word -------------------------------------------------------------------------------------------------


def mmpretrain(member: ConvNeXt, device: str = "meta", **arguments: Any) -> torch.nn.Module:
    """mmpretrain's network of this member, as a detector's config builds it."""
    models = pretrain.models()
    with pytest.MonkeyPatch.context() as patch, torch.device(device):
        patch.setattr(torch, "linspace", lambda start, end, steps: torch.zeros(steps, device="cpu"))  # .item() of each
        return models.ConvNeXt(
            arch={"depths": list(member.depths), "channels": list(member.embed_dims)},
            in_channels=member.in_channels,
            stem_patch_size=member.patch_size,
            use_grn=member.grn,
            layer_scale_init_value=1e-6 if member.layer_scale else 0.0,
            out_indices=[0, 1, 2, 3],
            gap_before_final_norm=False,
            **arguments,
        )


MEMBERS = {
    **{f"V1 {arch}": convnext(*SIZES[arch]) for arch in SIZES},
    **{f"V2 {arch}": convnext(*SIZES[arch], grn=True, final_norm=False) for arch in SIZES if arch != "xlarge"},
    "no layer scale": convnext(layer_scale=False),
    "V2 with both": convnext(grn=True, layer_scale=True),
    "no last norm": convnext(final_norm=False),
    "another stem": convnext((1, 2, 3, 1), 24, patch=2),
}


@pytest.mark.mmdet
@pytest.mark.parametrize("which", MEMBERS)
def test_in_its_dialect_it_has_the_names_and_shapes_of_mmpretrain(which: str) -> None:
    member = MEMBERS[which]
    plan = plan_of(state(member.entries()), "mmpretrain")
    assert plan.complete
    assert plan.backbone == member
    written = {move.target: move.spec.shape for move in plan.moves}
    real = {f"backbone.{name}": tuple(t.shape) for name, t in mmpretrain(member).state_dict().items()}
    fresh = [Pattern(text) for text in plan.dialect.fresh]
    new = {name for name in real if any(pattern.match(name) for pattern in fresh)}
    assert written == {name: shape for name, shape in real.items() if name not in new}
    stages = range(3 if member.final_norm else 4)
    assert new == {f"backbone.norm{stage}.{p}" for stage in stages for p in ("weight", "bias")}
    assert plan.dialect.section == "state_dict"


@pytest.mark.mmdet
def test_the_names_of_sizes_are_mmpretrains() -> None:
    known = pretrain.models().ConvNeXt.arch_settings
    assert set(known) == set(SIZES)
    for arch, lengths in known.items():
        member = convnext(*SIZES[arch])
        assert (list(member.depths), list(member.embed_dims), member.arch) == (*lengths.values(), arch)


# -- the same features -------------------------------------------------------------------------------------------------

Tensors = dict[str, torch.Tensor]
SMALL = {"depths": (1, 2, 1, 1), "width": 8}


def some(entries: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Numbers that matter everywhere: no scale is 1, no shift is 0."""
    torch.manual_seed(0)
    return {
        name: torch.randn(shape) * 0.3 + (1.0 if name.endswith(("norm.weight", ".0.weight", "gamma")) else 0.0)
        for name, shape in entries.items()
    }


def features(t: Tensors, image: torch.Tensor, convolve: Callable[..., torch.Tensor], infix: bool) -> list[torch.Tensor]:
    """Each stage's output, channels last, by the papers' definition. ``infix``: whether the layers wrap torch's own."""
    ln, linear = (".ln", ".linear") if infix else ("", "")

    def norm(x: torch.Tensor, at: str) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], t[f"{at}.weight"], t[f"{at}.bias"], 1e-6)

    def dense(x: torch.Tensor, at: str) -> torch.Tensor:
        return x @ t[f"{at}{linear}.weight"].T + t[f"{at}{linear}.bias"]

    stem = functional.conv2d(image, t["downsample_layers.0.0.weight"], t["downsample_layers.0.0.bias"], stride=4)
    x = norm(stem.permute(0, 2, 3, 1), "downsample_layers.0.1")
    outputs = []
    for stage, depth in enumerate(SMALL["depths"]):
        if stage:
            x = convolve(t, norm(x, f"downsample_layers.{stage}.0{ln}"), f"downsample_layers.{stage}.1", 2)
        for block in range(depth):
            at = f"stages.{stage}.{block}"
            y = functional.gelu(dense(norm(convolve(t, x, f"{at}.dwconv", 7), f"{at}.norm{ln}"), f"{at}.pwconv1"))
            if f"{at}.grn.gamma" in t:
                size = y.pow(2).sum((1, 2), keepdim=True).sqrt()
                weight, shift = t[f"{at}.grn.gamma"].reshape(-1), t[f"{at}.grn.beta"].reshape(-1)
                y = weight * (y * size / (size.mean(-1, keepdim=True) + 1e-6)) + shift + y
            y = dense(y, f"{at}.pwconv2")
            x = x + y * t.get(f"{at}.gamma", torch.ones(1))
        outputs.append(x)
    return outputs


def convolved(t: Tensors, x: torch.Tensor, at: str, side: int) -> torch.Tensor:
    """torch's convolution: depthwise with 7x7, of every other place with 2x2."""
    weight, bias = t[f"{at}.weight"], t[f"{at}.bias"]
    how = {"padding": 3, "groups": len(weight)} if side == 7 else {"stride": 2}
    return functional.conv2d(x.permute(0, 3, 1, 2), weight, bias, **how).permute(0, 2, 3, 1)


def gathered(t: Tensors, x: torch.Tensor, at: str, side: int) -> torch.Tensor:
    """A sparse convolution where no place is empty: each offset, counted column by column, has its own weights."""
    kernel = t[f"{at}.kernel"]
    height, width = x.shape[1:3]
    total = t[f"{at}.bias"].reshape(-1)
    for column in range(side):
        for row in range(side):
            weight = kernel[column * side + row]
            if side == 7:
                padded = functional.pad(x, (0, 0, 3, 3, 3, 3))
                total = total + padded[:, row : row + height, column : column + width] * weight
            else:
                total = total + x[:, row::2, column::2] @ weight
    return total


def sparse_entries(member: ConvNeXt) -> dict[str, tuple[int, ...]]:
    """facebookresearch/ConvNeXt-V2 models/convnextv2_sparse.py, with what MinkowskiEngine's layers own."""
    entries = {}
    for name, shape in member.entries().items():
        at, _, part = name.rpartition(".")
        if not name.startswith("downsample_layers.0."):
            if at.endswith("dwconv") or (at.startswith("downsample_layers") and at.endswith(".1")):
                places = (49,) if at.endswith("dwconv") else (4, shape[1] if part == "weight" else 0)
                name = f"{at}.{'kernel' if part == 'weight' else part}"
                shape = (*places, shape[0]) if part == "weight" else (1, *shape)
            elif at.endswith(("norm", ".0")):
                name = f"{at}.ln.{part}"
            elif "pwconv" in at:
                name = f"{at}.linear.{part}"
            elif at.endswith("grn"):
                shape = (1, shape[-1])
        entries[name] = shape
    return entries


def reread(path: Path, member: ConvNeXt) -> torch.nn.Module:
    """mmpretrain's network with what mmengine loads into it, as MMDetection's projects/ConvNeXt-V2 configures it."""
    pretrained = {"type": "Pretrained", "checkpoint": str(path), "prefix": "backbone."}
    network = mmpretrain(member, "cpu", init_cfg=pretrained)
    network.init_weights()
    network.eval()  # mmpretrain's gives nothing back
    return network


def assert_same_features(path: Path, member: ConvNeXt, outputs: list[torch.Tensor], last: Tensors) -> None:
    network = reread(path, member)
    with torch.no_grad():
        found = network(image())
    for stage, (mine, theirs) in enumerate(zip(outputs, found, strict=True)):
        own = last if stage == 3 else {}  # the first three norms are new: they scale by 1 and shift by 0
        wanted = functional.layer_norm(mine, mine.shape[-1:], own.get("weight"), own.get("bias"), 1e-6).permute(
            0, 3, 1, 2
        )
        assert theirs.shape == wanted.shape
        assert theirs.std() > 0.5
        torch.testing.assert_close(theirs, wanted, rtol=1e-5, atol=1e-5)


def image() -> torch.Tensor:
    """Higher than wide, so that rows and columns are not mistaken for each other."""
    return torch.randn(1, 3, 128, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.mmdet
def test_a_released_fcmae_gives_the_same_features(tmp_path: Path) -> None:
    member = convnext(**SMALL, grn=True, final_norm=False)
    tensors = some(member.entries())
    torch.save({"model": tensors}, tmp_path / "released.pt")
    receipt = ckptconv.convert(tmp_path / "released.pt", tmp_path / "out.pth", "fcmae")
    assert receipt.plan.backbone == member
    assert_same_features(tmp_path / "out.pth", member, features(tensors, image(), convolved, False), {})


@pytest.mark.mmdet
def test_a_sparse_fcmae_gives_the_same_features(tmp_path: Path) -> None:
    member = convnext(**SMALL, grn=True, final_norm=False)
    tensors = some(sparse_entries(member))
    named = {f"encoder.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"model": {**named, "mask_token": torch.zeros(1, 512, 1, 1)}}, tmp_path / "trained.pth")
    receipt = ckptconv.convert(tmp_path / "trained.pth", tmp_path / "out.pth")
    assert (receipt.method.name, receipt.plan.backbone) == ("fcmae", member)
    assert_same_features(tmp_path / "out.pth", member, features(tensors, image(), gathered, True), {})


@pytest.mark.mmdet
def test_a_dinov3_gives_the_same_features_and_loses_its_second_norm(tmp_path: Path) -> None:
    member = convnext(**SMALL)
    tensors = some(member.entries())
    again = {f"norms.3.{p}": tensors[f"norm.{p}"] for p in ("weight", "bias")}  # one storage, two names
    torch.save({**tensors, **again}, tmp_path / "released.pth")
    receipt = ckptconv.convert(tmp_path / "released.pth", tmp_path / "out.pth")
    assert (receipt.method.name, receipt.also, receipt.plan.backbone) == ("dinov3", (), member)
    assert {gone.source for gone in receipt.plan.dropped} == set(again)
    last = {p: tensors[f"norm.{p}"] for p in ("weight", "bias")}
    assert_same_features(tmp_path / "out.pth", member, features(tensors, image(), convolved, False), last)


@pytest.mark.mmdet
@pytest.mark.parametrize("grn", [False, True], ids=["V1", "V2"])
def test_what_mmpretrain_saved_comes_out_as_it_went_in(grn: bool, tmp_path: Path) -> None:
    member = convnext(**SMALL, grn=grn)
    names = [n for n in mmpretrain(member).state_dict() if not n.startswith(("norm0", "norm1", "norm2"))]
    shapes = {name: tuple(tensor.shape) for name, tensor in mmpretrain(member).state_dict().items()}
    saved = {f"backbone.{name}": tensor for name, tensor in some({name: shapes[name] for name in names}).items()}
    torch.save({"state_dict": {**saved, "head.fc.weight": torch.zeros(10, 64)}}, tmp_path / "epoch_1.pth")
    receipt = ckptconv.convert(tmp_path / "epoch_1.pth", tmp_path / "out.pth")
    assert (receipt.method.name, receipt.plan.backbone) == ("mmselfsup", member)
    written = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    assert list(written) == list(saved)
    for name, tensor in saved.items():
        assert written[name].shape == tensor.shape
        assert torch.equal(written[name], tensor)


# -- reading back ------------------------------------------------------------------------------------------------------

NEAR = {
    name: state(member.entries())
    for name, member in {
        "ConvNeXt-T": convnext(),
        "ConvNeXt-S": convnext(*SIZES["small"], final_norm=False),
        "ConvNeXt-T, without layer scale": convnext(layer_scale=False),
        "ConvNeXt V2-A": convnext(*SIZES["atto"], grn=True, final_norm=False),
        "ConvNeXt V2-T, with layer scale": convnext(grn=True, layer_scale=True),
        "ConvNeXt-1-1-1-1, 8-16-32-64 channels": convnext((1, 1, 1, 1), 8),
        "ConvNeXt V2-1-2-1-1, 8-16-32-64 channels": convnext((1, 2, 1, 1), 8, grn=True),
    }.items()
}


@st.composite
def members(draw: st.DrawFn) -> ConvNeXt:
    count, width = st.integers(1, 5), st.integers(1, 300)
    return ConvNeXt(
        depths=(draw(count), draw(count), draw(count), draw(count)),
        embed_dims=(draw(width), draw(width), draw(width), draw(width)),
        grn=draw(st.booleans()),
        layer_scale=draw(st.booleans()),
        final_norm=draw(st.booleans()),
        patch_size=draw(st.sampled_from([1, 2, 4, 8])),
        in_channels=draw(st.sampled_from([1, 3, 4])),
    )


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["conv1.weight", "layer1.0.conv2.weight"],
        ["cls_token", "blocks.0.attn.qkv.weight", "norm.weight"],
        ["stages.0.blocks.0.conv_dw.weight", "stages.0.blocks.0.mlp.fc1.weight"],
        ["stages.0.0.depthwise_conv.weight", "stages.0.0.pointwise_conv1.weight"],
        ["downsample_layers.0.0.weight", "norm.weight"],
    ],
    ids=["empty", "ResNet", "ViT", "timm", "mmpretrain", "a stem alone"],
)
def test_read_gives_none_for_other_names(names: list[str]) -> None:
    assert read({name: TensorSpec((64, 3, 7, 7), DTYPES["float32"]) for name in names}) is None


@pytest.mark.parametrize("name", NEAR)
def test_name_and_description(name: str) -> None:
    member = read(NEAR[name])
    assert member is not None
    assert member.name == name
    assert not any(map(member.optional, member.entries()))
    assert described(member) == {
        "family": "ConvNeXt",
        "arch": member.arch,
        "depths": list(member.depths),
        "embed_dims": list(member.embed_dims),
        "grn": " V2" in name,
        "layer_scale": (" V2" not in name) != ("layer scale" in name),
        "final_norm": "norm.weight" in NEAR[name],
        "patch_size": 4,
        "in_channels": 3,
    }


def test_xlarge_has_two_letters() -> None:
    assert convnext(*SIZES["xlarge"]).name == "ConvNeXt-XL"


# -- one thing wrong ---------------------------------------------------------------------------------------------------


PARTS = ("stages.0.0.gamma", "stages.0.0.grn.gamma", "stages.0.0.grn.beta")
"""Of a block, which all blocks of a network have, or none."""


@pytest.mark.parametrize(("name", "extra"), [(name, part) for name in NEAR for part in PARTS if part not in NEAR[name]])
def test_what_one_block_alone_has_is_unexplained(name: str, extra: str) -> None:
    (problem,) = plan_of({**NEAR[name], extra: TensorSpec((7,), DTYPES["float32"])}).problems
    assert (problem.kind, problem.key) == ("unexplained", extra)


@pytest.mark.parametrize("stage", range(4))
def test_a_stage_that_was_cut_off_is_missing(stage: int) -> None:
    own = (f"stages.{stage}.", f"downsample_layers.{stage}.")
    names = {k: v for k, v in NEAR["ConvNeXt V2-A"].items() if not k.startswith(own)}
    plan = plan_of(names)
    assert plan.backbone is not None
    assert plan.backbone.name == "ConvNeXt V2-A"
    assert {(p.kind, p.key) for p in plan.problems} == {("missing", k) for k in set(NEAR["ConvNeXt V2-A"]) - set(names)}


def test_a_convnext_is_no_network_of_mmdet() -> None:
    (problem,) = plan_of(state(convnext().entries()), "mmdet").problems
    assert "a ConvNeXt can be written for mmpretrain, timm, transformers, official" in text_of(problem)
