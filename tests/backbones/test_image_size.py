"""Positions and patches of another size, on request: numbers against torch's, mmpretrain's and timm's own ways."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import ckptconv
from ckptconv import Receipt, keep
from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.backbones.beit import Beit
from ckptconv.backbones.eva import Eva
from ckptconv.backbones.resnet import ResNet
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.errors import UsageError
from ckptconv.ops import OpError, resize_grid, resize_patch
from ckptconv.planning.plan import Resized
from ckptconv.spec import DTYPES, TensorSpec
from tests.support import forked, pretrain

F32 = DTYPES["float32"]
sides = st.integers(1, 40)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- the ops -----------------------------------------------------------------------------------------------------------


def resized_by_torch(
    table: torch.Tensor, slots: int, old: int, new: int, mode: str = "bicubic", offset: float = 0.0, **how: bool
) -> torch.Tensor:
    grid = table[:, slots:].mT.reshape(1, -1, old, old)
    size: dict[str, Any] = {"scale_factor": ((new + offset) / old,) * 2} if offset else {"size": (new, new)}
    grown = functional.interpolate(grid, mode=mode, **size, **how)
    return torch.cat([table[:, :slots], grown.flatten(2).mT], 1)


@pytest.mark.parametrize("how", [{}, {"offset": 0.1}, {"align_corners": True}, {"antialias": True}], ids=str)
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("old", "new"), [(14, 64), (37, 32), (16, 14), (24, 37), (14, 7), (3, 1), (1, 4)])
def test_a_table_is_resized_in_every_way_as_torch_interpolates(
    old: int, new: int, mode: str, how: dict[str, Any]
) -> None:
    table = drawn(1, 2 + old * old, 16)
    found = resize_grid(2, new, **{"mode": mode, **how}).apply([table.numpy()])
    wanted = resized_by_torch(table, 2, old, new, mode, **how).numpy()
    assert np.abs(found - wanted).max() < 1e-5


@settings(max_examples=80, deadline=None, derandomize=True)
@given(old=sides, new=sides, slots=st.integers(0, 5), channels=st.integers(1, 4))
def test_a_table_is_resized_as_torch_interpolates(old: int, new: int, slots: int, channels: int) -> None:
    table = drawn(1, slots + old * old, channels, seed=old * 100 + new)
    op = resize_grid(slots, new)
    found = op.apply([table.numpy()])
    assert op.spec([TensorSpec(tuple(table.shape), F32)]) == TensorSpec(found.shape, F32)
    assert found.dtype == np.float32
    assert np.abs(found - resized_by_torch(table, slots, old, new).numpy()).max() < 1e-5
    assert np.array_equal(found[:, :slots], table[:, :slots].numpy())


@pytest.mark.mmdet
@pytest.mark.parametrize(("old", "new", "slots"), [(14, 64, 1), (37, 32, 1), (16, 14, 0), (24, 37, 1)])
def test_a_table_is_resized_as_mmpretrain_resizes_it(old: int, new: int, slots: int) -> None:
    table = drawn(1, slots + old * old, 192)
    theirs = pretrain.models().VisionTransformer.resize_pos_embed(table, (old, old), (new, new), "bicubic", slots)
    assert np.abs(resize_grid(slots, new).apply([table.numpy()]) - theirs.numpy()).max() < 1e-5


def resized_by_timm(kernel: torch.Tensor, new: int) -> torch.Tensor:
    """`resample_patch_embed` of timm/layers/patch_embed.py (1.0), in its own steps; in float64, which it leaves."""
    old = kernel.shape[-1]
    columns = []
    for i in range(old * old):
        basis = torch.zeros(old * old, dtype=torch.float64)
        basis[i] = 1
        patch = functional.interpolate(basis.view(1, 1, old, old), size=(new, new), mode="bicubic", antialias=True)
        columns.append(patch.flatten().numpy())
    inverse = torch.from_numpy(np.linalg.pinv(np.stack(columns)))
    return (kernel.flatten(2).double() @ inverse.mT).view(*kernel.shape[:2], new, new).float()


@pytest.mark.parametrize(("old", "new"), [(14, 16), (16, 14), (16, 32), (8, 16), (16, 8), (7, 5), (3, 3), (4, 1)])
def test_a_kernel_is_resized_as_timm_resizes_it(old: int, new: int) -> None:
    kernel = drawn(8, 3, old, old)
    op = resize_patch(new)
    found = op.apply([kernel.numpy()])
    assert op.spec([TensorSpec(tuple(kernel.shape), F32)]) == TensorSpec(found.shape, F32)
    assert found.dtype == np.float32
    assert np.abs(found - resized_by_timm(kernel, new).numpy()).max() < 1e-5


@pytest.mark.parametrize(("old", "new"), [(14, 16), (16, 32), (8, 11)])
def test_larger_patches_give_what_the_old_ones_gave(old: int, new: int) -> None:
    """The point of it (FlexiViT): tokens stay when image and patches grow together."""
    kernel, images = drawn(8, 3, old, old), drawn(6, 3, old, old, seed=1)
    grown = functional.interpolate(images, size=(new, new), mode="bicubic", antialias=True)
    made = torch.from_numpy(resize_patch(new).apply([kernel.numpy()]))
    before, after = (i.flatten(1) @ k.flatten(1).mT for i, k in ((images, kernel), (grown, made)))
    assert (before - after).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_types_are_computed_in_float64_and_rounded_once(dtype: str) -> None:
    kind = getattr(torch, dtype)
    for op, tensor in ((resize_grid(1, 9), drawn(1, 17, 8)), (resize_patch(5), drawn(4, 3, 3, 3))):
        stored = tensor.to(kind)
        exact = torch.from_numpy(op.apply([stored.double().numpy()])).to(kind)
        array = stored.view(torch.uint16).numpy() if dtype == "bfloat16" else stored.numpy()
        found = op.apply([array])
        assert found.dtype == array.dtype
        away = torch.from_numpy(found.copy()).view(kind).double() - exact.double()
        assert away.abs().max() <= (0 if dtype != "bfloat16" else 2**-7)  # by way of float32: a tie may go elsewhere


@pytest.mark.parametrize(
    ("op", "shape", "dtype"),
    [
        (resize_grid(1, 7), (1, 196, 8), "float32"),
        (resize_grid(1, 7), (1, 1, 8), "float32"),
        (resize_grid(0, 7), (2, 196, 8), "float32"),
        (resize_grid(0, 7), (196, 8), "float32"),
        (resize_grid(0, 7), (1, 196, 8), "int64"),
        (resize_patch(7), (8, 3, 16, 14), "float32"),
        (resize_patch(7), (8, 16, 16), "float32"),
        (resize_patch(7), (8, 3, 16, 16), "uint8"),
    ],
)
def test_what_cannot_be_resized_is_refused(op, shape: tuple[int, ...], dtype: str) -> None:
    spec = TensorSpec(shape, DTYPES[dtype])
    with pytest.raises(OpError) as caught:
        op.spec([spec])
    assert caught.value.message == f"resize to {op.side}x{op.side} does not suit {spec}"


# -- on request --------------------------------------------------------------------------------------------------------

VIT = VisionTransformer(64, 2, 128, 16, 14 * 14)
CAE = Beit(64, 2, 128, 16, 14, 1, shared_relative_positions=False, absolute_positions=True)


def saved(network: Backbone, path: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = {name: (torch.randn(shape) * 0.1).to(dtype) for name, shape in network.entries().items()}
    torch.save({"model": state}, path)
    return state


def converted(network: Backbone, folder: Path, target: str, **said: Any) -> tuple[dict[str, Any], Receipt]:
    """The state before and after, by names of the target, and the receipt."""
    saved(network, folder / "raw.pth", said.pop("dtype_of_the_file", torch.float32))
    rules = [keep("{key...}", "{key...}")]
    receipt = ckptconv.convert(folder / "raw.pth", folder / "vit.pth", rules, target=target, force=True, **said)
    content = torch.load(folder / "vit.pth", weights_only=True)
    return {**content[receipt.plan.dialect.section], "said": json.loads(content["meta"]["ckptconv"])}, receipt


NETWORKS = {
    "vitdet": (VIT, "vitdet", "pos_embed", 1),
    "mmpretrain": (VIT, "mmpretrain", "backbone.pos_embed", 1),
    "timm": (VIT, "timm", "pos_embed", 1),
    "no class token": (replace(VIT, class_token=False, prefix_positions=0), "mmpretrain", "backbone.pos_embed", 0),
    "registers": (replace(VIT, num_registers=4, prefix_positions=0), "timm", "pos_embed", 0),
    "places for registers": (replace(VIT, num_registers=4, prefix_positions=5), "timm", "pos_embed", 5),
    "LayerScale": (replace(VIT, layer_scale=True), "vitdet", "pos_embed", 1),
    "BEiT, absolute": (CAE, "mmpretrain", "backbone.pos_embed", 1),
}


@pytest.mark.parametrize("which", NETWORKS)
def test_positions_are_resized_and_nothing_else_is(which: str, tmp_path: Path) -> None:
    network, target, name, slots = NETWORKS[which]
    before, _ = converted(network, tmp_path, target)
    after, receipt = converted(network, tmp_path, target, image_size=1024)
    assert before.pop("said").keys() == after["said"].keys() - {"resized"}
    said = after.pop("said")
    assert said["resized"] == [f"{name} from 14x14 to 64x64"]
    assert said["backbone"]["grid_size"] == 64
    assert [str(one) for one in receipt.plan.resized] == said["resized"]
    assert receipt.proved == len(after)
    assert before.keys() == after.keys()
    for key in before.keys() - {name}:
        assert torch.equal(before[key], after[key]), key
    assert (after[name] - resized_by_torch(before[name], slots, 14, 64)).abs().max() < 1e-6


@pytest.mark.parametrize("network", [VIT, CAE], ids=["ViT", "BEiT"])
def test_patches_are_resized_and_positions_stay_unless_images_are_named(network: Backbone, tmp_path: Path) -> None:
    kernel, positions = "backbone.patch_embed.projection.weight", "backbone.pos_embed"
    before, _ = converted(network, tmp_path, "mmpretrain")
    alone, _ = converted(network, tmp_path, "mmpretrain", patch_size=14)
    assert alone["said"]["resized"] == [f"{kernel} from 16x16 to 14x14"]
    assert (alone["said"]["backbone"]["patch_size"], alone["said"]["backbone"]["grid_size"]) == (14, 14)
    assert (alone[kernel] - resized_by_timm(before[kernel], 14)).abs().max() < 1e-5
    assert torch.equal(alone[positions], before[positions])
    both, receipt = converted(network, tmp_path, "mmpretrain", patch_size=8, image_size=224, dtype="float16")
    assert both["said"]["resized"] == [f"{positions} from 14x14 to 28x28", f"{kernel} from 16x16 to 8x8"]
    assert receipt.plan.backbone == replace(
        network, patch_size=8, **{CAE: {"grid_size": 28}}.get(network, {"positions": 28**2})
    )
    wanted = resized_by_torch(before[positions], 1, 14, 28)
    assert both[positions].dtype == torch.float16
    assert (both[positions] - wanted).abs().max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_is_resized_keeps_its_type(dtype: torch.dtype, tmp_path: Path) -> None:
    after, _ = converted(VIT, tmp_path, "timm", dtype_of_the_file=dtype, image_size=320, patch_size=8)
    assert after["pos_embed"].dtype == after["patch_embed.proj.weight"].dtype == dtype
    before = torch.load(tmp_path / "raw.pth", weights_only=True)["model"]["pos_embed"].float()
    assert (after["pos_embed"].float() - resized_by_torch(before, 1, 14, 40)).abs().max() < 4e-3


@pytest.mark.mmdet
def test_the_target_built_for_that_size_takes_it_as_it_is(tmp_path: Path) -> None:
    """As it takes the file that was not resized: MMPretrain's class does the same when it loads one."""
    networks = []
    for said in ({}, {"image_size": 384}):
        converted(VIT, tmp_path, "mmpretrain", **said)
        arch = {"embed_dims": 64, "num_layers": 2, "num_heads": 4, "feedforward_channels": 128}
        start = {"type": "Pretrained", "checkpoint": str(tmp_path / "vit.pth"), "prefix": "backbone."}
        networks.append(pretrain.models().VisionTransformer(arch=arch, img_size=384, patch_size=16, init_cfg=start))
        networks[-1].init_weights()
    theirs, mine = (network.state_dict() for network in networks)
    assert max((theirs[name] - mine[name]).abs().max() for name in theirs) < 1e-6
    assert torch.equal(mine["pos_embed"], torch.load(tmp_path / "vit.pth")["state_dict"]["backbone.pos_embed"])


def test_plan_says_it_too(tmp_path: Path) -> None:
    saved(VIT, tmp_path / "raw.pth")
    settled = ckptconv.plan(tmp_path / "raw.pth", "timm", image_size=512)
    assert settled.resized == (Resized("pos_embed", 14, 32),)
    (move,) = (move for move in settled.moves if move.target == "pos_embed")
    assert (move.spec.shape, str(move.op)) == ((1, 1025, 64), "resize to 32x32")


REFUSED = {
    "no multiple": (
        VIT,
        {"image_size": 1000},
        "`image_size=1000` is not a multiple of 16, the pixels of a patch",
        "Give 992 or 1008.",
    ),
    "smaller than a patch": (
        VIT,
        {"image_size": 8},
        "`image_size=8` is not a multiple of 16, the pixels of a patch",
        "Give 16.",
    ),
    "as it is": (
        VIT,
        {"image_size": 224},
        "`image_size=224` changes nothing: ViT-64x2/16 has patches of 16 pixels, 14 a side already",
        "Leave it out.",
    ),
    "patches as they are": (
        VIT,
        {"patch_size": 16},
        "`patch_size=16` changes nothing: ViT-64x2/16 has patches of 16 pixels already",
        "Leave it out.",
    ),
    "nothing": (VIT, {"image_size": 0}, "`image_size=0` makes no sense", "Give 1 to 65536 pixels."),
    "a huge patch": (VIT, {"patch_size": 1000}, "`patch_size=1000` makes no sense", "Give 1 to 128 pixels."),
    "a huge image": (
        VIT,
        {"image_size": 16384},
        "`image_size=16384` makes 1024 patches a side",
        "At most 512 are made.",
    ),
    "RoPE": (
        Eva(64, 2, 128, 16, num_registers=4),
        {"image_size": 512},
        (
            "`image_size=512`: ViT-64x2/16, 4 registers, RoPE has rotary position embeddings (RoPE), which suit images "
            "of any size"
        ),
        "Leave out `image_size`.",
    ),
    "no square": (
        replace(VIT, positions=200),
        {"image_size": 512},
        "`image_size=512`: ViT-64x2/16 has 200 positions, which are not a square grid",
        "Leave out `image_size`.",
    ),
    "relative positions": (
        replace(CAE, own_relative_positions=True),
        {"image_size": 512},
        "`image_size=512`: BEiT-64x2/16 has relative position bias tables, which ckptconv does not resize",
        "Leave out `image_size`.",
    ),
    "no positions": (
        replace(CAE, absolute_positions=False),
        {"image_size": 512},
        "`image_size=512`: BEiT-64x2/16 has no positions",
        "Leave out `image_size`.",
    ),
    "ResNet": (
        ResNet((2, 2, 2, 2), False, 64, 64, 64, 1, 7, 3),
        {"image_size": 512, "patch_size": 8},
        "`image_size=512` `patch_size=8` changes nothing: ResNet-18 has no table of positions and no patches to resize",
        "Leave it out: it takes images of any size.",
    ),
}


@pytest.mark.parametrize("which", REFUSED)
def test_where_nothing_can_be_resized_nothing_is_written(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VisionTransformer, "obstacle", lambda *_: "")  # positions that are no square have a target
    network, said, message, hint = REFUSED[which]
    saved(network, tmp_path / "raw.pth")
    target = "timm" if isinstance(network, VisionTransformer) else FAMILIES[network.family].targets[-1]
    with pytest.raises(UsageError) as caught:
        ckptconv.convert(
            tmp_path / "raw.pth", tmp_path / "o.pth", [keep("{key...}", "{key...}")], target=target, **said
        )
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert not (tmp_path / "o.pth").exists()


def test_the_command_says_what_it_resized(tmp_path: Path) -> None:
    saved(VIT, tmp_path / "raw.pth")
    command = [sys.executable, "-m", "ckptconv", "convert", "-m", "timm", "raw.pth", "vit.pth", "--image-size"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return forked.run([*command, *more], cwd=tmp_path, server=forked.COMMANDS)

    refused = run("100")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: --image-size 100 is not a multiple of 16")
    planned = run("448", "--patch-size", "8", "--json", "--dry-run")
    assert json.loads(planned.stdout)["tensors"]["resized"] == {
        "pos_embed": {"from": [14, 14], "to": [56, 56]},
        "patch_embed.proj.weight": {"from": [16, 16], "to": [8, 8]},
    }
    done = run("1024")
    assert done.returncode == 0
    assert "resized   pos_embed from 14x14 to 64x64: no longer the numbers of the source\n" in done.stdout
