"""Positions and patches of another size: the ops against torch, and against mmpretrain's and timm's own ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ckptconv.ops import OpError, resize_grid, resize_patch
from ckptconv.spec import DTYPES, TensorSpec
from tests import pretrain

F32 = DTYPES["float32"]
sides = st.integers(1, 40)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- the ops -----------------------------------------------------------------------------------------------------------


def resized_by_torch(table: torch.Tensor, slots: int, old: int, new: int) -> torch.Tensor:
    grid = table[:, slots:].mT.reshape(1, -1, old, old)
    grown = functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :slots], grown.flatten(2).mT], 1)


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
        (resize_grid(0, 0), (1, 196, 8), "float32"),
        (resize_grid(0, 7), (1, 196, 8), "int64"),
        (resize_patch(7), (8, 3, 16, 14), "float32"),
        (resize_patch(7), (8, 16, 16), "float32"),
        (resize_patch(0), (8, 3, 16, 16), "float32"),
        (resize_patch(7), (8, 3, 16, 16), "uint8"),
    ],
)
def test_what_cannot_be_resized_is_refused(op, shape: tuple[int, ...], dtype: str) -> None:
    spec = TensorSpec(shape, DTYPES[dtype])
    with pytest.raises(OpError) as caught:
        op.spec([spec])
    assert caught.value.message == f"resize to {op.side}x{op.side} does not suit {spec}"
