"""Statistics from the bytes of a tensor, in chunks of any size, are those that torch computes in float64."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from ckptconv.conversion.statistics import MEASURED, RunningStatistics, TensorStatistics  # noqa: E402
from ckptconv.spec import DTYPES  # noqa: E402

pytestmark = pytest.mark.torch


def taken(values: torch.Tensor, chunk: int) -> TensorStatistics | None:
    data = values.contiguous().view(torch.uint8).numpy().tobytes() if values.numel() else b""
    running = RunningStatistics(DTYPES[str(values.dtype).removeprefix("torch.")])
    for at in range(0, len(data), chunk):
        running.add(data[at : at + chunk])
    return running.statistics()


def wanted(values: torch.Tensor) -> TensorStatistics:
    exact = values.double().flatten()
    finite = exact[exact.isfinite()]
    return TensorStatistics(
        finite.numel(),
        float(finite.mean()),
        float(finite.std(correction=0)),
        float(finite.min()),
        float(finite.max()),
        int(exact.isnan().sum()),
        int(exact.isinf().sum()),
    )


def close(found: TensorStatistics, expected: TensorStatistics) -> None:
    exact = ("count", "least", "most", "nan", "inf")
    assert [getattr(found, name) for name in exact] == [getattr(expected, name) for name in exact]
    scale = max(abs(expected.least), abs(expected.most))
    assert found.mean == pytest.approx(expected.mean, rel=1e-5, abs=1e-6 * scale)
    assert found.std == pytest.approx(expected.std, rel=1e-4, abs=1e-6 * scale)


@pytest.mark.parametrize("chunk", [1, 7, 4096, 1 << 18])
@pytest.mark.parametrize("dtype", MEASURED)
def test_they_are_those_of_torch(dtype, chunk):
    generator = torch.Generator().manual_seed(1)
    values = (torch.randn(3000, generator=generator) * 0.03 + 1).to(getattr(torch, dtype))
    found = taken(values, chunk)
    close(found, wanted(values))
    assert found.norm == pytest.approx(float(values.double().norm()), rel=1e-5)
    assert found.finite
    assert not found.constant


@pytest.mark.parametrize("dtype", MEASURED)
def test_what_is_not_finite_is_counted_and_left_out(dtype):
    values = torch.tensor([1.0, math.nan, 2.0, math.inf, -math.inf, math.nan, 4.0]).to(getattr(torch, dtype))
    found = taken(values, 5)
    close(found, wanted(values))
    assert (found.nan, found.inf, found.finite) == (2, 2, False)


@pytest.mark.parametrize("chunk", [8, 64])
def test_squares_that_are_too_large_are_no_error(chunk):
    found = taken(torch.tensor([1e200, -3e250, 5.0], dtype=torch.float64), chunk)
    assert (found.least, found.most, found.finite) == (-3e250, 1e200, True)
    assert not math.isfinite(found.std)
    assert not math.isfinite(found.norm)


def test_nothing_finite_at_all():
    found = taken(torch.full((9,), math.nan), 8)
    assert (found.count, found.nan, found.finite, found.constant) == (0, 9, False, False)


@pytest.mark.parametrize(("value", "count"), [(0.0, 9), (1.0, 2), (-3.5, 100_000)])
def test_a_constant_has_no_spread(value, count):
    found = taken(torch.full((count,), value), 1 << 10)
    assert found.constant
    assert (found.least, found.std) == (value, 0.0)
    assert not taken(torch.full((1,), value), 4).constant


def test_a_small_spread_around_a_large_mean_is_kept():
    generator = torch.Generator().manual_seed(2)
    values = 1000 + torch.randn(50_000, generator=generator) * 0.1
    assert taken(values, 1 << 12).std == pytest.approx(float(values.double().std(correction=0)), rel=1e-3)


@given(
    st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1, max_size=40),
    st.integers(1, 64),
)
def test_any_numbers_in_any_chunks(values, chunk):
    tensor = torch.tensor(values, dtype=torch.float32)
    close(taken(tensor, chunk), wanted(tensor))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_other_types_have_none(dtype):
    assert taken(torch.ones(5).to(dtype), 4) is None


def test_a_tensor_without_numbers_has_none():
    assert taken(torch.empty(0), 4) is None
