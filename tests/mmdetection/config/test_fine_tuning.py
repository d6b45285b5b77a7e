"""How far each network learns: the values of published detectors, written down here by hand from their configs."""

from __future__ import annotations

from typing import Any

import pytest

from ckptconv.backbones.beit import Beit
from ckptconv.backbones.eva import Eva
from ckptconv.backbones.interface import Backbone
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.backbones.xcit import Xcit
from ckptconv.methods import METHODS
from ckptconv.mmdetection.config.backbone_args import network
from ckptconv.mmdetection.config.emit import without_checkpoint
from ckptconv.mmdetection.config.fine_tuning import ROWS
from ckptconv.mmdetection.config.options import Choices

MAE = {"B": (768, 12), "L": (1024, 24), "H": (1280, 32)}
WHOSE = "Layer decay, drop path and weight decay are those of"


def vit(width: int, depth: int) -> Backbone:
    return VisionTransformer(width, depth, 4 * width, 16, 196)


def eva02(width: int, depth: int) -> Backbone:
    return Eva(width, depth, width * 8 // 3, 14, positions=256, mlp="apart", fused=False)


def values(method: str, backbone: Backbone) -> tuple[float, float, float, str]:
    """Layer decay, drop path, weight decay, and the comment."""
    built = network(backbone, "timm", method=method)
    assert built is not None
    assert built.training is not None
    wrapper: Any = built.training.wrapper
    return (
        wrapper["paramwise_cfg"]["decay_rate"],
        built.arguments["drop_path_rate"],
        built.training.optimizer["weight_decay"],
        built.training.decays,
    )


@pytest.mark.parametrize(
    ("method", "backbone", "wanted", "source"),
    [
        ("mae", vit(*MAE["B"]), (0.7, 0.1, 0.1), "projects/ViTDet of detectron2"),
        ("mae", vit(*MAE["L"]), (0.8, 0.4, 0.1), "projects/ViTDet of detectron2"),
        ("mae", vit(*MAE["H"]), (0.9, 0.5, 0.1), "projects/ViTDet of detectron2"),
        ("eva02", eva02(768, 12), (0.7, 0.1, 0.1), "EVA-02/det of baaivision/EVA"),
        ("eva02", eva02(1024, 24), (0.8, 0.4, 0.1), "EVA-02/det of baaivision/EVA"),
        ("ibot", vit(384, 12), (0.8, 0.1, 0.05), "evaluation/README.md of bytedance/ibot"),
        ("ibot-student", vit(768, 12), (0.75, 0.2, 0.05), "evaluation/README.md of bytedance/ibot"),
        (
            "cae",
            Beit(1024, 24, 4096, 16, 14, 16, absolute_positions=True, shared_relative_positions=False),
            (0.85, 0.2, 0.05),
            "downstream_tasks/detection of Atten4Vis/CAE",
        ),
    ],
    ids=str,
)
def test_a_published_detector_tells_how_far_its_network_learns(
    method: str, backbone: Backbone, wanted: tuple[float, ...], source: str
) -> None:
    comment = f"{WHOSE} {source} for this network."
    assert values(method, backbone) == (*wanted, comment)


@pytest.mark.parametrize(
    ("method", "backbone", "size"),
    [("dinov2", vit(768, 12), "B"), ("mae", vit(192, 12), "B"), ("ibot", vit(1024, 24), "L"), ("", vit(1536, 40), "H")],
    ids=str,
)
def test_any_other_network_learns_as_maes_of_its_depth(method: str, backbone: Backbone, size: str) -> None:
    why = "no detector of this method and size is in ckptconv's table"
    comment = f"{WHOSE} MAE's ViT-{size} in projects/ViTDet of detectron2: {why}."
    assert values(method, backbone) == (*values("mae", vit(*MAE[size]))[:3], comment)


def test_another_family_of_the_same_size_has_its_own_row() -> None:
    """DINO trains ViTs and XCiTs of 384 channels and 12 blocks; XCiT's detectors have no layer decay."""
    assert values("dino", vit(384, 12))[:3] == (0.7, 0.1, 0.1)
    assert values("dino", Xcit(384, 12, 8, 1536, 16))[:3] == (1.0, 0.05, 0.05)


def test_a_config_says_whose_values_it_has() -> None:
    text = without_checkpoint(vit(768, 12), "dinov2", Choices("mask-rcnn", "1x"))
    assert "those of MAE's ViT-B in" in text
    assert "those of" in without_checkpoint(vit(768, 12), "mae", Choices("mask-rcnn", "vitdet"))


def test_the_rows_are_of_methods_in_the_table_and_each_network_has_one() -> None:
    assert {name for row in ROWS for name in row.methods} <= {method.name for method in METHODS}
    keys = [(name, row.family, row.embed_dim, row.depth) for row in ROWS for name in row.methods]
    assert len(set(keys)) == len(keys)
