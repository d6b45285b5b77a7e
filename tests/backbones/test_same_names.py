"""Networks that have the names and shapes of another one and compute something else: what a receipt says of them.

The oracle is timm: its classes' modules show what no tensor does.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.mmdetection.config.backbone_args import network
from tests.cli.test_cli import ckptconv as command
from tests.support.pretrain import module

TOLD = {
    "resnetaa50": ("mmdet", "the class ResNet"),
    "resnetblur50": ("timm", "timm's resnet50"),
    "vit_base_patch32_siglip_gap_256": ("timm", "timm's vit_base_patch32_224"),
}


def assumed(source: Path, out: Path, *options: str) -> str:
    """The receipt's row on what is assumed; '' if there is none."""
    done = command("convert", *options, source, out, "--force")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("assumed ")]
    assert len(lines) < 2
    return "".join(lines).removeprefix("assumed   ")


@pytest.mark.mmdet
@pytest.mark.parametrize("name", TOLD)
def test_the_receipt_says_what_was_assumed(name: str, tmp_path: Path) -> None:
    target, whose = TOLD[name]
    torch.save(module("timm").create_model(name, num_classes=0).state_dict(), tmp_path / "source.pth")
    said = assumed(tmp_path / "source.pth", tmp_path / "out.pth", "--selfsup", "timm", "--target", target)
    assert said == (
        f"activations, epsilons, anti-aliasing are those of {whose}: no tensor shows them; the proof is of tensors"
    )


@pytest.mark.mmdet
def test_what_is_assumed_matters() -> None:
    """The strides of resnetblur50 are anti-aliased: a resnet50 takes its tensors, and computes something else."""
    torch.manual_seed(0)
    theirs, ours = (module("timm").create_model(name, num_classes=0).eval() for name in ("resnetblur50", "resnet50"))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        wanted, got = theirs.forward_features(images), ours.forward_features(images)
    assert (got - wanted).abs().max() > 0.1 * wanted.abs().max()


@pytest.mark.mmdet
def test_a_method_states_its_network(tmp_path: Path) -> None:
    state = module("timm").create_model("vit_tiny_patch16_224", depth=2, num_classes=0).state_dict()
    torch.save(state, tmp_path / "source.pth")
    assert assumed(tmp_path / "source.pth", tmp_path / "out.pth", "--selfsup", "dino") == ""
    assert assumed(tmp_path / "source.pth", tmp_path / "out.pth") != ""


@pytest.mark.mmdet
@pytest.mark.parametrize(("name", "default"), [("convnext_xxlarge", False), ("convnext_large", True)])
def test_a_convnext_has_the_epsilon_of_timms(name: str, default: bool) -> None:
    with torch.device("meta"):
        theirs = module("timm").create_model(name, num_classes=0)
    eps = {part.eps for part in theirs.modules() if isinstance(part, torch.nn.LayerNorm)}
    depths = tuple(len(stage.blocks) for stage in theirs.stages)
    widths = tuple(info["num_chs"] for info in theirs.feature_info)
    member = ConvNeXt(depths, widths, grn=False, layer_scale=True, final_norm=True, patch_size=4, in_channels=3)
    model = member.timm_model()
    assert model is not None
    with torch.device("meta"):
        ours = module("timm").create_model(model.name, num_classes=0, **model.arguments)
    assert eps == {part.eps for part in ours.modules() if isinstance(part, torch.nn.LayerNorm)}
    built = network(member, target="mmpretrain")
    assert built is not None
    assert eps == {built.arguments.get("norm_cfg", {"eps": 1e-6})["eps"]}  # LN2d's own is 1e-6
    assert ("norm_cfg" not in built.arguments) == default
