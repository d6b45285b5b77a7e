"""Where the state dicts of a checkpoint lie, in trees of any make."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptconv.errors import UnreadableError
from ckptconv.sections import find_sections, kind_of, section_at
from ckptconv.spec import DTYPES, Section, TensorSpec

VECTOR = TensorSpec((2,), DTYPES["float32"])


@dataclass
class Tensor:
    spec: TensorSpec = VECTOR


@dataclass
class StandIn:
    kind: str


def spec_of(value: object) -> TensorSpec | None:
    return value.spec if isinstance(value, Tensor) else None


def find(tree: object) -> dict[str, Section]:
    return find_sections(tree, spec_of)


T = Tensor()


@pytest.mark.parametrize(
    ("tree", "sections"),
    [
        ({}, {}),
        (None, {}),
        (T, {}),
        ([T, T], {}),
        ({"epoch": 3}, {}),
        ({"w": T}, {"": ({"w"}, {})}),
        ({"w": T, "epoch": 3}, {"": ({"w"}, {"epoch": "int"})}),
        ({"model": {"w": T}}, {"model": ({"w"}, {})}),
        ({"a": {"b": {"c": {"w": T}}}}, {"a.b.c": ({"w"}, {})}),
        ({"models": [{"w": T}, {"v": T}]}, {"models.0": ({"w"}, {}), "models.1": ({"v"}, {})}),
        ({"pair": ({"w": T},)}, {"pair.0": ({"w"}, {})}),
        ({"net.v1": {"a.w": T}}, {"net.v1": ({"a.w"}, {})}),
        ({"state": {0: {"exp_avg": T}}}, {"state.0": ({"exp_avg"}, {})}),
        ({0: T, "w": T}, {"": ({"w"}, {"0": "Tensor"})}),
        ({"s": OrderedDict(w=T, config={"a": 1})}, {"s": ({"w"}, {"config": "dict"})}),
        ({"a": {"w": T}, "b": T}, {"": ({"b"}, {"a": "dict"}), "a": ({"w"}, {})}),
        ({"a": {"b": {"w": T}}, "a.b": {"v": T}}, {"a.b": ({"v"}, {}), "a.b'": ({"w"}, {})}),
        ({"opt": {"groups": [{"params": [T]}]}, "w": T}, {"": ({"w"}, {"opt": "dict"})}),
    ],
)
def test_sections_are_mappings_that_hold_tensors_directly(tree: object, sections: dict[str, Any]) -> None:
    assert {path: (set(s.tensors), dict(s.others)) for path, s in find(tree).items()} == sections


def test_the_outermost_come_first_and_names_keep_their_order() -> None:
    tree = {"deep": {"er": {"z": T, "a": T}}, "flat": {"w": T}, "w": T}
    assert list(find(tree)) == ["", "flat", "deep.er"]
    assert list(find(tree)["deep.er"].tensors) == ["z", "a"]


@pytest.mark.parametrize(
    ("path", "tensors", "others"),
    [
        ("...", ["w", "a.b.v", "a.c.0.v", "a.c.1.x.y.w", "ab.v"], {"epoch": "int", "a.b.n": "int"}),
        ("a...", ["b.v", "c.0.v", "c.1.x.y.w"], {"b.n": "int"}),
        ("a.c...", ["0.v", "1.x.y.w"], {}),
        ("a.b...", ["v"], {"n": "int"}),
    ],
)
def test_all_that_lies_below_a_path_is_one_section(path: str, tensors: list[str], others: dict[str, str]) -> None:
    tree = {"a": {"b": {"v": T, "n": 3}, "c": [{"v": T}, {"x/y": {"w": T}}]}, "ab": {"v": T}, "w": T, "epoch": 3}
    section = section_at(find(tree), path)
    assert section is not None
    assert (set(section.tensors), section.others) == (set(tensors), others)
    assert set(section.node) == {*tensors}
    assert all(isinstance(value, Tensor) for value in section.node.values())


@pytest.mark.parametrize("path", ["a", "x", "x...", "a.b.v...", "w..."])
def test_where_nothing_lies_there_is_no_section(path: str) -> None:
    assert section_at(find({"a": {"b": {"v": T}}, "w": T}), path) is None


def test_names_that_become_alike_stay_two() -> None:
    section = section_at(find({"a": {"b/c": {"v": T}, "b": {"c": {"v": T}}}}), "a...")
    assert section is not None
    assert set(section.tensors) == {"b.c.v", "b.c.v'"}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({}, "dict"),
        ([], "list"),
        (1.5, "float"),
        (None, "NoneType"),
        ("text", "str"),
        (argparse.Namespace(), "Namespace"),
        (argparse.Namespace(kind=3), "Namespace"),
        (StandIn("argparse.Namespace"), "argparse.Namespace"),
    ],
)
def test_what_is_no_tensor_is_called_what_it_is(value: object, kind: str) -> None:
    assert kind_of(value) == kind
    assert find({"w": T, "x": value})[""].others == {"x": kind}


def loop() -> dict[str, Any]:
    tree: dict[str, Any] = {"w": T}
    tree["self"] = [tree]
    return tree


def nested(depth: int, leaf: object) -> object:
    for _ in range(depth):
        leaf = {"x": leaf}
    return leaf


def bushy() -> dict[str, Any]:
    """Twenty levels, each holding the next one twice: a few objects, a million paths."""
    tree: dict[str, Any] = {"w": T}
    for _ in range(20):
        tree = {"a": tree, "b": tree}
    return tree


@pytest.mark.parametrize("tree", [loop(), nested(30, {"w": T}), bushy()], ids=["loop", "deep", "bushy"])
def test_a_tree_without_end_is_refused(tree: object) -> None:
    with pytest.raises(UnreadableError) as caught:
        find(tree)
    assert caught.value.message == "the file nests its contents without end"
    assert caught.value.hint == "It was not written by a training script. Download it again from its source."
    assert caught.value.exit_code == 3


def test_a_tree_that_is_merely_deep_or_wide_is_read() -> None:
    assert list(find(nested(20, {"w": T}))) == [".".join("x" * 20)]
    assert len(find({"state": {i: {"exp_avg": T} for i in range(5000)}})) == 5000


_trees: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([T, 1, None, "x"]),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=20,
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(_trees)
def test_every_tensor_that_has_a_name_is_found_where_it_lies(tree: Any) -> None:
    wanted: dict[str, set[str]] = {}

    def walk(node: Any, path: str) -> None:
        pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in pairs:
            if isinstance(value, Tensor) and isinstance(node, dict):
                wanted.setdefault(path, set()).add(key)
            walk(value, f"{path}.{key}" if path else str(key))

    walk(tree, "")
    assert {path: set(section.tensors) for path, section in find(tree).items()} == wanted
