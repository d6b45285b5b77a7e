"""The BEiT family: its names against MMPretrain's own class, its numbers against its authors' definition."""

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
from ckptconv import backbones
from ckptconv.backbones.beit import Beit, read
from ckptconv.backbones.interface import PARTS, described
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.methods.beit import BEIT_NAMES
from ckptconv.planning.make_plan import make_plan
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.problem_texts import text_of
from ckptconv.spec import Section, TensorSpec
from tests.backbones.test_vit import BASE
from tests.backbones.test_vit import forward as plain_forward
from tests.support import pretrain
from tests.support.specs import state

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # of mmpretrain, once a process


PRETRAINED = Beit(768, 12, 3072, 16, 14, 12)
LARGE = Beit(1024, 24, 4096, 16, 14, 16)
FINETUNED = replace(PRETRAINED, shared_relative_positions=False, own_relative_positions=True)
ABSOLUTE = replace(PRETRAINED, shared_relative_positions=False, absolute_positions=True, layer_scale=False)
CAE = replace(PRETRAINED, shared_relative_positions=False, absolute_positions=True)
MEMBERS = {"shared table": PRETRAINED, "L": LARGE, "own tables": FINETUNED, "no table": ABSOLUTE, "CAE": CAE}


def plan_of(names: Mapping[str, TensorSpec], target: str = "official") -> Plan:
    layout = BEIT_NAMES.layouts[0]
    return make_plan(BEIT_NAMES, replace(layout, without=PARTS), "", Section(names, {}), Options(target=target))


def mmpretrain(member: Beit, heads: int | None = None, **more: Any) -> Any:
    """The real network, built as its config would be."""
    return pretrain.models().BEiTViT(
        arch={
            "embed_dims": member.embed_dim,
            "num_layers": member.depth,
            "num_heads": heads or member.num_heads,
            "feedforward_channels": member.hidden_dim,
        },
        img_size=member.grid_size * member.patch_size,
        patch_size=member.patch_size,
        bias="qv_bias",
        final_norm=member.final_norm,
        out_type="raw",
        use_abs_pos_emb=member.absolute_positions,
        use_rel_pos_bias=member.own_relative_positions,
        use_shared_rel_pos_bias=member.shared_relative_positions,
        layer_scale_init_value=0.1 if member.layer_scale else 0.0,
        **more,
    )


@pytest.mark.mmdet
@pytest.mark.parametrize("which", MEMBERS)
def test_mmpretrain_takes_every_tensor_and_lacks_none(which: str) -> None:
    member = MEMBERS[which]
    real = mmpretrain(member)
    wanted = {f"backbone.{name}": tuple(tensor.shape) for name, tensor in real.state_dict().items()}
    plan = plan_of(state(member.entries()), "mmpretrain")
    assert plan.problems == ()
    assert {move.target: move.spec.shape for move in plan.moves} == wanted


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (
            replace(PRETRAINED, own_relative_positions=True),
            "it has both shared and own relative positions, and MMPretrain's BEiTViT has one or the other",
        ),
    ],
    ids=["both tables"],
)
def test_an_obstacle_is_the_only_problem(member: Beit, why: str) -> None:
    (problem,) = plan_of(state(member.entries()), "mmpretrain").problems
    assert (problem.kind, plan_of(state(member.entries())).problems) == ("target", ())
    assert (
        text_of(problem) == f"mmpretrain cannot hold {member.name}: {why} "
        "(`target='timm'` or `target='transformers'` or `target='official'` can)"
    )


@pytest.mark.parametrize(
    ("member", "why"),
    [
        *(
            (
                member,
                (
                    "its attention has relative position biases, which MMDetection's ViTDet does not have "
                    "(`target='timm'` or `target='mmpretrain'` or `target='transformers'` or `target='official'` can)"
                ),
            )
            for member in (PRETRAINED, FINETUNED)
        ),
        (
            replace(ABSOLUTE, absolute_positions=False),
            (
                "it has no positions "
                "(`target='timm'` or `target='mmpretrain'` or `target='transformers'` or `target='official'` can)"
            ),
        ),
    ],
    ids=["shared table", "own tables", "no positions"],
)
def test_what_vitdet_has_no_place_for(member: Beit, why: str) -> None:
    (problem,) = plan_of(state(member.entries()), "vitdet").problems
    assert text_of(problem) == f"vitdet cannot hold {member.name}: {why}"


def test_a_vit_is_read_as_a_vit_and_a_beit_as_a_beit() -> None:
    for member in (*MEMBERS.values(), BASE):
        assert backbones.read(state(member.entries())) == member
    assert read(state(BASE.entries())) is None


def test_it_is_described_in_plain_values() -> None:
    assert described(CAE) == {
        "family": "BEiT",
        "embed_dim": 768,
        "depth": 12,
        "num_heads": 12,
        "hidden_dim": 3072,
        "patch_size": 16,
        "grid_size": 14,
        "in_channels": 3,
        "absolute_positions": True,
        "shared_relative_positions": False,
        "own_relative_positions": False,
        "layer_scale": True,
        "qv_bias": True,
        "final_norm": True,
    }


# -- reading back, and one thing wrong ---------------------------------------------------------------------------------


@st.composite
def members(draw: st.DrawFn) -> Beit:
    shared, own = draw(st.booleans()), draw(st.booleans())
    relative = shared or own
    dim = draw(st.integers(2, 300))
    grid = draw(st.integers(3, 30))
    absolute = draw(st.booleans()) or not relative
    return Beit(
        embed_dim=dim,
        depth=draw(st.integers(1, 5)),
        hidden_dim=draw(st.integers(2, 900)),
        patch_size=draw(st.integers(1, 32)),
        grid_size=grid,
        num_heads=draw(st.integers(1, 20)) if relative else dim // 64 if dim % 64 == 0 else None,
        in_channels=draw(st.integers(1, 5)),
        absolute_positions=absolute,
        shared_relative_positions=shared,
        own_relative_positions=own,
        layer_scale=draw(st.booleans()),
        qv_bias=draw(st.booleans()) or not relative,
        final_norm=draw(st.booleans()),
    )


NEAR = {which: state(replace(member, depth=3).entries()) for which, member in MEMBERS.items()}


def test_an_index_may_be_absent_and_is_named() -> None:
    names = {key: spec for key, spec in NEAR["own tables"].items() if not key.endswith("_index")}
    plan = plan_of(names)
    assert plan.complete
    assert plan.optional_missing == tuple(f"blocks.{i}.attn.relative_position_index" for i in range(3))


# -- numbers -----------------------------------------------------------------------------------------------------------

TOY = Beit(64, 3, 128, 8, 4, 4)
TOY_CAE = replace(TOY, shared_relative_positions=False, absolute_positions=True, num_heads=1)
Tensors = dict[str, torch.Tensor]


def index_of(grid: int) -> torch.Tensor:
    """Which number of the table belongs to each pair of tokens, one by one; a class token's three are the last."""
    places = [(row, column) for row in range(grid) for column in range(grid)]
    side = 2 * grid - 1
    index = torch.zeros(grid**2 + 1, grid**2 + 1, dtype=torch.int64)
    for i, (row, column) in enumerate(places, 1):
        for j, (other_row, other_column) in enumerate(places, 1):
            index[i, j] = (row - other_row + grid - 1) * side + column - other_column + grid - 1
    index[0, :], index[:, 0], index[0, 0] = side**2, side**2 + 1, side**2 + 2
    return index


def numbers(member: Beit) -> Tensors:
    generator = torch.Generator().manual_seed(3)
    made = {}
    for name, shape in member.entries().items():
        noise = torch.randn(shape, generator=generator)
        scaled = name.endswith(("gamma_1", "gamma_2", "norm1.weight", "norm2.weight", "norm.weight"))
        made[name] = 1 + 0.5 * noise if scaled else noise if name.endswith("_table") else 0.1 * noise
        if name.endswith("_index"):
            made[name] = index_of(member.grid_size)
    return made


def forward(at: Tensors, images: torch.Tensor, member: Beit) -> torch.Tensor:
    """Tokens after the last norm: 'BEiT', section 2, with the biases of T5 in two dimensions, and none for keys."""
    x = functional.conv2d(images, at["patch_embed.proj.weight"], at["patch_embed.proj.bias"], stride=member.patch_size)
    x = torch.cat([at["cls_token"].expand(len(x), -1, -1), x.flatten(2).mT], 1) + at.get("pos_embed", 0)
    index = index_of(member.grid_size)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], at[f"{name}.weight"], at[f"{name}.bias"], 1e-6)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ at[f"{name}.weight"].mT + at[f"{name}.bias"]

    for i in range(member.depth):
        b = f"blocks.{i}."
        query, key, value = (norm(x, b + "norm1") @ at[b + "attn.qkv.weight"].mT).chunk(3, -1)
        query, value = query + at[b + "attn.q_bias"], value + at[b + "attn.v_bias"]
        query, key, value = (t.unflatten(-1, (member.num_heads, -1)).transpose(1, 2) for t in (query, key, value))
        logits = query @ key.mT / query.shape[-1] ** 0.5
        for table in ("rel_pos_bias.relative_position_bias_table", b + "attn.relative_position_bias_table"):
            if table in at:
                logits = logits + at[table][index].permute(2, 0, 1)
        heads = (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = x + at.get(b + "gamma_1", 1) * linear(heads, b + "attn.proj")
        hidden = functional.gelu(linear(norm(x, b + "norm2"), b + "mlp.fc1"))
        x = x + at.get(b + "gamma_2", 1) * linear(hidden, b + "mlp.fc2")
    return norm(x, "norm")


@pytest.mark.mmdet
@pytest.mark.parametrize(
    ("method", "member"),
    [
        ("beit", TOY),
        ("beitv2", TOY),
        ("beit-names", replace(TOY, shared_relative_positions=False, own_relative_positions=True)),
        ("cae", TOY_CAE),
    ],
    ids=["shared table", "layers for the class token", "own tables", "absolute positions"],
)
def test_mmpretrain_computes_what_the_source_computes(method: str, member: Beit, tmp_path: Path) -> None:
    at = numbers(member)
    content = {f"encoder.{name}": tensor for name, tensor in at.items()} if method == "cae" else dict(at)
    content["mask_token"] = torch.ones(1, 1, 64)
    if method == "beitv2":
        content |= {
            name.replace("blocks.0", "cls_pt_layers.0"): -tensor for name, tensor in at.items() if "ks.0." in name
        }
    torch.save({"model": content}, tmp_path / "source.pth")
    ckptconv.convert(tmp_path / "source.pth", tmp_path / "beit.pth", method, target="mmpretrain")
    init = {"type": "Pretrained", "checkpoint": str(tmp_path / "beit.pth"), "prefix": "backbone."}
    real = mmpretrain(member, init_cfg=init)
    real.init_weights()
    real.eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        assert (real(images)[0] - forward(at, images, member)).abs().max() < 1e-5


@pytest.mark.mmdet
def test_mmpretrain_gives_each_block_the_shared_table_where_its_config_wants_that(tmp_path: Path) -> None:
    """Its hook takes the shared index away together with the table, so a file without an index would stop it."""
    at = numbers(TOY)
    torch.save({"model": at}, tmp_path / "source.pth")
    ckptconv.convert(tmp_path / "source.pth", tmp_path / "beit.pth", "beit", target="mmpretrain")
    init = {"type": "Pretrained", "checkpoint": str(tmp_path / "beit.pth"), "prefix": "backbone."}
    real = mmpretrain(replace(TOY, shared_relative_positions=False, own_relative_positions=True), init_cfg=init)
    real.init_weights()
    table = at["rel_pos_bias.relative_position_bias_table"]
    assert all(torch.equal(layer.attn.relative_position_bias_table, table) for layer in real.layers)


def test_pixels_of_beit_are_said_where_the_method_is_named(tmp_path: Path) -> None:
    torch.save({"model": numbers(TOY)}, tmp_path / "source.pth")
    for method, found, pixels in (("beit", "beit", [127.5] * 3), ("auto", "beit-names", None)):
        receipt = ckptconv.convert(tmp_path / "source.pth", tmp_path / "beit.pth", method, force=True)
        said = json.loads(torch.load(tmp_path / "beit.pth", weights_only=True)["meta"]["ckptconv"])
        assert receipt.method.name == found
        assert (said["pixels"] and said["pixels"]["mean"]) == pixels


@pytest.mark.parametrize("layer_scale", [True, False])
def test_vitdet_computes_what_a_beit_without_tables_computes(layer_scale: bool, tmp_path: Path) -> None:
    """EVA and CAE. ViTDet's blocks without windows and relative positions, which start at zero, are a plain ViT's."""
    member = replace(
        TOY, shared_relative_positions=False, absolute_positions=True, num_heads=1, layer_scale=layer_scale
    )
    at = numbers(member)
    torch.save({"model": {**at, "mask_token": torch.ones(1, 1, 64)}}, tmp_path / "source.pth")
    ckptconv.convert(tmp_path / "source.pth", tmp_path / "vit.pth", "eva", target="vitdet")
    loaded = torch.load(tmp_path / "vit.pth", weights_only=True)["model"]
    plain = VisionTransformer(64, 3, 128, 8, 16, class_token=False, final_norm=False)
    assert {name: tuple(tensor.shape) for name, tensor in loaded.items()} == dict(plain.entries())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    wanted = forward(at, images, member)
    found = plain_forward({**loaded, **{k: at[k] for k in ("cls_token", "norm.weight", "norm.bias")}}, images, heads=1)
    assert (found - wanted).abs().max() < 1e-5
