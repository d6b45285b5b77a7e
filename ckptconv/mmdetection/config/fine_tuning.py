"""THE TABLE of fine-tuning: how far published detectors let each size of a plain transformer learn. Pure data.

Learning rates and schedules are not in it: they belong to a detector and to a batch, not to the network.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FineTuning:
    """``methods`` trained detectors with a network of this family, width and depth.

    ``layer_decay``: each layer's learning rate, as a part of that of the layer after it. ``drop_path_rate``: of the
    last block. ``source``: the configs of their detectors.
    """

    methods: tuple[str, ...]
    family: str
    embed_dim: int
    depth: int
    layer_decay: float
    drop_path_rate: float
    weight_decay: float
    source: str


_VITDET = "projects/ViTDet of detectron2"
_EVA02 = "EVA-02/det of baaivision/EVA"
_IBOT = "evaluation/README.md of bytedance/ibot"
_CAE = "downstream_tasks/detection of Atten4Vis/CAE"
_XCIT = "detection/configs of facebookresearch/xcit"

MAE_BASE = FineTuning(("mae",), "ViT", 768, 12, 0.7, 0.1, 0.1, _VITDET)
MAE_LARGE = FineTuning(("mae",), "ViT", 1024, 24, 0.8, 0.4, 0.1, _VITDET)
MAE_HUGE = FineTuning(("mae",), "ViT", 1280, 32, 0.9, 0.5, 0.1, _VITDET)

ROWS = (
    MAE_BASE,
    MAE_LARGE,
    MAE_HUGE,
    FineTuning(("eva02",), "Eva", 768, 12, 0.7, 0.1, 0.1, _EVA02),
    FineTuning(("eva02",), "Eva", 1024, 24, 0.8, 0.4, 0.1, _EVA02),
    FineTuning(("eva",), "BEiT", 1408, 40, 0.9, 0.6, 0.1, "EVA-01/det of baaivision/EVA"),
    FineTuning(("pe",), "Eva", 1536, 50, 0.9, 0.5, 0.1, "apps/detection of facebookresearch/perception_models"),
    FineTuning(("ibot", "ibot-student"), "ViT", 384, 12, 0.8, 0.1, 0.05, _IBOT),
    FineTuning(("ibot", "ibot-student"), "ViT", 768, 12, 0.75, 0.2, 0.05, _IBOT),
    FineTuning(("cae",), "BEiT", 768, 12, 0.75, 0.2, 0.05, _CAE),
    FineTuning(("cae",), "BEiT", 1024, 24, 0.85, 0.2, 0.05, _CAE),
    FineTuning(("dino", "dino-student"), "XCiT", 384, 12, 1.0, 0.05, 0.05, _XCIT),
    FineTuning(("dino", "dino-student"), "XCiT", 512, 24, 1.0, 0.15, 0.05, _XCIT),
)


def fine_tuning(method: str, family: str, embed_dim: int, depth: int) -> tuple[FineTuning, str]:
    """The row of a network; else that of MAE's network of such a depth. And whose it is, for a comment."""
    for row in ROWS:
        if method in row.methods and (row.family, row.embed_dim, row.depth) == (family, embed_dim, depth):
            return row, f"Layer decay, drop path and weight decay are those of {row.source} for this network."
    row = next((row for row in (MAE_BASE, MAE_LARGE) if depth <= row.depth), MAE_HUGE)
    size = {MAE_BASE: "B", MAE_LARGE: "L", MAE_HUGE: "H"}[row]
    why = "no detector of this method and size is in ckptconv's table"
    return row, f"Layer decay, drop path and weight decay are those of MAE's ViT-{size} in {row.source}: {why}."
