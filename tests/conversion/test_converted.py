"""What is read of a converted file: section, origin, network; and what a file that says something false gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ckptconv
from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.backbones.resnet import ResNet
from ckptconv.backbones.swin import Swin
from ckptconv.conversion.converted import Converted
from ckptconv.errors import VerdictError
from ckptconv.formats import open_checkpoint
from tests.support import official

SWIN = Swin(96, 384, (2, 2, 6, 2), (3, 6, 12, 24), (7, 7, 7, 7))
MEMBERS: dict[str, Backbone] = {
    "ResNet": ResNet((2, 2, 2, 2), False, 64, 64, 64, 1, 7, 3),
    "Swin": SWIN,
    "ConvNeXt": ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768), False, True, True, 4, 3),
}


def read(path: Path) -> Converted:
    with open_checkpoint(path) as checkpoint:
        return Converted.read(checkpoint)


def source(folder: Path, backbone: Backbone) -> Path:
    """A file with the family's canonical names."""
    state = {
        name: torch.tensor(0) if name.endswith("tracked") else torch.zeros(shape)
        for name, shape in backbone.entries().items()
    }
    torch.save(state, folder / "raw.pth")
    return folder / "raw.pth"


WRITTEN = {("Swin", "mmdet"): replace(SWIN, final_norm=False)}
"""What a target has another network for: MMDetection's Swin has no final norm."""
METHODS = {"ResNet": "torchvision", "Swin": "swin", "ConvNeXt": "convnext"}
"""The method of each family's canonical names."""


@pytest.mark.parametrize(
    ("family", "target", "suffix"),
    [
        (family, target, suffix)
        for family in MEMBERS
        for target in FAMILIES[family].targets
        for suffix in ("pth", "safetensors")
        if (target, suffix) != ("detectron2", "safetensors")  # its loader looks under a key of a torch file
    ],
)
def test_the_network_is_read_back_from_every_targets_names(tmp_path, family, target, suffix):
    member, method = MEMBERS[family], METHODS[family]
    path = tmp_path / f"converted.{suffix}"
    ckptconv.convert(source(tmp_path, member), path, method, target=target)
    converted = read(path)
    assert converted.origin is not None
    assert (converted.origin.method, converted.origin.target, converted.error) == (method, target, None)
    assert converted.backbone == WRITTEN.get((family, target), member)
    assert converted.dialect == member.dialect(target)
    assert converted.fresh == member.dialect(target).fresh
    section = "" if suffix == "safetensors" else member.dialect(target).section
    assert converted.section == section


@pytest.mark.parametrize(
    ("content", "section"), [({"state_dict": {"a": 0}}, "state_dict"), ({"model": {"a": 0}}, ""), ({"a": 0}, "")]
)
def test_a_file_that_ckptconv_did_not_write_has_a_section_alone(tmp_path, content, section):
    def tensors(node):
        return {key: tensors(value) if isinstance(value, dict) else torch.zeros(2) for key, value in node.items()}

    torch.save(tensors(content), tmp_path / "raw.pth")
    assert read(tmp_path / "raw.pth") == Converted(section)


def test_names_that_are_not_a_networks_are_an_error_to_whoever_needs_the_network(tmp_path):
    ckptconv.convert(source(tmp_path, MEMBERS["ResNet"]), tmp_path / "r.pth", "torchvision")
    saved = torch.load(tmp_path / "r.pth", weights_only=True)
    del saved["state_dict"]["layer1.0.conv1.weight"]
    torch.save(saved, tmp_path / "r.pth")
    converted = read(tmp_path / "r.pth")
    assert converted.origin is not None
    assert (converted.backbone, converted.fresh) == (None, ())
    assert isinstance(converted.error, VerdictError)


def test_a_swin_v2_for_timm_is_read_back_though_no_tensor_tells_its_windows(tmp_path: Path) -> None:
    ckptconv.convert(official.network("simmim_swinv2").write(tmp_path), tmp_path / "swin.pth", target="timm")
    found = read(tmp_path / "swin.pth")
    assert found.error is None
    assert found.backbone is not None
    assert found.backbone.name == "SwinV2-1-1-2-2, 32 channels"
    assert found.origin is not None
    assert found.origin.timm is not None
    assert found.origin.timm.arguments["window_size"] == [6, 6, 6, 3]
