"""`ckptconv.prove`: modules of timm, torchvision, transformers and mmengine after their own loading, and the file."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import ckptconv
from ckptconv import guide
from ckptconv.errors import ProofError, UsageError
from tests.support import official, pretrain

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.mmdet]  # timm and torchvision come with its packages


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    """A converted ViT of DINO with made numbers, for timm."""
    folder = tmp_path_factory.mktemp("vit")
    network = official.network("dino_vit")
    ckptconv.convert(network.write(folder), folder / "vit.pth", network.method, target="timm")
    return folder / "vit.pth"


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> Path:
    """A converted ResNet-18 of MoCo with made numbers, for torchvision."""
    folder = tmp_path_factory.mktemp("resnet")
    network = official.network("moco_resnet18")
    ckptconv.convert(network.write(folder), folder / "r18.pth", network.method, target="torchvision")
    return folder / "r18.pth"


def weights(file: Path) -> dict[str, torch.Tensor]:
    loaded = torch.load(file, weights_only=True)
    return dict(loaded.get("state_dict", loaded))


def timm_vit() -> nn.Module:
    create = pretrain.module("timm").create_model
    made: nn.Module = create("vit_base_patch16_224", embed_dim=128, depth=3, num_heads=2, num_classes=0)
    return made


def torchvision_r18() -> nn.Module:
    made: nn.Module = pretrain.module("torchvision.models").resnet18()
    return made


def test_timm_after_its_own_loading(vit):
    model = timm_vit()
    assert not ckptconv.prove(model, vit).equal
    model.load_state_dict(weights(vit))
    proof = ckptconv.prove(model, vit, strict=True)
    assert (proof.proved, len(proof.equal), proof.total) == (True, len(weights(vit)), len(weights(vit)))
    assert str(proof) == f"{proof.total}/{proof.total} tensors of the file are in the module, equal"


def test_one_other_number_is_named(vit):
    model = timm_vit()
    model.load_state_dict(weights(vit))
    with torch.no_grad():
        model.blocks[1].mlp.fc2.bias[3] += 1e-6
    proof = ckptconv.prove(model, vit)
    assert not proof.proved
    assert proof.differing == ("blocks.1.mlp.fc2.bias",)
    with pytest.raises(ProofError, match=r"1 with other numbers: blocks\.1\.mlp\.fc2\.bias"):
        ckptconv.prove(model, vit, strict=True)


def test_a_head_that_the_file_does_not_have_is_listed_and_can_be_allowed(resnet):
    model = torchvision_r18()
    model.load_state_dict(weights(resnet), strict=False)
    proof = ckptconv.prove(model, resnet)
    assert proof.proved
    assert proof.not_in_file == ("fc.weight", "fc.bias")
    with pytest.raises(ProofError, match=r"2 in the module only: fc\.weight, fc\.bias"):
        ckptconv.prove(model, resnet, strict=True)
    ckptconv.prove(model, resnet, strict=True, ignore=["fc.{x}"])


def test_a_backbone_inside_a_detector_of_any_framework(resnet):
    inner = torchvision_r18()
    inner.load_state_dict(weights(resnet), strict=False)
    detector = nn.ModuleDict({"body": inner, "head": nn.Linear(4, 4)})
    proof = ckptconv.prove(detector, resnet)
    assert proof.proved
    assert set(proof.not_in_file) == {"body.fc.weight", "body.fc.bias", "head.weight", "head.bias"}
    assert all(name.startswith("body.") for name in proof.equal)


class Renamed(nn.Module):
    """Two layers under names that no file has."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.one, self.two = vit.blocks[0].attn.qkv, vit.blocks[0].attn.proj


def test_other_names_are_found_by_their_numbers_and_what_is_left_is_named(vit):
    model = timm_vit()
    model.load_state_dict(weights(vit))
    proof = ckptconv.prove(Renamed(model), vit)
    assert proof.by_value
    assert set(proof.equal) == {"one.weight", "one.bias", "two.weight", "two.bias"}
    assert not proof.proved
    assert "blocks.1.attn.qkv.weight" in proof.not_in_module


class FirstBlock(nn.Module):
    """One block of the file's network, under a name that the file does not have."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.layer = vit.blocks[0]


def test_a_part_of_the_network_under_other_names_is_not_the_file(vit):
    model = timm_vit()
    model.load_state_dict(weights(vit))
    proof = ckptconv.prove(FirstBlock(model), vit)
    assert len(proof.equal) == len(model.blocks[0].state_dict())
    assert not proof.proved
    assert {"pos_embed", "blocks.1.attn.qkv.weight"} <= set(proof.not_in_module)


def test_mmengine_loads_nothing_of_a_raw_file_and_goes_on(tmp_path):
    """What its log calls loaded: no name of MoCo's file is a ResNet's, and no error is raised."""
    from mmengine.runner import load_checkpoint

    network = official.network("moco_resnet18")
    raw = network.write(tmp_path)
    model = torchvision_r18()
    load_checkpoint(model, str(raw), map_location="cpu", strict=False)
    converted = tmp_path / "r18.pth"
    ckptconv.convert(raw, converted, network.method, target="torchvision")
    proof = ckptconv.prove(model, converted)
    assert not proof.proved
    trained = [name for name in proof.equal if name.endswith("conv1.weight")]
    assert trained == []
    load_checkpoint(model, str(converted), map_location="cpu", strict=False)
    assert ckptconv.prove(model, converted).proved


def test_half_precision_is_compared_in_its_own_type(vit):
    model = timm_vit()
    model.load_state_dict(weights(vit))
    assert ckptconv.prove(model.half(), vit).proved


def page_code() -> str:
    (code,) = re.findall(r"^```py\n(.*?)^```$", guide.topic("check").text(), re.M | re.S)
    return str(code)


def raw_and_converted(folder: Path) -> None:
    network = official.network("moco_resnet18")
    raw = network.write(folder)
    ckptconv.convert(raw, folder / "r18.pth", network.method, target="timm")
    raw.rename(folder / "raw.pth")


def test_the_page_on_check_shows_the_line_for_a_trainer(tmp_path, monkeypatch):
    raw_and_converted(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "timm", pretrain.module("timm"))
    made: dict[str, Any] = {}
    exec(page_code(), made)
    assert ckptconv.prove(made["model"], "r18.pth").proved
    wrong = page_code().replace('torch.load("r18.pth"', 'torch.load("raw.pth"')
    with pytest.raises(ProofError, match=r"the module does not hold r18\.pth"):
        exec(wrong, made)


def load_if_asked(model: nn.Module, file: Path, pretrained: bool) -> None:
    """As lightly-train before 0.14.3 gives its detectors a DINOv3: a file without `pretrained`, which it sets to False.

    Its `DINOv3LTDETRObjectDetection`, run with version 0.14.2 and a made file: 13 of 188 tensors, masks and periods.
    """
    if pretrained:
        model.load_state_dict(weights(file))


def load_what_fits(model: nn.Module, file: Path) -> None:
    """As many trainers do: names that do not fit are skipped, and the number of those read is logged."""
    state = {f"backbone.{name}": value for name, value in weights(file).items()}
    model.load_state_dict(state, strict=False)


@pytest.mark.parametrize("load", [lambda model, file: load_if_asked(model, file, False), load_what_fits])
def test_a_trainer_that_loads_nothing_says_no_word_and_prove_does(load, vit):
    model = timm_vit()
    load(model, vit)
    proof = ckptconv.prove(model, vit)
    assert (proof.equal, proof.proved, proof.total) == ((), False, len(weights(vit)))
    assert str(proof).startswith(f"0/{proof.total} tensors of the file are in the module, equal\n")
    with pytest.raises(ProofError):
        ckptconv.prove(model, vit, strict=True)


def test_transformers_after_its_own_loading(tmp_path):
    """`from_pretrained` of a file with names that it does not know warns, and gives a model."""
    network = official.network("dinov2_vit_swiglu")
    converted = tmp_path / "model.safetensors"
    ckptconv.convert(network.write(tmp_path), converted, network.method, target="transformers")
    with safe_open(converted, "pt") as file:
        said = json.loads(file.metadata()["ckptconv"])["transformers"]
    built = getattr(pretrain.transformers(), said["class"])
    built.config_class(**said["config"]).save_pretrained(tmp_path)
    proof = ckptconv.prove(built.from_pretrained(tmp_path), converted, strict=True)
    assert len(proof.equal) == proof.total
    (other := tmp_path / "other").mkdir()
    built.config_class(**said["config"]).save_pretrained(other)
    save_file({f"model.{k}": v for k, v in load_file(converted).items()}, other / "model.safetensors", {"format": "pt"})
    assert not ckptconv.prove(built.from_pretrained(other), converted).equal


def test_what_is_not_a_file(tmp_path):
    with pytest.raises(UsageError) as caught:
        ckptconv.prove(nn.Linear(1, 1), tmp_path / "missing.pth")
    assert caught.value.message == f"{tmp_path / 'missing.pth'} is not a file"
    assert caught.value.hint == "Give the checkpoint that the module was loaded from."
