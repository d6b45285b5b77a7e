"""The depths of published networks, by their width: they tell a truncated network from a small one.

A file that lost its last blocks still holds a network, of a depth that no one trains. Sources: the tables of
timm 1.0.31 (`timm/models/vision_transformer.py`, `swin_transformer.py`, `swin_transformer_v2.py`, `convnext.py`,
`resnet.py`, `hiera.py`, `xcit.py`), and where one is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Depth = int | tuple[int, ...]

VIT: Mapping[int, Sequence[Depth]] = {
    192: (12,),
    256: (14,),
    320: (14,),
    384: (12, 36),
    512: (12, 20),
    640: (12,),
    768: (12,),
    832: (21,),
    896: (12, 18),
    1024: (24,),
    1152: (27,),
    1280: (32,),
    1408: (40,),
    1536: (40,),
    1664: (48,),
}
"""Blocks by channels. timm's vit_*_18x2 have two of each part in a block, under other names."""

EVA: Mapping[int, Sequence[Depth]] = {
    192: (12,),
    384: (12,),
    768: (12,),
    1024: (23, 24),
    1280: (32,),
    1536: (40, 47, 50),
    4096: (40,),
}
"""timm/models/eva.py; the language models of Perception Encoder end before the last blocks."""

BEIT: Mapping[int, Sequence[Depth]] = {
    192: (12,),  # Atten4Vis/CAE models/modeling_finetune.py
    384: (12,),
    768: (12,),
    1024: (24,),
    1408: (40,),  # baaivision/EVA EVA-01/eva/modeling_pretrain.py
}

SWIN: Mapping[int, Sequence[Depth]] = {
    96: ((2, 2, 6, 2), (2, 2, 18, 2), (2, 2, 30, 2)),
    128: ((2, 2, 18, 2),),
    192: ((2, 2, 18, 2),),
    352: ((2, 2, 18, 2),),  # SwinV2-H and G: arXiv 2111.09883, section 4.1
    512: ((2, 2, 42, 4),),
}

CONVNEXT: Mapping[int, Sequence[Depth]] = {
    32: ((2, 2, 4, 2),),
    40: ((2, 2, 6, 2),),
    48: ((2, 2, 6, 2),),
    64: ((2, 2, 6, 2),),
    80: ((2, 2, 8, 2),),
    96: ((3, 3, 9, 3), (3, 3, 27, 3)),
    128: ((3, 3, 27, 3),),
    192: ((3, 3, 27, 3),),
    256: ((3, 3, 27, 3),),
    352: ((3, 3, 27, 3),),
    384: ((3, 4, 30, 3),),
}

HIERA: Mapping[int, Sequence[Depth]] = {
    96: ((1, 2, 7, 2), (1, 2, 11, 2), (2, 3, 16, 3)),
    112: ((2, 3, 16, 3),),
    144: ((2, 6, 36, 4),),
    256: ((2, 6, 36, 4),),
}

XCIT: Mapping[int, Sequence[Depth]] = {128: (12,), 192: (12, 24), 384: (12, 24), 512: (24,), 768: (24,)}

_RESNET: Sequence[Depth] = ((1, 1, 1, 1), (2, 2, 2, 2), (3, 4, 6, 3))
_BOTTLENECKS: Sequence[Depth] = (
    *_RESNET,
    (3, 4, 23, 3),
    (3, 8, 36, 3),
    (3, 24, 36, 3),
    (3, 30, 48, 8),
)


def resnets(bottleneck: bool) -> Sequence[Depth]:
    """Blocks a stage, of any width."""
    return _BOTTLENECKS if bottleneck else _RESNET


def unusual(name: str, kind: str, depth: Depth, known: Sequence[Depth]) -> str:
    """A sentence if no network of this kind and depth is published; '' if one is."""
    if depth in known:
        return ""
    blocks = f"{_depth_text(depth)} block{'s' * (depth != 1)}"
    if not known:
        fact = f"ckptconv knows no published {kind}, so it cannot tell whether {blocks} are all of them"
    else:
        fact = f"no published {kind} has {blocks} (known: {', '.join(map(_depth_text, known))})"
    return f"{name}: {fact}; if the file is truncated, this is a part of a network"


def partial(depth: Depth, known: Sequence[Depth]) -> bool:
    """Whether networks of this kind are published, and none of this depth."""
    return bool(known) and depth not in known


def _depth_text(depth: Depth) -> str:
    return str(depth) if isinstance(depth, int) else "-".join(map(str, depth))
