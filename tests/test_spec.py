"""The table of element types, and strides, against torch, numpy and safetensors."""

from __future__ import annotations

import io
import json
import pickletools
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from ckptconv.spec import DTYPES, DType, TensorSpec

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support")
every_type = pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)


def empty(dtype: DType) -> torch.Tensor:
    return torch.empty(0, dtype=getattr(torch, dtype.name))


@every_type
def test_torch_knows_the_type(dtype: DType) -> None:
    tensor = empty(dtype)
    assert tensor.element_size() == dtype.itemsize
    assert tensor.is_floating_point() == dtype.is_float == (dtype.kind == "float")
    assert tensor.is_complex() == (dtype.kind == "complex")
    assert (tensor.dtype == torch.bool) == (dtype.kind == "bool")


@every_type
def test_torch_saves_the_type_under_that_storage_class(dtype: DType) -> None:
    file = io.BytesIO()
    torch.save(empty(dtype), file)
    with zipfile.ZipFile(file) as archive:
        named = {arg for op, arg, _ in pickletools.genops(archive.read("archive/data.pkl")) if op.name == "GLOBAL"}
    assert (f"torch {dtype.storage}" if dtype.storage else "torch.storage UntypedStorage") in named


@every_type
def test_numpy_knows_the_type(dtype: DType) -> None:
    if dtype.numpy is None:
        with pytest.raises(TypeError):
            np.dtype(dtype.name)
        return
    kind = np.dtype(dtype.numpy)
    assert (kind.name, kind.itemsize, kind.str) == (dtype.name, dtype.itemsize, dtype.numpy)


@every_type
def test_safetensors_knows_the_type(dtype: DType) -> None:
    if dtype.safetensors is None:
        with pytest.raises(Exception, match=f"(?i){dtype.name}"):
            save({"w": empty(dtype)})
        return
    data = save({"w": empty(dtype)})
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["w"]["dtype"] == dtype.safetensors


@settings(max_examples=200, deadline=None, derandomize=True)
@given(shape=st.lists(st.integers(0, 5), max_size=6).map(tuple), dtype=st.sampled_from([*DTYPES.values()]))
def test_shape_arithmetic_is_torchs(shape: tuple[int, ...], dtype: DType) -> None:
    tensor = torch.empty(shape, dtype=getattr(torch, dtype.name))
    spec = TensorSpec(shape, dtype)
    assert spec.strides == tensor.stride()
    assert spec.numel == tensor.numel()
    assert spec.nbytes == tensor.nbytes
    assert str(spec) == f"{dtype.name} {list(shape)}"
