"""A BEiT for images of another size computes what its authors' fine-tuning code does of the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ckptconv
from ckptconv.mmdetection.modules import relative_positions
from ckptconv.mmdetection.modules.timm_backbone import TimmBackbone
from tests.support import official, pretrain


@pytest.fixture(params=["beit_vit", "beitv2_vit"])
def network(request: pytest.FixtureRequest) -> official.Network:
    return official.network(request.param)


def built(network: official.Network, folder: Path, size: tuple[int, int]) -> Any:
    pretrain.module("timm")
    receipt = ckptconv.convert(network.write(folder), folder / "beit.pth", target="timm")
    assert receipt.plan.backbone is not None
    model = receipt.plan.backbone.timm_model()
    assert model is not None
    init_cfg = {"type": "Pretrained", "checkpoint": str(folder / "beit.pth")}
    backbone = TimmBackbone(model.name, model.arguments, norm=False, image_size=size, init_cfg=init_cfg)
    backbone.init_weights()
    return backbone.eval()


def test_tables_are_resized_as_their_authors_do(network: official.Network, tmp_path: Path) -> None:
    other = next(one for one in network.features if one.size != (224, 224))
    backbone = built(network, tmp_path, other.size)
    with torch.no_grad():
        (found,) = backbone(official.image(*other.size))
    assert other.plain[0].difference(found) < 1e-5


def test_the_rows_of_other_tokens_stay_and_each_axis_has_its_own_window() -> None:
    table = official.made("table", (27 * 27 + 3, 2), -1, 1)
    found = relative_positions.resampled(table, (14, 14), (14, 20))
    assert found.shape == (27 * 39 + 3, 2)
    assert torch.equal(found[-3:], table[-3:])
    column = slice(19, 27 * 39, 39)  # no distance across: only the other axis is stretched
    assert torch.allclose(found[column], table[13 : 27 * 27 : 27], atol=1e-6)
