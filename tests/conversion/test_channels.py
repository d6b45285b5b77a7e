"""Images of one, two, four or thirteen channels: read from the stem, written as they are, and picked on request."""

from __future__ import annotations

import gc
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch.nn import functional

import ckptconv
from ckptconv import backbones, keep
from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.backbones.beit import Beit
from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.backbones.resnet import ResNet
from ckptconv.backbones.swin import Swin
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.cli import main
from ckptconv.errors import IncompletePlanError, UsageError
from ckptconv.ops import OpError, select_channels
from ckptconv.spec import DTYPES, TensorSpec
from tests.support.specs import state

RULES = [keep("{key...}", "{key...}")]

MEMBERS: dict[str, Any] = {
    "ResNet": ResNet((2, 2, 2, 2), False, 64, 64, 64, 1, 7, 3),
    "Swin": Swin(96, 384, (2, 2, 6, 2), (3, 6, 12, 24), (7, 7, 7, 7)),
    "ViT": VisionTransformer(64, 2, 128, 16, 14 * 14),
    "BEiT": Beit(64, 2, 128, 16, 14, 1, shared_relative_positions=False, absolute_positions=True),
    "ConvNeXt": ConvNeXt((2, 2, 6, 2), (40, 80, 160, 320), True, False, True, 4, 3),
}
each_member = pytest.mark.parametrize("which", MEMBERS)
each_count = pytest.mark.parametrize("count", [1, 2, 4, 13])


# -- the op ------------------------------------------------------------------------------------------------------------


def kernel(channels: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn((8, channels, 3, 3), generator=torch.Generator().manual_seed(channels)).to(dtype)


def applied(op: Any, tensor: torch.Tensor) -> torch.Tensor:
    array = tensor.view(torch.uint16).numpy() if tensor.dtype is torch.bfloat16 else tensor.numpy()
    made = op.apply([array])
    assert op.spec([TensorSpec(tuple(tensor.shape), DTYPES[str(tensor.dtype)[6:]])]).shape == made.shape
    return torch.from_numpy(made).view(tensor.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_channels_are_taken_bit_for_bit_in_the_order_that_is_asked_for(dtype: torch.dtype) -> None:
    own = kernel(13, dtype)
    assert torch.equal(applied(select_channels((4, 3, 2)), own), own[:, [3, 2, 1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("times", [2, 3, 5])
def test_a_channel_that_is_named_several_times_is_shared_out_as_torch_divides(dtype: torch.dtype, times: int) -> None:
    own = kernel(2, dtype)
    made = applied(select_channels((2,) * times + (1,)), own)
    assert torch.equal(made[:, times], own[:, 0])
    for at in range(times):
        assert torch.equal(made[:, at], own[:, 1] / times)


def test_a_grey_picture_in_three_equal_channels_gives_the_same_numbers() -> None:
    own, picture = kernel(1), torch.randn((2, 1, 9, 9), generator=torch.Generator().manual_seed(1))
    made = applied(select_channels((1, 1, 1)), own)
    before = functional.conv2d(picture.double(), own.double())
    after = functional.conv2d(picture.expand(2, 3, 9, 9).double(), made.double())
    assert (before - after).abs().max() <= 2**-24 * functional.conv2d(picture.abs().double(), own.abs().double()).max()
    halves = applied(select_channels((1, 1)), own)
    assert torch.equal(halves.sum(1, keepdim=True), own)  # what is divided by a power of two is exact


@pytest.mark.parametrize(
    ("channels", "shape", "dtype"),
    [
        ((4,), (8, 3, 7, 7), "float32"),
        ((0,), (8, 3, 7, 7), "float32"),
        ((), (8, 3, 7, 7), "float32"),
        ((1,), (8,), "float32"),
        ((1,), (8, 3, 7, 7), "int64"),
    ],
)
def test_what_cannot_be_taken_is_refused(channels: tuple[int, ...], shape: tuple[int, ...], dtype: str) -> None:
    spec = TensorSpec(shape, DTYPES[dtype])
    with pytest.raises(OpError) as caught:
        select_channels(channels).spec([spec])
    assert caught.value.message == f"select channels {', '.join(map(str, channels))} does not suit {spec}"


# -- networks ----------------------------------------------------------------------------------------------------------


@each_member
@each_count
def test_the_count_is_read_from_the_stem_and_said(which: str, count: int) -> None:
    member = replace(MEMBERS[which], in_channels=count)
    assert backbones.read(state(member.entries())) == member
    assert member.entries()[FAMILIES[which].stem][1] == count
    assert member.name == f"{MEMBERS[which].name}, images of {count} channel{'s' * (count > 1)}"
    refusing = {target for target in FAMILIES[which].targets if member.obstacle(target)}
    assert refusing == ({"torchvision"} if which == "ResNet" else set())


def saved(network: Backbone, path: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    tensors = {name: (torch.randn(shape) * 0.1) for name, shape in network.entries().items()}
    torch.save(tensors, path)
    return tensors


def converted(network: Backbone, folder: Path, **said: Any) -> tuple[dict[str, Any], dict[str, Any], ckptconv.Receipt]:
    """The source's tensors, the file's, what the file says of itself, and the receipt."""
    saved(network, folder / "raw.pth")
    receipt = ckptconv.convert(folder / "raw.pth", folder / "out.pth", RULES, force=True, **said)
    content = torch.load(folder / "out.pth", weights_only=True)
    return content[receipt.plan.dialect.section], json.loads(content["meta"]["ckptconv"]), receipt


@each_member
@each_count
def test_a_file_is_written_for_the_usual_target_as_it_is(which: str, count: int, tmp_path: Path) -> None:
    member = replace(MEMBERS[which], in_channels=count)
    tensors, said, receipt = converted(member, tmp_path)
    assert receipt.plan.target == FAMILIES[which].targets[0]
    assert receipt.proved == len(tensors) == len(receipt.plan.moves)
    assert said["backbone"]["in_channels"] == count
    assert said["backbone"]["name"] == member.name
    assert said["pixels"] is None
    assert "channels" not in said


@each_member
def test_channels_are_picked_and_nothing_else_changes(which: str, tmp_path: Path) -> None:
    member = replace(MEMBERS[which], in_channels=13)
    before, _, plain = converted(member, tmp_path)
    after, said, receipt = converted(member, tmp_path, channels=(4, 3, 2))
    picked = receipt.plan.selected_channels
    assert picked is not None
    assert (picked.channels, picked.of) == ((4, 3, 2), 13)
    assert torch.equal(after[picked.target], before[picked.target][:, [3, 2, 1]])
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - {picked.target})
    assert receipt.plan.backbone == MEMBERS[which]
    assert (said["channels"], said["pixels"], said["backbone"]["in_channels"]) == ([4, 3, 2], None, 3)
    assert receipt.fingerprint != plain.fingerprint


def test_picking_makes_a_network_that_torchvision_takes(tmp_path: Path) -> None:
    member = replace(MEMBERS["ResNet"], in_channels=13)
    with pytest.raises(IncompletePlanError, match="torchvision's ResNet always takes 3"):
        converted(member, tmp_path, target="torchvision")
    assert converted(member, tmp_path, target="torchvision", channels=(4, 3, 2))[2].written


@pytest.mark.parametrize("dtype", ["float16", None])
def test_picking_goes_with_other_sizes_and_types(dtype: str | None, tmp_path: Path) -> None:
    member = replace(MEMBERS["ViT"], in_channels=1)
    said = {"target": "mmpretrain", "patch_size": 8, "image_size": 224, "dtype": dtype}
    grey, _, _ = converted(member, tmp_path, **said)
    after, facts, receipt = converted(member, tmp_path, channels=(1, 1, 1), **said)
    name = "backbone.patch_embed.projection.weight"
    assert tuple(after[name].shape) == (64, 3, 8, 8)
    assert (after[name].sum(1, keepdim=True).float() - grey[name].float()).abs().max() < (2e-3 if dtype else 1e-6)
    assert facts["resized"] == ["backbone.pos_embed from 14x14 to 28x28", f"{name} from 16x16 to 8x8"]
    assert str(receipt.plan.selected_channels) == f"{name} to 1,1,1 of 1"
    assert receipt.proved == len(after)


def test_a_dict_in_memory_gets_the_same_stem(tmp_path: Path) -> None:
    tensors = saved(replace(MEMBERS["ResNet"], in_channels=13), tmp_path / "raw.pth")
    for values in (tensors, {name: value.numpy() for name, value in tensors.items()}):
        remapped, plan = ckptconv.remap_state_dict(values, RULES, channels=[2, 2])
        assert np.array_equal(np.asarray(remapped["conv1.weight"]), (tensors["conv1.weight"][:, [1, 1]] / 2).numpy())
        assert plan.backbone == replace(MEMBERS["ResNet"], in_channels=2)
    assert ckptconv.plan(tmp_path / "raw.pth", RULES, channels=[2, 2]).selected_channels is not None


def test_a_method_that_was_fed_colours_says_nothing_of_other_channels(tmp_path: Path) -> None:
    for count, channels, known in ((3, (), True), (3, (3, 2, 1), False), (2, (), False), (4, (1, 2, 3), False)):
        tensors = saved(replace(MEMBERS["ResNet"], in_channels=count), tmp_path / "raw.pth")
        torch.save({"state_dict": {f"module.encoder_q.{k}": v for k, v in tensors.items()}}, tmp_path / "moco.pth")
        ckptconv.convert(tmp_path / "moco.pth", tmp_path / "out.pth", "moco", channels=channels, force=True)
        said = json.loads(torch.load(tmp_path / "out.pth", weights_only=True)["meta"]["ckptconv"])
        assert (said["pixels"] is not None) == known


# -- the command line --------------------------------------------------------------------------------------------------


def run(*words: str | Path) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    typed = mock.patch.object(sys, "argv", ["ckptconv", *map(str, words)])
    with typed, redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main()
    gc.enable()
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


@pytest.fixture
def bands(tmp_path: Path) -> Path:
    saved(replace(MEMBERS["ResNet"], in_channels=13), tmp_path / "bands.pth")
    return tmp_path / "bands.pth"


def test_the_receipt_says_so(bands: Path) -> None:
    out = bands.with_name("out.pth")
    code, text, _ = run("convert", bands, out)
    assert code == 0
    assert "backbone  ResNet-18, images of 13 channels: 120/120 tensors for mmdet, of 120 in the file\n" in text
    unknown = "pixels    the mean and std of these channels are not known: emit-config takes yours (--mean, --std)\n"
    assert unknown in text
    assert f"next      ckptconv emit-config {out} --mean 0 --std 1 -o mask_rcnn.py\n" in text
    code, text, _ = run("convert", bands, out, "--force", "--channels", "4,3,2")
    assert code == 0
    assert "backbone  ResNet-18: 120/120 tensors for mmdet, of 120 in the file\n" in text
    assert "channels  conv1.weight to 4,3,2 of 13: no longer the numbers of the source\n" in text
    assert unknown in text
    code, text, _ = run("convert", bands, out, "--force", "--channels", "1,1,2", "--json")
    data = json.loads(text)
    assert data["tensors"]["selected_channels"] == {"conv1.weight": {"channels": [1, 1, 2], "of": 13}}
    assert data["backbone"]["in_channels"] == 3
    _, text, _ = run("convert", bands, out, "--force", "--channels", "1,1,2")
    assert "channels  conv1.weight to 1,1,2 of 13 (channel 1 2 times, divided by 2): no longer" in text


@pytest.mark.parametrize(
    ("channels", "message", "hint"),
    [
        ("14", "--channels 14: ResNet-18, images of 13 channels takes 13 channels", "They are numbered from 1."),
        (
            "0,1,2",
            "--channels 0,1,2 makes no sense",
            "Channels are numbered from 1, as bands are: --channels 4,3,2 takes the fourth, the third, the second.",
        ),
        ("red", "--channels 'red' is not a list of numbers", "Give numbers from 1, such as --channels 4,3,2"),
        ("", "--channels '' is not a list of numbers", "Give numbers from 1, such as --channels 4,3,2"),
        ("-1", "--channels '-1' is not a list of numbers", "Give numbers from 1, such as --channels 4,3,2"),
        (
            "1,2,3,4,5,6,7,8,9,10,11,12,13",
            (
                "--channels 1,2,3,4,5,6,7,8,9,10,11,12,13 changes nothing: these are the channels of ResNet-18, images "
                "of 13 channels already"
            ),
            "Leave it out.",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(channels: str, message: str, hint: str, bands: Path) -> None:
    code, _, text = run("convert", bands, bands.with_name("out.pth"), f"--channels={channels}")
    assert (code, text) == (2, f"error: {message}\nhint: {hint}\n")
    assert not bands.with_name("out.pth").exists()


def test_inspect_says_the_network(bands: Path) -> None:
    assert run("inspect", bands)[1].startswith("what      ResNet-18, images of 13 channels, from the top level")


def test_too_many_are_refused_as_an_argument() -> None:
    with pytest.raises(UsageError, match="makes no sense"):
        ckptconv.remap_state_dict({}, RULES, channels=[1] * 600)
