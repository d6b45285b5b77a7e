"""What a Swin is for each target: why one cannot hold a member, its names there, timm's model.

MMDetection's `SwinTransformer` has other names than the authors', and nn.Unfold's order of columns where patches merge:
`swin_converter` in `mmdet/models/backbones/swin.py`. In timm 1.0.31 (`timm/models/swin_transformer.py` and
`swin_transformer_v2.py`) a stage begins with the merging of patches, with which the authors' ends, in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ckptconv.backbones import transformers_stages
from ckptconv.backbones.interface import CANONICAL, Dialect, TimmModel
from ckptconv.ops import regroup
from ckptconv.rules import Rule, drop, keep

if TYPE_CHECKING:
    from ckptconv.backbones.swin import Swin

ROWS_FIRST = (0, 2, 1, 3)
"""Four merged patches are (0, 0), (1, 0), (0, 1), (1, 1) for the authors, and row by row for nn.Unfold."""

COORDINATES = "relative_coords_table"
_COMPUTED = drop(
    f"layers.{{s}}.blocks.{{b}}.attn.{COORDINATES}", "the table of relative coordinates; recomputed on load"
)

MMDET = Dialect(
    rules=(
        keep("patch_embed.proj.{p}", "backbone.patch_embed.projection.{p}"),
        keep("patch_embed.norm.{p}", "backbone.patch_embed.norm.{p}"),
        keep("layers.{s}.blocks.{b}.attn.{key...}", "backbone.stages.{s}.blocks.{b}.attn.w_msa.{key...}"),
        keep("layers.{s}.blocks.{b}.mlp.fc1.{p}", "backbone.stages.{s}.blocks.{b}.ffn.layers.0.0.{p}"),
        keep("layers.{s}.blocks.{b}.mlp.fc2.{p}", "backbone.stages.{s}.blocks.{b}.ffn.layers.1.{p}"),
        keep("layers.{s}.blocks.{b}.{norm}.{p}", "backbone.stages.{s}.blocks.{b}.{norm}.{p}"),
        keep(
            "layers.{s}.downsample.reduction.{p}",
            "backbone.stages.{s}.downsample.reduction.{p}",
            regroup(1, ROWS_FIRST),
        ),
        keep("layers.{s}.downsample.norm.{p}", "backbone.stages.{s}.downsample.norm.{p}", regroup(0, ROWS_FIRST)),
        drop(
            "norm.{p}",
            "the norm before a classifier: MMDetection has new norms, one for each stage's output",
        ),
    ),
    fresh=(
        "backbone.norm{stage}.{p}",
        "backbone.stages.{s}.blocks.{b}.attn.w_msa.relative_position_index",
    ),
)
"""Its `init_weights` keeps what starts with `backbone.`, and renames nothing while `convert_weights` is False."""

_OFFICIAL_V2 = Dialect((_COMPUTED, keep("{key...}", "{key...}")))


def obstacle(member: Swin, target: str) -> str:
    """Why a target cannot hold it, and what works instead; '' if it can."""
    if target == "timm":
        return _unlike_timm(member)
    if target == "transformers":
        return transformers_stages.unlike_swin(member)
    return _unlike_mmdet(member) if target == "mmdet" else ""


def _unlike_mmdet(member: Swin) -> str:
    if not member.shifted:
        return (
            "its windows are never shifted and it adds positions to its patches, so MMDetection's SwinTransformer "
            "would compute something else; mmpretrain has this network as MixMIMTransformer"
        )
    if member.positions:
        return "it has an absolute position embedding, on which the loading code of MMDetection's Swin fails"
    if not member.patch_norm:
        return "it normalises merged patches but not the first ones; MMDetection's Swin does both or neither"
    if member.hidden_dim % member.embed_dim:
        return "the width of its MLPs is not a multiple of its stages' width, which MMDetection's Swin needs"
    return ""


def _unlike_timm(member: Swin) -> str:
    if not member.shifted:
        return "its windows are never shifted and it adds positions to its patches, and timm's Swin does neither"
    if member.positions:
        return "it has an absolute position embedding, which timm's Swin does not have"
    if not member.patch_norm:
        return "it does not normalise the first patches, and timm's Swin does"
    if not member.window_sizes:
        return f"no tensor of the file tells the size of its windows: {COORDINATES} does, which is a buffer"
    return ""


def dialect(member: Swin, target: str) -> Dialect:
    """How a target names it."""
    if target == "timm":
        moved = (
            keep(f"layers.{s}.downsample.{{key...}}", f"layers.{s + 1}.downsample.{{key...}}")
            for s in range(len(member.depths) - 1)
        )
        rules: tuple[Rule, ...] = (_COMPUTED, *moved, keep("{key...}", "{key...}"))
        return Dialect(rules, fresh=() if member.final_norm else ("norm.{p}",))
    if target == "mmdet":
        return MMDET
    if target == "transformers":
        return transformers_stages.swin_dialect(member)
    return _OFFICIAL_V2 if member.version == 2 and member.window_sizes else CANONICAL


# -- timm's models -----------------------------------------------------------------------------------------------------

_T, _S, _B, _L = (96, (2, 2, 6, 2)), (96, (2, 2, 18, 2)), (128, (2, 2, 18, 2)), (192, (2, 2, 18, 2))
_HEAD = 32  # channels, in all of them
_MODELS: Mapping[tuple[int, tuple[int, tuple[int, ...]], tuple[int, ...]], str] = {
    (1, _T, (7, 7, 7, 7)): "swin_tiny_patch4_window7_224",
    (1, _S, (7, 7, 7, 7)): "swin_small_patch4_window7_224",
    (1, _B, (7, 7, 7, 7)): "swin_base_patch4_window7_224",
    (1, _L, (7, 7, 7, 7)): "swin_large_patch4_window7_224",
    (1, _B, (12, 12, 12, 12)): "swin_base_patch4_window12_384",
    (1, _L, (12, 12, 12, 12)): "swin_large_patch4_window12_384",
    (2, _T, (8, 8, 8, 8)): "swinv2_tiny_window8_256",
    (2, _S, (8, 8, 8, 8)): "swinv2_small_window8_256",
    (2, _B, (8, 8, 8, 8)): "swinv2_base_window8_256",
    (2, _T, (16, 16, 16, 8)): "swinv2_tiny_window16_256",
    (2, _S, (16, 16, 16, 8)): "swinv2_small_window16_256",
    (2, _B, (16, 16, 16, 8)): "swinv2_base_window16_256",
    (2, _B, (12, 12, 12, 6)): "swinv2_base_window12_192",
    (2, _L, (12, 12, 12, 6)): "swinv2_large_window12_192",
}
_BASES = {1: ("swin_tiny_patch4_window7_224", _T, 7), 2: ("swinv2_tiny_window8_256", _T, 8)}


def timm_model(member: Swin) -> TimmModel | None:
    """Timm's model. A window is at most as large as its stage's map, so the size of the image goes with it."""
    if _unlike_timm(member):
        return None
    size = (member.embed_dim, member.depths)
    name = _MODELS.get((member.version, size, member.window_sizes), "")
    arguments: dict[str, Any] = {}
    if not name:
        name, (width, depths), window = _BASES[member.version]
        if member.embed_dim != width:
            arguments["embed_dim"] = member.embed_dim
        if member.depths != depths:
            arguments["depths"] = list(member.depths)
        if set(member.window_sizes) != {window}:
            same = len(set(member.window_sizes)) == 1
            arguments["window_size"] = member.window_sizes[0] if same else list(member.window_sizes)
            largest = max(side << stage for stage, side in enumerate(member.window_sizes))
            arguments["img_size"] = largest * member.patch_size
    usual = (
        tuple(3 << stage for stage in range(4))
        if arguments
        else tuple((member.embed_dim << stage) // _HEAD for stage in range(len(member.depths)))
    )
    if member.num_heads != usual:
        arguments["num_heads"] = list(member.num_heads)
    if member.hidden_dim != 4 * member.embed_dim:
        arguments["mlp_ratio"] = member.hidden_dim / member.embed_dim
    if member.patch_size != 4:
        arguments["patch_size"] = member.patch_size
    if member.in_channels != 3:
        arguments["in_chans"] = member.in_channels
    if not member.qkv_bias:
        arguments["qkv_bias"] = False
    return TimmModel(name, arguments)
