"""The ViT family: its names against MMPretrain's own class and ViTDet's, its numbers against the paper's definition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch.nn import functional

import ckptconv
from ckptconv.backbones.interface import PARTS, described
from ckptconv.backbones.vit import VisionTransformer, read
from ckptconv.errors import UsageError
from ckptconv.methods.naming_schemes import TIMM
from ckptconv.patterns import Pattern
from ckptconv.planning.make_plan import make_plan
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.problem_texts import text_of
from ckptconv.spec import DTYPES, Section, TensorSpec
from tests.support import pretrain
from tests.support.specs import state

(BARE,) = (layout for layout in TIMM.layouts if layout.title == "bare ViT")

TINY = VisionTransformer(192, 12, 768, 16, 196)
SMALL = VisionTransformer(384, 12, 1536, 16, 196)
BASE = VisionTransformer(768, 12, 3072, 16, 196)
LARGE = VisionTransformer(1024, 24, 4096, 16, 196)
HUGE = VisionTransformer(1280, 32, 5120, 14, 256)
DINOV2 = VisionTransformer(384, 12, 1536, 14, 37 * 37, layer_scale=True)
DINOV2_G = VisionTransformer(1536, 40, 4096, 14, 37 * 37, layer_scale=True, swiglu=True)
REGISTERS = replace(DINOV2, num_registers=4)
IJEPA = replace(HUGE, class_token=False, prefix_positions=0)
IJEPA_G = VisionTransformer(1408, 40, 6144, 16, 196, class_token=False, prefix_positions=0)
NO_NORM = replace(BASE, final_norm=False)
NO_BIAS = replace(SMALL, qkv_bias=False)
UNSLOTTED = replace(SMALL, prefix_positions=0)

MEMBERS = {
    "plain Ti": TINY,
    "plain S": SMALL,
    "plain B": BASE,
    "plain L": LARGE,
    "plain H": HUGE,
    "LayerScale": DINOV2,
    "SwiGLU": DINOV2_G,
    "no class token": IJEPA,
    "MLPs of 48/11": IJEPA_G,
    "no last norm": NO_NORM,
    "no bias of qkv": NO_BIAS,
}


def plan_of(names: Mapping[str, TensorSpec], target: str = "timm") -> Plan:
    return make_plan(TIMM, replace(BARE, without=PARTS), "", Section(names, {}), Options(target=target))


def written(member: VisionTransformer, target: str) -> dict[str, tuple[int, ...]]:
    plan = plan_of(state(member.entries()), target)
    assert plan.problems == ()
    return {move.target: move.spec.shape for move in plan.moves}


# -- the targets' own names --------------------------------------------------------------------------------------------


def mmpretrain(member: VisionTransformer, heads: int | None = None, **more: Any) -> Any:
    """The real network, built as its config would be."""
    # hidden channels of a gated MLP are two thirds of what is asked for, rounded up to a multiple of 8
    asked = member.hidden_dim * 3 // 2 if member.swiglu else member.hidden_dim
    arch = {
        "embed_dims": member.embed_dim,
        "num_layers": member.depth,
        "num_heads": heads or member.num_heads,
        "feedforward_channels": asked,
    }
    assert member.grid_size is not None
    return pretrain.models().VisionTransformer(
        arch=arch,
        img_size=member.grid_size * member.patch_size,
        patch_size=member.patch_size,
        qkv_bias=member.qkv_bias,
        final_norm=member.final_norm,
        with_cls_token=member.class_token,
        out_type="raw",
        layer_scale_init_value=1e-5 if member.layer_scale else 0.0,
        layer_cfgs={"ffn_type": "swiglu_fused"} if member.swiglu else {},
        **more,
    )


@pytest.mark.mmdet
@pytest.mark.parametrize("which", MEMBERS)
def test_mmpretrain_takes_every_tensor_and_lacks_none(which: str) -> None:
    member = MEMBERS[which]
    with torch.device("meta"):
        real = mmpretrain(member)
    wanted = {f"backbone.{name}": tuple(tensor.shape) for name, tensor in real.state_dict().items()}
    assert written(member, "mmpretrain") == wanted


def vitdet(member: VisionTransformer, window: int = 14, image: int = 1024) -> dict[str, tuple[int, ...]]:
    """What ViT of open-mmlab/mmdetection projects/ViTDet/vitdet/vit.py registers, by its __init__ with use_rel_pos."""
    dim, side = member.embed_dim, image // member.patch_size
    assert member.grid_size is not None
    assert member.num_heads is not None
    names: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, member.grid_size**2 + member.prefix_positions, dim),  # pretrain_use_cls_token
        "patch_embed.proj.weight": (dim, 3, member.patch_size, member.patch_size),
        "patch_embed.proj.bias": (dim,),
    }
    for i in range(member.depth):
        size = window if i in (0, 1, 3, 4, 6, 7, 9, 10) else side
        block: dict[str, tuple[int, ...]] = {
            "norm1.weight": (dim,),
            "norm1.bias": (dim,),
            "attn.qkv.weight": (3 * dim, dim),
            "attn.proj.weight": (dim, dim),
            "attn.proj.bias": (dim,),
            "attn.rel_pos_h": (2 * size - 1, dim // member.num_heads),
            "attn.rel_pos_w": (2 * size - 1, dim // member.num_heads),
            "norm2.weight": (dim,),
            "norm2.bias": (dim,),
            "mlp.fc1.weight": (int(dim * (member.hidden_dim / dim)), dim),
            "mlp.fc1.bias": (int(dim * (member.hidden_dim / dim)),),
            "mlp.fc2.weight": (dim, member.hidden_dim),
            "mlp.fc2.bias": (dim,),
        }
        if member.qkv_bias:
            block["attn.qkv.bias"] = (3 * dim,)
        names |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return names


@pytest.mark.parametrize("which", [which for which, member in MEMBERS.items() if not member.swiglu])
def test_vitdet_takes_every_tensor_and_lacks_none_but_the_fresh(which: str) -> None:
    member = MEMBERS[which]
    dialect = member.dialect("vitdet")
    wanted = vitdet(member)
    fresh = {name for name in wanted if any(Pattern(text).match(name) is not None for text in dialect.fresh)}
    assert len(fresh) == 2 * member.depth
    assert written(member, "vitdet") == {name: shape for name, shape in wanted.items() if name not in fresh}
    assert dialect.section == "model"


def test_what_vitdet_has_no_place_for_is_dropped_with_a_reason() -> None:
    plan = plan_of(state(DINOV2.entries()), "vitdet")
    why = {gone.source: gone.why for gone in plan.dropped}
    assert why.pop("cls_token") == "ViTDet has no class token; its row in pos_embed stays"
    assert why.pop("norm.weight") == why.pop("norm.bias") == "the norm after the last block: ViTDet has none"
    assert why.pop("blocks.3.ls1.gamma") == "folded into attn.proj, which ViTDet has"
    assert why.pop("blocks.3.ls2.gamma") == "folded into mlp.fc2, which ViTDet has"
    assert len(why) == 22
    (proj,) = (move for move in plan.moves if move.target == "blocks.3.attn.proj.bias")
    assert proj.sources == ("blocks.3.attn.proj.bias", "blocks.3.ls1.gamma")


NO_PLACE = {
    "registers": (
        REGISTERS,
        {"vitdet", "mmpretrain"},
        "has no registers, and without its 4 it computes something else: use the release without registers",
    ),
    "no square": (
        replace(SMALL, positions=200),
        {"vitdet", "mmpretrain", "transformers"},
        "its 200 positions are not a square grid, which ",
    ),
    "SwiGLU": (
        DINOV2_G,
        {"vitdet"},
        "its MLPs are gated (SwiGLU), and MMDetection's ViTDet's are not",
    ),
    "no place for the class token": (
        UNSLOTTED,
        {"mmpretrain", "transformers"},
        ("its pos_embed has no rows before the patches; MMPretrain's VisionTransformer needs one for each class token"),
    ),
    "MLPs of no multiple of 8": (
        replace(DINOV2_G, hidden_dim=4100),
        {"vitdet", "mmpretrain", "transformers"},
        "",
    ),
}


@pytest.mark.parametrize("which", NO_PLACE)
def test_an_obstacle_is_the_only_problem_and_names_what_works(which: str) -> None:
    member, without, why = NO_PLACE[which]
    for target in ("vitdet", "mmpretrain", "timm", "transformers"):
        plan = plan_of(state(member.entries()), target)
        if target not in without:
            assert plan.problems == ()
            continue
        (problem,) = plan.problems
        assert problem.kind == "target"
        assert text_of(problem).startswith(f"{target} cannot hold {member.name}: ")
        assert {"timm": "timm's class ", "transformers": "transformers' "}.get(target, why) in text_of(problem)
        others = [t for t in ("timm", "vitdet", "mmpretrain", "transformers") if t not in without]
        named = " or ".join(f"`target='{other}'`" for other in others)
        assert text_of(problem).endswith(f"({named} can)") == bool(others)
        assert ("`target=" in text_of(problem)) == bool(others)


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (
            replace(REGISTERS, prefix_positions=3),
            (
                "its pos_embed has 3 rows before the patches; timm's class needs 5 or none, and ckptconv does not "
                "convert between them"
            ),
        ),
        (DINOV2_G, ""),
        (REGISTERS, ""),  # the row is added to the class token
        (replace(REGISTERS, prefix_positions=0), ""),  # as timm's own reg4 files have it
        (replace(REGISTERS, prefix_positions=5), ""),
        (UNSLOTTED, ""),
        (IJEPA, ""),
    ],
    ids=[
        "3 places",
        "SwiGLU",
        "registers without places",
        "no place",
        "all places",
        "no place, no registers",
        "no token",
    ],
)
def test_timm_is_offered_for_what_its_own_class_loads_and_for_nothing_else(member: VisionTransformer, why: str) -> None:
    """Each of these was tried with timm 1.0.31's classes and strict=True."""
    assert member.obstacle("timm") == why


@pytest.mark.mmdet
def test_a_gated_mlp_of_no_multiple_of_8_has_truly_no_place_in_mmpretrain() -> None:
    for asked in range(6140, 6160):
        arch = {"embed_dims": 64, "num_layers": 1, "num_heads": 1, "feedforward_channels": asked}
        with torch.device("meta"):
            real = pretrain.models().VisionTransformer(arch=arch, layer_cfgs={"ffn_type": "swiglu_fused"})
        assert real.state_dict()["layers.0.ffn.w3.weight"].shape[1] % 8 == 0


# -- names and settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "name", "heads"),
    [
        (TINY, "ViT-Ti/16", 3),
        (SMALL, "ViT-S/16", 6),
        (BASE, "ViT-B/16", 12),
        (LARGE, "ViT-L/16", 16),
        (HUGE, "ViT-H/14", 16),
        (IJEPA_G, "ViT-g/16", 16),
        (DINOV2_G, "ViT-g/14, SwiGLU", 24),
        (REGISTERS, "ViT-S/14, 4 registers", 6),
        (replace(SMALL, depth=11), "ViT-384x11/16", 6),
        (replace(SMALL, embed_dim=100, num_heads=None), "ViT-100x12/16", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_name_and_heads(member: VisionTransformer, name: str, heads: int | None) -> None:
    assert (member.name, member.num_heads) == (name, heads)


def test_it_is_described_in_plain_values() -> None:
    assert described(REGISTERS) == {
        "family": "ViT",
        "embed_dim": 384,
        "depth": 12,
        "hidden_dim": 1536,
        "patch_size": 14,
        "positions": 1369,
        "in_channels": 3,
        "class_token": True,
        "prefix_positions": 1,
        "num_registers": 4,
        "layer_scale": True,
        "swiglu": False,
        "qkv_bias": True,
        "final_norm": True,
        "num_heads": 6,
        "grid_size": 37,
    }


# -- reading back ------------------------------------------------------------------------------------------------------


@st.composite
def members(draw: st.DrawFn) -> VisionTransformer:
    cls, registers = draw(st.booleans()), draw(st.integers(0, 8))
    grid = draw(st.integers(5, 40))
    return VisionTransformer(
        embed_dim=draw(st.integers(2, 300)),
        depth=draw(st.integers(1, 5)),
        hidden_dim=draw(st.integers(2, 1200)),
        patch_size=draw(st.integers(1, 32)),
        positions=grid * grid,
        in_channels=draw(st.integers(1, 6)),
        class_token=cls,
        prefix_positions=0 if not cls else draw(st.sampled_from([0, 1, 1 + registers])),
        num_registers=registers,
        layer_scale=draw(st.booleans()),
        swiglu=draw(st.booleans()),
        qkv_bias=draw(st.booleans()),
        final_norm=draw(st.booleans()),
    )


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["conv1.weight", "layer1.0.conv1.weight"],
        ["layers.0.blocks.0.attn.qkv.weight", "layers.0.blocks.0.norm1.weight"],
        ["stages.0.0.dwconv.weight", "stages.0.0.norm.weight"],
        ["cls_token", "pos_embed"],
        ["blocks.x.attn.qkv.weight", "blocks.x.norm1.weight"],
        ["blocks.123456.attn.qkv.weight", "blocks.123456.norm1.weight"],
    ],
    ids=["empty", "ResNet", "Swin", "ConvNeXt", "tokens alone", "no number", "no number of a block"],
)
def test_read_gives_none_for_names_of_no_vit(names: list[str]) -> None:
    assert read({name: TensorSpec((64, 64), DTYPES["float32"]) for name in names}) is None


def test_blocks_with_absurd_numbers_are_not_unfolded() -> None:
    entries = {name.replace("blocks.11.", "blocks.9000."): shape for name, shape in SMALL.entries().items()}
    member = read(state(entries))
    assert member is not None
    assert member.depth == 12


# -- one thing wrong ---------------------------------------------------------------------------------------------------

NEAR = {m.name: state(m.entries()) for m in (TINY, REGISTERS, replace(DINOV2_G, depth=2), IJEPA_G)}


# -- numbers: the paper's definition with the source's tensors, against networks that load what convert wrote ----------

TOY = VisionTransformer(64, 3, 128, 8, 16)
TOY_HEADS = 4
Tensors = dict[str, torch.Tensor]


def numbers(member: VisionTransformer) -> Tensors:
    """Every tensor of a network, none of them at its initial value."""
    generator = torch.Generator().manual_seed(member.depth + member.hidden_dim)
    made = {}
    for name, shape in member.entries().items():
        noise = torch.randn(shape, generator=generator)
        scaled = name.endswith((".gamma", "norm1.weight", "norm2.weight", "norm.weight"))
        made[name] = 1 + 0.5 * noise if scaled else 0.1 * noise
    return made


def forward(at: Tensors, images: torch.Tensor, heads: int, eps: float = 1e-6) -> torch.Tensor:
    """Tokens after the last block of 'An image is worth 16x16 words' (appendix A), with LayerScale and gated MLPs."""
    kernel = at["patch_embed.proj.weight"]
    x = functional.conv2d(images, kernel, at["patch_embed.proj.bias"], stride=kernel.shape[-1]).flatten(2).mT
    if "cls_token" in at:
        x = torch.cat([at["cls_token"].expand(len(x), -1, -1), x], 1)
    x = x + at["pos_embed"]
    if "reg_token" in at:  # dinov2/models/vision_transformer.py, prepare_tokens_with_masks
        x = torch.cat([x[:, :1], at["reg_token"].expand(len(x), -1, -1), x[:, 1:]], 1)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], at[f"{name}.weight"], at[f"{name}.bias"], eps)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ at[f"{name}.weight"].mT + at.get(f"{name}.bias", torch.zeros(()))

    block = 0
    while (b := f"blocks.{block}.") + "norm1.weight" in at:
        query, key, value = linear(norm(x, b + "norm1"), b + "attn.qkv").chunk(3, -1)
        query, key, value = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value))
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
        x = x + at.get(b + "ls1.gamma", 1) * linear((weights @ value).transpose(1, 2).flatten(2), b + "attn.proj")
        hidden = norm(x, b + "norm2")
        if b + "mlp.w12.weight" in at:
            gate, up = linear(hidden, b + "mlp.w12").chunk(2, -1)
            hidden = linear(gate * gate.sigmoid() * up, b + "mlp.w3")
        else:
            hidden = linear(functional.gelu(linear(hidden, b + "mlp.fc1")), b + "mlp.fc2")
        x = x + at.get(b + "ls2.gamma", 1) * hidden
        block += 1
    return norm(x, "norm") if "norm.weight" in at else x


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(7))


def save_dino(at: Tensors) -> tuple[str, object]:
    head = {"head.mlp.0.weight": torch.ones(4, 64), "head.last_layer.weight_g": torch.ones(4, 1)}
    return "dino", {"teacher": {f"backbone.{name}": tensor for name, tensor in at.items()} | head}


def save_dinov2(at: Tensors) -> tuple[str, object]:
    return "dinov2", {**at, "mask_token": torch.zeros(1, 64)}


def save_in_chunks(at: Tensors) -> tuple[str, object]:
    teacher = {}
    for name, tensor in at.items():
        chunked = name.replace("blocks.", f"blocks.{int(name.split('.')[1]) // 2}.") if name[:6] == "blocks" else name
        teacher[f"backbone.{chunked}"] = tensor
    return "dinov2", {"teacher": teacher | {"backbone.mask_token": torch.zeros(1, 64)}}


def save_ijepa(at: Tensors) -> tuple[str, object]:
    wrapped = {f"module.{name}": tensor for name, tensor in at.items()}
    return "ijepa", {"encoder": {k: -v for k, v in wrapped.items()}, "predictor": {}, "target_encoder": wrapped}


def save_transformers(at: Tensors) -> tuple[str, object]:
    """As ViTModel of transformers has it: three layers for query, key and value."""
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
        "norm": "layernorm",
    }
    made = {}
    for name, tensor in at.items():
        block = ".".join(name.split(".")[:2]) + "." if name.startswith("blocks.") else ""
        layer, _, p = name.removeprefix(block).rpartition(".")
        to = block.replace("blocks", "encoder.layer")
        if layer == "attn.qkv":
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                made[f"{to}attention.attention.{part}.{p}"] = third.clone()
        else:
            made[f"{to}{names[layer]}.{p}" if layer else names[p]] = tensor
    return "transformers", made


SOURCES = {
    "query, key and value apart": (TOY, save_transformers),
    "plain": (TOY, save_dino),
    "LayerScale": (replace(TOY, layer_scale=True), save_dinov2),
    "SwiGLU": (replace(TOY, layer_scale=True, swiglu=True), save_dinov2),
    "blocks in chunks": (replace(TOY, layer_scale=True), save_in_chunks),
    "no class token": (replace(TOY, class_token=False, prefix_positions=0), save_ijepa),
}


@pytest.mark.mmdet
@pytest.mark.parametrize("which", SOURCES)
def test_mmpretrain_computes_what_the_source_computes(which: str, tmp_path: Path) -> None:
    member, save = SOURCES[which]
    at = numbers(member)
    method, content = save(at)
    torch.save(content, tmp_path / "source.pth")
    ckptconv.convert(tmp_path / "source.pth", tmp_path / "vit.pth", method, target="mmpretrain")
    real = mmpretrain(
        member,
        TOY_HEADS,
        init_cfg={"type": "Pretrained", "checkpoint": str(tmp_path / "vit.pth"), "prefix": "backbone."},
    )
    real.init_weights()
    real.eval()
    with torch.inference_mode():
        assert (real(images())[0] - forward(at, images(), TOY_HEADS)).abs().max() < 1e-5


@pytest.mark.parametrize("which", ["plain", "LayerScale", "blocks in chunks", "no class token"])
def test_a_folded_layer_scale_changes_nothing_in_a_plain_vit(which: str, tmp_path: Path) -> None:
    """ViTDet's blocks without windows and relative positions, which start at zero, are those of a plain ViT."""
    member, save = SOURCES[which]
    at = numbers(member)
    method, content = save(at)
    torch.save(content, tmp_path / "source.pth")
    ckptconv.convert(tmp_path / "source.pth", tmp_path / "vit.pth", method, target="vitdet")
    loaded = torch.load(tmp_path / "vit.pth", weights_only=True)["model"]
    assert not [name for name in loaded if "gamma" in name or name.startswith(("norm.", "cls_token"))]
    token = {"cls_token": at["cls_token"]} if member.class_token else {}
    unnormed = {name: tensor for name, tensor in at.items() if not name.startswith("norm.")}
    wanted = forward(unnormed, images(), TOY_HEADS)
    assert (forward(loaded | token, images(), TOY_HEADS) - wanted).abs().max() < 1e-5


# -- traps of real files -----------------------------------------------------------------------------------------------


def test_a_file_for_vitdet_is_a_torch_file(tmp_path: Path) -> None:
    torch.save(numbers(TOY), tmp_path / "vit.pth")
    with pytest.raises(UsageError) as caught:
        ckptconv.convert(tmp_path / "vit.pth", tmp_path / "out.safetensors", "timm", target="vitdet")
    assert caught.value.message == (
        "vitdet reads its weights from 'model' of a torch file, and safetensors has no such thing"
    )
    assert not (tmp_path / "out.safetensors").exists()
    ckptconv.convert(tmp_path / "vit.pth", tmp_path / "out.safetensors", "timm", target="mmpretrain")
    assert (tmp_path / "out.safetensors").exists()


def test_moco_v3s_heads_are_said_and_not_guessed(tmp_path: Path) -> None:
    """ViT-S of MoCo v3 has 12 heads, that of DINO 6, and no tensor tells."""
    at = numbers(replace(TOY, embed_dim=384, depth=12, hidden_dim=8))
    for method, content, heads in (
        ("mocov3", {"state_dict": {f"module.base_encoder.{k}": v for k, v in at.items()}}, 12),
        ("dino", at, 6),
    ):
        torch.save(content, tmp_path / "vit.pth")
        ckptconv.convert(tmp_path / "vit.pth", tmp_path / "out.pth", method, force=True)
        said = json.loads(torch.load(tmp_path / "out.pth", weights_only=True)["meta"]["ckptconv"])
        assert said["backbone"]["num_heads"] == heads
        assert said["backbone"]["name"] == "ViT-S/8"
