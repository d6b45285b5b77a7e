"""Attention heads: most files do not show how many there are, and a wrong number changes every feature.

The oracle is timm's real class with the heads that it was made with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import ckptconv
from ckptconv.backbones import FAMILIES
from ckptconv.backbones.interface import TimmModel
from ckptconv.errors import UsageError
from ckptconv.mmdetection.config import checkpoint as config
from ckptconv.planning.options import Options
from tests.backbones.test_timm import build
from tests.cli.test_cli import ckptconv as command
from tests.support.pretrain import module

SIZES = {"depth": 2, "num_classes": 0, "img_size": 64}
NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "no usual number": ("vit_tiny_patch16_224", {"embed_dim": 96}, 3),
    "another than usual": ("vit_tiny_patch16_224", {"embed_dim": 192}, 12),
    "as usual": ("vit_tiny_patch16_224", {"embed_dim": 192}, 3),
    "EVA-02": ("eva02_tiny_patch14_224", {"embed_dim": 96, "img_size": 56}, 6),
    "rotary without a table": ("vit_small_patch16_dinov3_qkvb", {"embed_dim": 96}, 3),
}


def made(which: str) -> tuple[Any, int]:
    """Timm's network with random numbers, and its heads."""
    name, arguments, heads = NETWORKS[which]
    torch.manual_seed(0)
    network = module("timm").create_model(name, **{**SIZES, **arguments}, num_heads=heads).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network, heads


def said(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["ckptconv"])
    return found


def rebuilt(path: Path) -> Any:
    """The network that the file says, with the file's tensors."""
    model = said(path)["timm"]
    network = build(TimmModel(model["name"], model["arguments"])).eval()
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network.load_state_dict(state, strict=True)
    return network


@pytest.mark.mmdet
@pytest.mark.parametrize("which", NETWORKS)
def test_the_network_that_the_file_says_computes_the_same(which: str, tmp_path: Path) -> None:
    network, heads = made(which)
    torch.save(network.state_dict(), tmp_path / "source.pth")
    out = tmp_path / "out.safetensors"
    receipt = ckptconv.convert(tmp_path / "source.pth", out, "timm", num_heads=heads)
    assert receipt.plan.heads_from == "given"
    assert said(out)["backbone"]["num_heads"] == heads
    images = torch.randn(1, 3, *[network.patch_embed.img_size[0]] * 2)
    with torch.inference_mode():
        assert (rebuilt(out).forward_features(images) - network.forward_features(images)).abs().max() < 1e-5


@pytest.mark.mmdet
@pytest.mark.parametrize("which", ["no usual number", "EVA-02", "rotary without a table"])
def test_an_unknown_number_is_told_and_no_detector_is_built_with_it(which: str, tmp_path: Path) -> None:
    network, heads = made(which)
    source, out = tmp_path / "source.pth", tmp_path / "out.safetensors"
    torch.save(network.state_dict(), source)
    receipt = ckptconv.convert(source, out, "timm")
    assert receipt.plan.heads_from == "unknown"
    assert "timm" not in said(out)
    shown = command("convert", "--selfsup", "timm", source, out, "--force").stdout
    assert "\nheads     unknown: no tensor shows how many, and no published network tells." in shown
    done = command("emit-config", out)
    assert done.returncode == 2
    assert "no one knows how many attention heads" in done.stderr
    assert "--num-heads N" in done.stderr
    assert command("convert", "--selfsup", "timm", source, out, "--force", "--num-heads", heads).returncode == 0
    assert config.pretrained(str(out)).backbone.num_heads == heads  # type: ignore[attr-defined]


@pytest.mark.mmdet
def test_the_usual_number_is_told_as_an_assumption(tmp_path: Path) -> None:
    torch.save(made("as usual")[0].state_dict(), tmp_path / "source.pth")
    done = command("convert", "--selfsup", "timm", tmp_path / "source.pth", tmp_path / "out.pth")
    assert (
        "\nheads     3, as published networks of this width have: no tensor shows it. --num-heads N gives another\n"
        in done.stdout
    )
    done = command("convert", "--selfsup", "timm", tmp_path / "source.pth", tmp_path / "out.pth", "-f", "--num-heads=6")
    assert "\nheads     6, as asked: no tensor shows it\n" in done.stdout


@pytest.mark.mmdet
def test_a_number_that_no_published_network_has_is_told_as_a_guess(tmp_path: Path) -> None:
    state = module("timm").create_model("vit_tiny_patch16_224", embed_dim=128, depth=2, num_heads=4).state_dict()
    torch.save(state, tmp_path / "source.pth")
    done = command("convert", "--selfsup", "timm", tmp_path / "source.pth", tmp_path / "out.pth")
    assert (
        "\nheads     2, assumed: no tensor shows it, and no network of this width is published. If it has another "
        "number, its features are wrong: --num-heads N\n"
    ) in done.stdout
    assert ckptconv.plan(tmp_path / "source.pth", "timm").heads_from == "assumed"


@pytest.mark.mmdet
@pytest.mark.parametrize(
    ("name", "heads", "message"),
    [
        ("vit_tiny_patch16_224", 5, "`num_heads=5` does not divide the 192 channels of ViT-192x2/16"),
        ("beit_base_patch16_224", 6, "`num_heads=6` contradicts the file, whose tensors show 12 heads"),
        (
            "swin_tiny_patch4_window7_224",
            4,
            "`num_heads=4` contradicts the file, whose tensors show 3 heads in the first",
        ),
        ("xcit_nano_12_p16_224", 8, "`num_heads=8` contradicts the file, whose tensors show 4 heads"),
        ("resnet18", 8, "`num_heads=8` changes nothing: ResNet-18 has no attention"),
    ],
)
def test_a_number_that_cannot_be_is_refused(name: str, heads: int, message: str, tmp_path: Path) -> None:
    sizes = {"depth": 2} if name.startswith("vit") else {}
    state = module("timm").create_model(name, num_classes=0, **sizes).state_dict()
    torch.save(state, tmp_path / "source.pth")
    with pytest.raises(UsageError) as caught:
        ckptconv.convert(tmp_path / "source.pth", tmp_path / "out.pth", target="timm", num_heads=heads)
    assert caught.value.message.startswith(message)
    assert caught.value.parameter == "num_heads"
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("heads", [0, -1, True, "3"])
def test_a_number_that_is_none_is_refused(heads: Any) -> None:
    with pytest.raises(UsageError, match="num_heads"):
        Options(num_heads=heads)


def test_every_family_with_attention_says_whether_tensors_show_its_heads() -> None:
    without = {name for name, family in FAMILIES.items() if family.heads_shown is None}
    assert without == {"ResNet", "RegNetY", "ConvNeXt"}
