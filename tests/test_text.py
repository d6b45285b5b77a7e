"""Long lists of names, shortened: nothing is lost, and a person can still tell what is meant."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptconv import text
from ckptconv.text import fold, size, some
from tests.support.cases import case


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        ([], []),
        (["fc.bias"], ["fc.bias"]),
        (["layer1.0.bn1.bias"], ["layer1.0.bn1.bias"]),
        (["layer1.0.bn1.bias", "layer4.2.bn3.bias"], ["layer*.*.bn*.bias"]),
        (["layer1.0.bn1.bias", "layer1.0.bn1.weight"], ["layer1.0.bn1.bias", "layer1.0.bn1.weight"]),
        (["blocks.0.norm1.weight", "blocks.11.norm1.weight"], ["blocks.*.norm1.weight"]),
        (["conv1.weight", "conv2.weight"], ["conv*.weight"]),
        (["fc1.weight", "fc2.weight"], ["fc1.weight", "fc2.weight"]),
        (["queue2", "queue"], ["queue2", "queue"]),
        (["0.weight", "1.weight"], ["*.weight"]),
        (["optimizer.state.0", "optimizer.state.12", "model"], ["optimizer.state.*", "model"]),
        (["b.1", "a.1", "b.2"], ["b.*", "a.1"]),
    ],
)
def test_names_that_differ_in_numbers_only_share_a_line(names: list[str], lines: list[str]) -> None:
    assert list(fold(names)) == lines


def test_a_resnet_fits_on_a_screen() -> None:
    names = list(case("torchvision_r18_fc").tensors)
    folded = fold(names)
    assert len(folded) < 30
    assert list(folded)[:2] == ["conv1.weight", "bn1.weight"]
    assert folded["layer*.*.conv*.weight"][-1] == "layer4.1.conv2.weight"


_names = st.lists(st.sampled_from(["layer1", "layer2", "bn1", "conv12", "0", "7", "fc1", "weight"]), min_size=1)


@settings(deadline=None, derandomize=True)
@given(st.lists(_names.map(".".join), unique=True))
def test_every_name_is_under_one_line_and_in_order(names: list[str]) -> None:
    folded = fold(names)
    assert sorted(name for group in folded.values() for name in group) == sorted(names)
    for line, group in folded.items():
        assert group == [name for name in names if name in group]
        assert ("*" in line) == (len(group) > 1)


@pytest.mark.parametrize(
    ("names", "most", "text"),
    [
        ([], 5, ""),
        (["a"], 5, "a"),
        (["a", "b", "c"], 3, "a, b, c"),
        (["a", "b", "c"], 2, "a, b and 1 more"),
        (iter(["a", "b", "c"]), 1, "a and 2 more"),
        (list("abcdefg"), 5, "a, b, c, d, e and 2 more"),
    ],
)
def test_some(names: list[str], most: int, text: str) -> None:
    assert some(names, most) == text


def test_the_doctests_of_the_module_run() -> None:
    result = doctest.testmod(text)
    assert result.attempted >= 1
    assert result.failed == 0


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (94_371_840, "94.4 MB"),
        (4 << 30, "4.3 GB"),
        (10**13, "10000.0 GB"),
    ],
)
def test_bytes_are_told_in_units_of_1000(count: int, told: str) -> None:
    assert size(count) == told
