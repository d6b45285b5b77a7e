"""The dialect of MMDetection's ViTDet (`projects/ViTDet/vitdet/vit.py`): of plain ViTs, and BEiTs without tables."""

from __future__ import annotations

from collections.abc import Iterable

from ckptconv.backbones.interface import Dialect
from ckptconv.ops import scale
from ckptconv.rules import Rule, drop, keep

_FRESH = ("blocks.{i}.attn.rel_pos_h", "blocks.{i}.attn.rel_pos_w")


def vitdet(layer_scales: Iterable[tuple[str, str]], biases: Iterable[Rule] = ()) -> Dialect:
    """ViTDet's names, which are the canonical ones, in its section.

    ``layer_scales`` are pairs of names in a block, of a layer and of the LayerScale after it, which ViTDet does not
    have: it is folded into the layer. ``biases`` are rules for biases that ViTDet stores in another way.
    """
    rules = (
        drop("cls_token", "ViTDet has no class token; its row in pos_embed stays"),
        drop("norm.{p}", "the norm after the last block: ViTDet has none"),
        *biases,
        *(rule for layer, scales in layer_scales for rule in _folded(layer, scales)),
        keep("{key...}", "{key...}"),
    )
    return Dialect(rules, section="model", fresh=_FRESH)


def _folded(layer: str, scales: str) -> tuple[Rule, Rule]:
    """Rules that multiply the rows of a layer by the scales after it."""
    name = f"blocks.{{i}}.{layer}.{{p}}"
    return (
        keep(name, name, scale(), by=[f"blocks.{{i}}.{scales}"]),
        drop(f"blocks.{{i}}.{scales}", f"folded into {layer}, which ViTDet has"),
    )
