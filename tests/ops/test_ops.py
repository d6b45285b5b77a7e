"""Ops against torch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptconv.errors import UnreadableError, UsageError
from ckptconv.ops import (
    Cast,
    Composed,
    Concat,
    Op,
    OpError,
    Permute,
    Reshape,
    add_row,
    cast,
    chain,
    chunk,
    compose,
    concat,
    concat_with_zeros,
    permute,
    regroup,
    reshape,
    scale,
    take,
)
from ckptconv.spec import DTYPES, TensorSpec

Array = np.ndarray[Any, Any]
F32 = DTYPES["float32"]
shapes = st.lists(st.integers(0, 4), max_size=5).map(tuple)


def numbered(shape: tuple[int, ...], start: int = 0) -> torch.Tensor:
    """A tensor no two elements of which are equal."""
    count = int(np.prod(shape))
    return torch.arange(start, start + count, dtype=torch.int32).reshape(shape)


def assert_does(op: Op, parts: list[torch.Tensor], wanted: torch.Tensor) -> None:
    found = op.apply([part.numpy() for part in parts])
    specs = [TensorSpec(tuple(part.shape), DTYPES["int32"]) for part in parts]
    assert op.spec(specs) == TensorSpec(tuple(wanted.shape), DTYPES["int32"])
    assert found.shape == tuple(wanted.shape)
    assert found.dtype == np.int32
    assert np.array_equal(found, wanted.numpy())


# Moving elements --------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, derandomize=True)
@given(shape=shapes.filter(len), axis=st.integers(0, 4), lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_concat_is_torchs(shape: tuple[int, ...], axis: int, lengths: list[int]) -> None:
    axis %= len(shape)
    parts = [numbered((*shape[:axis], n, *shape[axis + 1 :]), 1000 * i) for i, n in enumerate(lengths)]
    assert_does(concat(axis), parts, torch.cat(parts, axis))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(shape=shapes, data=st.data())
def test_permute_is_torchs(shape: tuple[int, ...], data: st.DataObject) -> None:
    axes = data.draw(st.permutations(range(len(shape))))
    assert_does(permute(*axes), [numbered(shape)], numbered(shape).permute(axes))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(shape=shapes.filter(lambda shape: shape and 0 not in shape), data=st.data())
def test_take_is_a_slice(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    start = data.draw(st.integers(0, shape[axis] - 1))
    stop = data.draw(st.none() | st.integers(start + 1, shape[axis]))
    length = (shape[axis] if stop is None else stop) - start
    assert_does(take(axis, start, stop), [numbered(shape)], numbered(shape).narrow(axis, start, length))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(shape=shapes.filter(lambda shape: 0 not in shape), data=st.data())
def test_reshape_is_torchs(shape: tuple[int, ...], data: st.DataObject) -> None:
    """To the same lengths in another order, some of them joined, one of them left open."""
    tensor = numbered(shape)
    lengths = data.draw(st.permutations(shape))
    cut = data.draw(st.integers(0, len(lengths)))
    target = [int(np.prod(lengths[:cut])), *lengths[cut:]]
    if data.draw(st.booleans()):
        target[data.draw(st.integers(0, len(target) - 1))] = -1
    assert_does(reshape(*target), [tensor], tensor.reshape(target))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(shape=shapes, target=st.lists(st.integers(-2, 6).filter(bool), max_size=4))
def test_reshape_accepts_what_torch_accepts(shape: tuple[int, ...], target: list[int]) -> None:
    try:
        wanted = numbered(shape).reshape(target)
    except RuntimeError:
        with pytest.raises(UsageError, match=r"does not suit|must be a whole number|more than one length open"):
            reshape(*target).spec([TensorSpec(shape, F32)])
    else:
        assert_does(reshape(*target), [numbered(shape)], wanted)


def test_reshape_to_0_keeps_the_length_that_this_axis_had() -> None:
    tensor = numbered((5, 3, 4))
    assert_does(reshape(0, -1), [tensor], tensor.flatten(1))
    assert_does(reshape(0, 0, 2, 2), [tensor], tensor.unflatten(2, (2, 2)))
    assert_does(reshape(0, 1, 0, -1), [numbered((5, 1, 4))], numbered((5, 1, 4, 1)))
    assert_does(reshape(0, 0), [numbered((0, 3))], numbered((0, 3)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(out=st.integers(1, 4), into=st.integers(1, 4), side=st.integers(1, 4))
def test_a_chain_is_one_op_after_another(out: int, into: int, side: int) -> None:
    """As a sparse convolution's kernel becomes a dense one's: utils.py of facebookresearch/ConvNeXt-V2."""
    kernel = numbered((side * side, into, out))
    op = chain(permute(2, 1, 0), reshape(0, 0, side, side), permute(0, 1, 3, 2))
    wanted = kernel.permute(2, 1, 0).reshape(out, into, side, side).transpose(3, 2)
    assert_does(op, [kernel], wanted)
    assert chain(permute(1, 0)) == permute(1, 0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(shape=shapes.filter(lambda shape: shape and 0 not in shape), data=st.data())
def test_one_op_after_another(shape: tuple[int, ...], data: st.DataObject) -> None:
    axes = data.draw(st.permutations(range(len(shape))))
    parts = [numbered(shape), numbered(shape, 1000)]
    joined = compose(permute(*axes), [(concat(0), len(parts))])
    op = compose(reshape(-1), [(joined, len(parts))])
    assert op is not None
    assert_does(op, parts, torch.cat(parts).permute(axes).reshape(-1))


def test_parts_are_made_first_each_from_its_own_tensors() -> None:
    parts = [numbered((2, 6)), numbered((2, 3), 100), numbered((2, 3), 200), numbered((6, 1), 300)]
    op = compose(concat(0), [(None, 1), (concat(1), 2), (permute(1, 0), 1)])
    assert op is not None
    assert_does(op, parts, torch.cat([parts[0], torch.cat(parts[1:3], 1), parts[3].T]))


def test_what_changes_nothing_is_no_op() -> None:
    assert compose(None, [(None, 1)]) is None
    assert compose(None, [(concat(0), 2)]) == concat(0)
    assert compose(concat(0), [(None, 1), (None, 1)]) == concat(0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(before=st.integers(1, 3), channels=st.integers(1, 4), order=st.permutations(range(4)))
def test_regroup_interleaves_blocks(before: int, channels: int, order: list[int]) -> None:
    tensor = numbered((before, 4 * channels))
    wanted = tensor.reshape(before, 4, channels)[:, order].transpose(1, 2).reshape(before, -1)
    assert_does(regroup(1, order), [tensor], wanted)
    assert_does(regroup(0, order), [tensor[0]], wanted[0])
    assert_does(regroup(1, order, back=True), [wanted], tensor)
    assert_does(regroup(0, order, back=True), [wanted[0]], tensor[0])


def test_regroup_there_and_back_changes_nothing_and_is_no_op() -> None:
    there, back = regroup(1, (2, 0, 1)), regroup(1, (2, 0, 1), back=True)
    assert compose(there, [(back, 1)]) is None
    assert compose(back, [(there, 1)]) is None
    other = compose(there, [(regroup(0, (2, 0, 1), back=True), 1)])
    assert str(other) == "regroup(axis=0, order=(2, 0, 1), back=True), regroup(axis=1, order=(2, 0, 1))"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 3, 3)], ids=str)
def test_scale_multiplies_rows_as_torch_does(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(s, generator=generator).to(dtype) for s in (shape, shape[:1])]
    wanted = parts[0] * parts[1].reshape(-1, *(1,) * (len(shape) - 1))
    arrays = [p.view(torch.uint16).numpy() if dtype == torch.bfloat16 else p.numpy() for p in parts]
    found = torch.from_numpy(scale().apply(arrays)).view(dtype)
    assert torch.equal(found, wanted)
    known = DTYPES[str(dtype).removeprefix("torch.")]
    assert scale().spec([TensorSpec(tuple(p.shape), known) for p in parts]) == TensorSpec(shape, known)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("row", [0, 2])
def test_add_row_adds_as_torch_does(row: int, dtype: torch.dtype) -> None:
    """As timm's `_convert_dinov2` adds the class token's position to it."""
    generator = torch.Generator().manual_seed(0)
    first, table = (torch.randn(s, generator=generator).to(dtype) for s in ((1, 2, 7), (1, 5, 7)))
    wanted = first + table[:, row]
    arrays = [p.view(torch.uint16).numpy() if dtype == torch.bfloat16 else p.numpy() for p in (first, table)]
    found = torch.from_numpy(add_row(row).apply(arrays)).view(dtype)
    assert torch.equal(found, wanted)
    known = DTYPES[str(dtype).removeprefix("torch.")]
    parts = [TensorSpec(tuple(p.shape), known) for p in (first, table)]
    assert add_row(row).spec(parts) == TensorSpec((1, 2, 7), known)


def test_a_row_of_another_type_is_not_added() -> None:
    with pytest.raises(OpError, match=r"add row 0 cannot add float16 \[1, 2, 3\] to float32 \[1, 1, 3\]"):
        add_row(0).spec([TensorSpec((1, 1, 3), F32), TensorSpec((1, 2, 3), DTYPES["float16"])])


def test_numbers_that_are_none_scale_nothing() -> None:
    with pytest.raises(UnreadableError, match="NaN or infinite"):
        scale().apply([np.ones((2, 2), "<f4"), np.array([1, np.nan], "<f4")])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(5,), (5, 3)], ids=str)
def test_apart_puts_zeros_between_as_beits_attention_does(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    query, value = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    arrays = [p.view(torch.uint16).numpy() if dtype == torch.bfloat16 else p.numpy() for p in (query, value)]
    found = torch.from_numpy(concat_with_zeros().apply(arrays)).view(dtype)
    assert torch.equal(found, torch.cat((query, torch.zeros_like(value), value)))
    known = DTYPES[str(dtype).removeprefix("torch.")]
    assert concat_with_zeros().spec([TensorSpec(shape, known)] * 2) == TensorSpec(tuple(found.shape), known)


@pytest.mark.parametrize("dtype", DTYPES)
def test_elements_of_any_size_are_moved_unseen(dtype: str) -> None:
    size = DTYPES[dtype].itemsize
    array = np.random.default_rng(0).integers(0, 256, (3, 4 * size), dtype=np.uint8).view(f"V{size}")
    for op, wanted in (
        (concat(1), np.concatenate([array, array], 1)),
        (permute(1, 0), array.T),
        (reshape(2, -1), array.reshape(2, 6)),
        (chunk(0, 2, 3), array[2:]),
        (chunk(1, 1, 2), array[:, 2:]),
    ):
        parts = [array] * 2 if isinstance(op, Concat) else [array]
        assert op.apply(parts).tobytes() == wanted.tobytes()
        assert op.spec([TensorSpec((3, 4), DTYPES[dtype])] * len(parts)) == TensorSpec(wanted.shape, DTYPES[dtype])


@pytest.mark.parametrize(
    ("op", "specs", "message"),
    [
        (concat(2), [(2, 3), (2, 3)], "concat(axis=2) needs a tensor with more axes than float32 [2, 3]"),
        (concat(0), [(), ()], "concat(axis=0) needs a tensor with more axes than float32 []"),
        (concat(0), [(2, 3), (2, 4)], "concat(axis=0) cannot join float32 [2, 3] and float32 [2, 4]"),
        (concat(0), [(2,), (2, 1)], "concat(axis=0) cannot join float32 [2] and float32 [2, 1]"),
        (permute(0, 1), [(2, 3, 4)], "permute(0, 1) does not suit float32 [2, 3, 4]"),
        (reshape(4), [(2, 3)], "reshape(4) does not suit float32 [2, 3]"),
        (reshape(4, -1), [(2, 3)], "reshape(4, -1) does not suit float32 [2, 3]"),
        (reshape(0, -1), [(0, 2)], "reshape(0, -1) does not suit float32 [0, 2]"),
        (reshape(-1, 0, 0), [(2, 3)], "reshape(-1, 0, 0) does not suit float32 [2, 3]"),
        (regroup(0, (1, 0)), [(3,)], "regroup(axis=0, order=(1, 0)) does not suit float32 [3]"),
        (regroup(1, (1, 0)), [(4,)], "regroup(axis=1, order=(1, 0)) does not suit float32 [4]"),
        (take(1, 1), [(2, 1)], "take 1 to the end of axis 1 does not suit float32 [2, 1]"),
        (take(0, 1, 4), [(3,)], "take 1 to 4 of axis 0 does not suit float32 [3]"),
        (take(2, 0), [(3, 2)], "take 0 to the end of axis 2 does not suit float32 [3, 2]"),
        (add_row(0), [(1, 1, 4)], "add row 0 does not suit float32 [1, 1, 4]"),
        (add_row(0), [(1, 1, 4), (5, 4)], "add row 0 does not suit float32 [1, 1, 4] and float32 [5, 4]"),
        (add_row(0), [(1, 1, 4), (1, 5, 3)], "add row 0 does not suit float32 [1, 1, 4] and float32 [1, 5, 3]"),
        (add_row(0), [(1, 1, 4), (2, 5, 4)], "add row 0 does not suit float32 [1, 1, 4] and float32 [2, 5, 4]"),
        (add_row(5), [(1, 1, 4), (1, 5, 4)], "add row 5: float32 [1, 5, 4] does not have it"),
        (scale(), [(3, 2), (2,)], "scale the rows does not suit float32 [3, 2] and float32 [2]"),
        (scale(), [(3, 2)], "scale the rows does not suit float32 [3, 2]"),
        (concat_with_zeros(), [(2,), (3,)], "concat with zeros between does not suit float32 [2] and float32 [3]"),
        (concat_with_zeros(), [(), ()], "concat with zeros between does not suit float32 [] and float32 []"),
        (
            concat_with_zeros(),
            [(2,)] * 3,
            "concat with zeros between does not suit float32 [2] and float32 [2] and float32 [2]",
        ),
        (chunk(0, 0, 2), [(3,)], "chunk(axis=0, index=0, of=2) does not suit float32 [3]"),
        (chunk(1, 0, 2), [(4,)], "chunk(axis=1, index=0, of=2) does not suit float32 [4]"),
        (Composed(permute(1, 0), (concat(0),), (2,)), [(2,), (3,)], "permute(1, 0) does not suit float32 [5]"),
    ],
)
def test_what_does_not_suit_is_refused(op: Op, specs: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(OpError) as caught:
        op.spec([TensorSpec(shape, F32) for shape in specs])
    assert caught.value.message == message


def test_only_tensors_of_one_type_are_joined() -> None:
    with pytest.raises(OpError, match=r"cannot join float32 \[2\] and float16 \[2\]"):
        concat(0).spec([TensorSpec((2,), F32), TensorSpec((2,), DTYPES["float16"])])


# Casting ----------------------------------------------------------------------------------------------------------

CASTABLE = {"float16": "<u2", "bfloat16": "<u2", "float32": "<u4", "float64": "<u8"}
PAIRS = [*itertools.product(CASTABLE, CASTABLE)]


def patterns(source: str) -> Array:
    """Bit patterns of a type: all of 16 bits; else random ones, and the numbers at and around the ties of rounding."""
    bits = CASTABLE[source]
    if bits == "<u2":
        return np.arange(1 << 16, dtype=bits)
    kind = "<f4" if source == "float32" else "<f8"
    drawn = np.frombuffer(np.random.default_rng(0).bytes(1 << 20), bits)
    halves = np.arange(1 << 16, dtype="<u2").view("<f2")
    brains = (np.arange(1 << 16, dtype="<u4") << 16).view("<f4")
    grids = [np.unique(grid[np.isfinite(grid)]).astype("<f8") for grid in (halves, brains)]
    singles = np.random.default_rng(1).standard_normal(1 << 15, "<f4")
    ties = [(grid[1:] + grid[:-1]) / 2 for grid in grids]
    ties.append((singles.astype("<f8") + np.nextafter(singles, np.float32(9))) / 2)
    edges = np.array([0, 65519.99, 65520, 3.3895e38, 3.4028236e38, 3.5e38, 2**-25, 2**-149, 2**-150, 5e-324, np.inf])
    with np.errstate(over="ignore"):
        numbers = np.concatenate([*grids, *ties, edges, -edges]).astype(kind)
    below, above = (np.nextafter(numbers, np.array(end, kind)) for end in (-np.inf, np.inf))
    return np.concatenate([drawn, *(array.view(bits) for array in (numbers, below, above))])


def as_array(bits: Array, dtype: str) -> Array:
    """As the reader gives it: bfloat16 as uint16."""
    return bits.view(DTYPES[dtype].numpy or bits.dtype)


def as_tensor(bits: Array, dtype: str) -> torch.Tensor:
    return torch.from_numpy(bits.view(np.uint8).copy()).view(getattr(torch, dtype))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_cast_rounds_as_torch_does(source: str, target: str) -> None:
    bits = patterns(source)
    wanted = as_tensor(bits, source).to(getattr(torch, target))
    found = Cast(DTYPES[source], DTYPES[target]).apply([as_array(bits, source)])
    assert found.dtype.itemsize == DTYPES[target].itemsize
    found_bits = found.view(CASTABLE[target])
    wanted_bits = np.frombuffer(wanted.view(torch.uint8).numpy().tobytes(), CASTABLE[target])
    nan = wanted.isnan().numpy()
    assert np.array_equal(as_tensor(found_bits, target).isnan().numpy(), nan)
    assert nan.any()
    differ = (found_bits != wanted_bits) & ~nan
    assert not differ.any(), [hex(b) for b in bits[differ][:5]]


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 3), (3, 1, 2)])
def test_cast_keeps_the_shape(shape: tuple[int, ...], source: str, target: str) -> None:
    op = cast(DTYPES[source], target)
    found = op.apply([as_array(np.ones(shape, CASTABLE[source]), source)])
    assert op.spec([TensorSpec(shape, DTYPES[source])]) == TensorSpec(shape, DTYPES[target])
    assert found.shape == shape
    assert len(found.tobytes()) == TensorSpec(shape, DTYPES[target]).nbytes


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - set(CASTABLE)))
def test_other_types_are_not_cast(dtype: str) -> None:
    for source, target in ((dtype, "float32"), ("float32", dtype)):
        with pytest.raises(OpError, match=f"tensors of type {dtype} cannot be cast"):
            cast(DTYPES[source], target)


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(OpError) as caught:
        cast(F32, "fp16")
    assert str(caught.value) == (
        "there is no element type 'fp16'\nTypes that can be cast to: float16, bfloat16, float32, float64."
    )


def test_a_cast_is_for_the_type_it_was_made_for() -> None:
    with pytest.raises(OpError, match="int64"):
        cast(F32, "float16").spec([TensorSpec((2,), DTYPES["int64"])])


def test_ops_are_equal_by_value_and_print_as_they_are_written() -> None:
    assert [concat(0), permute(1, 0), reshape(2, -1)] == [Concat(0), Permute((1, 0)), Reshape((2, -1))]
    assert str(compose(reshape(2, -1), [(concat(0), 2)])) == "concat(axis=0), reshape(2, -1)"
    assert str(chain(permute(1, 0), reshape(0, 1), permute(0, 1))) == "permute(1, 0), reshape(0, 1), permute(0, 1)"
    assert str(cast(F32, "float16")) == "cast to float16"
