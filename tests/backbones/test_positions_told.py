"""What a receipt says of tables of positions, whose resizing for other images no tensor shows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ckptconv.methods.interface import DINO_RESAMPLING
from ckptconv.mmdetection.config.checkpoint import pretrained
from tests.cli.test_cli import ckptconv as command
from tests.support.pretrain import module


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT in the names that DINO, iBOT, DINOv2 and timm share."""
    torch.manual_seed(0)
    network = module("timm").create_model("vit_tiny_patch16_224", depth=2, num_classes=0)
    path = tmp_path_factory.mktemp("vit") / "vit.pth"
    torch.save(network.state_dict(), path)
    return path


def row(source: Path, tmp_path: Path, *options: str) -> str:
    """The receipt's row on positions; '' if there is none."""
    done = command("convert", *options, source, tmp_path / "out.pth", "--force")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("positions ")]
    assert len(lines) < 2
    return "".join(lines).removeprefix("positions ")


@pytest.mark.mmdet
def test_a_file_of_several_methods_says_that_no_one_states_it(source: Path, tmp_path: Path) -> None:
    said = row(source, tmp_path)
    assert said == (
        "resized for other images as timm does: how its authors do it is not known; --selfsup dino or ibot or dinov2 "
        "takes that method's own way"
    )
    assert "position_resampling" not in pretrained(tmp_path / "out.pth").network.arguments
    assert row(source, tmp_path, "--selfsup", "dino") == ""
    stated = pretrained(tmp_path / "out.pth").network.arguments["position_resampling"]
    assert stated == vars(DINO_RESAMPLING)


@pytest.mark.mmdet
def test_another_target_than_the_usual_resizes_as_it_likes(source: Path, tmp_path: Path) -> None:
    for target in ("vitdet", "mmpretrain"):
        assert row(source, tmp_path, "--selfsup", "dino", "--target", target) == (
            f"resized for other images as {target} does, which is not what dino does: without --target, or with "
            "--image-size N, they are resized its way"
        )
        assert row(source, tmp_path, "--selfsup", "timm", "--target", target).startswith(
            f"resized for other images as {target} does: how its authors do it is not known"
        )


@pytest.mark.mmdet
def test_a_table_that_is_no_square_is_told_at_once(tmp_path: Path) -> None:
    state = module("timm").create_model("vit_tiny_patch16_224", depth=2, num_classes=0, img_size=(160, 320))
    torch.save(state.state_dict(), tmp_path / "wide.pth")
    assert row(tmp_path / "wide.pth", tmp_path, "--selfsup", "timm") == (
        "200 are not a square grid: the sides of its images are unknown, and emit-config refuses it"
    )
    done = command("emit-config", tmp_path / "out.pth")
    assert done.returncode == 2
    assert "200 positions, which are not a square grid" in done.stderr
