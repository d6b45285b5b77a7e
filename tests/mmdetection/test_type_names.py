"""One type in every way that a config can name it, by mmengine's own objects, and no other place that compares one."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from mmdet.models.backbones import ResNet
from mmengine.config.lazy import LazyObject
from mmengine.model.weight_init import PretrainedInit

import ckptconv.mmdetection
from ckptconv.mmdetection.type_names import PRETRAINED, has_type, type_name

pytestmark = pytest.mark.mmdet

WAYS: dict[str, Any] = {
    "name": "ResNet",
    "scope": "mmdet.ResNet",
    "path": "mmdet.models.backbones.resnet.ResNet",
    "class": ResNet,
    "lazy object": LazyObject("mmdet.models", "ResNet"),
    "lazy attribute": LazyObject(["mmdet.models.backbones"]).models.backbones.ResNet,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_type_is_known_whatever_way_it_is_written(way):
    node = {"type": WAYS[way], "depth": 50}
    assert type_name(node) == "ResNet"
    assert has_type(node, "ResNeXt", "ResNet")
    assert not has_type(node, "ResNeXt")
    assert not has_type(node, "Net")


@pytest.mark.parametrize("node", [None, {}, {"type": None}, [], "ResNet", 3])
def test_what_has_no_type_is_nothing(node):
    assert type_name(node) == ""
    assert not has_type(node, "ResNet")


@pytest.mark.parametrize("said", ["Pretrained", "mmengine.Pretrained", PretrainedInit, "mmengine.model.PretrainedInit"])
def test_the_initializer_that_loads_has_two_names(said):
    assert has_type({"type": said}, *PRETRAINED)


def _of_a_type(node: ast.expr) -> bool:
    """Whether it is ``….get("type")`` or ``…["type"]``, or is made from it."""
    inside = ast.unparse(node)
    return ".get('type'" in inside or "['type']" in inside


def test_no_other_place_compares_a_type():
    found = [
        f"{path.name}: {ast.unparse(node)}"
        for path in Path(ckptconv.mmdetection.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare) and any(map(_of_a_type, (node.left, *node.comparators)))
    ]
    assert found == ["base_config.py: backbone['type'].count('.') > 1"]  # a config in the new style
