"""The Swin family against MMDetection's own class, and against a forward pass written from its authors' definition."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from hypothesis import strategies as st
from torch import Tensor

import ckptconv
from ckptconv.backbones.interface import PARTS, described
from ckptconv.backbones.swin import Swin, read, read_unshifted, read_v2
from ckptconv.backbones.swin_targets import MMDET
from ckptconv.errors import IncompletePlanError, UnidentifiedError
from ckptconv.methods.swin import SWIN
from ckptconv.patterns import Pattern
from ckptconv.planning.identify import choose
from ckptconv.planning.make_plan import make_plan
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.problem_texts import text_of
from ckptconv.rules import keep
from ckptconv.spec import DTYPES, Section, TensorSpec
from tests.support.cases import case
from tests.support.specs import state


def swin(width: int, depths: tuple[int, ...], window: int = 7, **more: Any) -> Swin:
    """Heads of 32 channels, MLPs four times as wide, as all of its authors' sizes have them."""
    stages = len(depths)
    heads = tuple((width << s) // 32 for s in range(stages))
    return replace(Swin(width, 4 * width, depths, heads, (window,) * stages), **more)


TINY = swin(96, (2, 2, 6, 2))
SMALL = swin(96, (2, 2, 18, 2))
BASE = swin(128, (2, 2, 18, 2), 12)
LARGE = swin(192, (2, 2, 18, 2), 12, window_sizes=(12, 12, 12, 6))
V2 = swin(96, (2, 2, 6, 2), window_sizes=(), version=2)
MINI = Swin(16, 32, (2, 2, 2, 1), (2, 4, 8, 16), (3,) * 4)


def plan_of(names: Mapping[str, TensorSpec], target: str = "mmdet") -> Plan:
    return make_plan(SWIN, replace(SWIN.layouts[0], without=PARTS), "", Section(names, {}), Options(target=target))


# -- MMDetection's word ------------------------------------------------------------------------------------------------


def mmdet_swin(member: Swin, **more: Any) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmcv and torch.jit each say what will change in their next version
        from mmdet.models.backbones import SwinTransformer

    arguments: dict[str, Any] = {
        "embed_dims": member.embed_dim,
        "depths": member.depths,
        "num_heads": member.num_heads,
        "window_size": member.window_sizes[0],
        "mlp_ratio": member.hidden_dim // member.embed_dim,
        "patch_size": member.patch_size,
        "strides": (member.patch_size, 2, 2, 2),
        "qkv_bias": member.qkv_bias,
    }
    network: torch.nn.Module = SwinTransformer(**{**arguments, **more})
    return network


def pretrained(path: Path) -> Any:
    """As a config file gives it: mmdet reads it by attribute."""
    from mmengine import ConfigDict

    return ConfigDict(type="Pretrained", checkpoint=str(path))


@pytest.mark.mmdet
@pytest.mark.parametrize(
    "member",
    [
        TINY,
        SMALL,
        BASE,
        MINI,
        replace(MINI, qkv_bias=False),
        replace(MINI, patch_size=2),
        replace(TINY, window_sizes=(14,) * 4),
    ],
    ids=lambda member: member.name,
)
def test_what_is_written_for_mmdet_is_all_that_its_network_holds(member: Swin) -> None:
    network = {f"backbone.{name}": tuple(t.shape) for name, t in mmdet_swin(member).state_dict().items()}
    plan = plan_of(state(member.entries()))
    written = {move.target: move.spec.shape for move in plan.moves}
    fresh = [Pattern(text) for text in MMDET.fresh]
    assert plan.problems == ()
    assert {name: shape for name, shape in network.items() if all(p.match(name) is None for p in fresh)} == written
    assert [d.source for d in plan.dropped] == ["norm.weight", "norm.bias"]
    for pattern in fresh:
        assert any(pattern.match(name) for name in network)


def test_the_official_names_stay_as_they_are() -> None:
    plan = plan_of(state(TINY.entries()), "official")
    assert {(m.sources[0], m.target, m.op) for m in plan.moves} == {(name, name, None) for name in TINY.entries()}
    assert plan.problems == plan.dropped == ()


# -- the same features -------------------------------------------------------------------------------------------------


class Reference:
    """Swin's features stage by stage, from its tensors in its authors' names. Written from the paper's section 3.

    A block is x + attention(norm1(x)), then x + MLP(norm2(x)). Attention looks at windows, cut from the map, which in
    every second block is first rolled by half a window; parts of a window that are no neighbours do not see each other.
    Between stages, the four pixels (0, 0), (1, 0), (0, 1), (1, 1) of each square are put behind each other.
    """

    def __init__(self, tensors: Mapping[str, Tensor], member: Swin, eps: float) -> None:
        self.tensors, self.member, self.eps = tensors, member, eps

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], self.eps)

    def stages(self, image: Tensor) -> list[Tensor]:
        """Each stage's output, (B, H, W, C), before any norm."""
        proj = self.tensors["patch_embed.proj.weight"], self.tensors["patch_embed.proj.bias"]
        x = F.conv2d(image, *proj, stride=self.member.patch_size).permute(0, 2, 3, 1)
        x, outputs = self.norm(x, "patch_embed.norm"), []
        for stage, depth in enumerate(self.member.depths):
            for block in range(depth):
                at = f"layers.{stage}.blocks.{block}."
                shift = (self.member.window_sizes[stage] // 2) * (block % 2)
                x = x + self.attention(self.norm(x, f"{at}norm1"), f"{at}attn.", stage, shift)
                x = x + self.linear(F.gelu(self.linear(self.norm(x, f"{at}norm2"), f"{at}mlp.fc1")), f"{at}mlp.fc2")
            outputs.append(x)
            if stage + 1 < len(self.member.depths):
                corners = [x[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
                at = f"layers.{stage}.downsample."
                x = self.linear(self.norm(torch.cat(corners, -1), f"{at}norm"), f"{at}reduction")
        return outputs

    def attention(self, x: Tensor, at: str, stage: int, shift: int) -> Tensor:
        """Windows one by one, and their pixels pair by pair where a bias or a mask is asked for: slow and plain."""
        w, heads = self.member.window_sizes[stage], self.member.num_heads[stage]
        batch, height, width, channels = x.shape
        assert height % w == width % w == 0
        table = self.tensors[f"{at}relative_position_bias_table"]
        pixels = [(row, column) for row in range(w) for column in range(w)]
        index = [[(r - s + w - 1) * (2 * w - 1) + (c - d + w - 1) for s, d in pixels] for r, c in pixels]
        bias = table[torch.tensor(index)].permute(2, 0, 1)
        x = x.roll((-shift, -shift), (1, 2))
        result = torch.zeros_like(x)
        for top in range(0, height, w):
            for left in range(0, width, w):
                window = x[:, top : top + w, left : left + w].reshape(batch, w * w, channels)
                q, k, v = self.linear(window, f"{at}qkv").reshape(batch, w * w, 3, heads, -1).permute(2, 0, 3, 1, 4)
                scores = q @ k.transpose(-1, -2) / (channels // heads) ** 0.5 + bias
                # what was rolled in from the other side lies in the last rows and columns
                side = torch.tensor([(top + r >= height - shift, left + c >= width - shift) for r, c in pixels])
                apart = (side[:, None] != side[None]).any(-1)
                scores = scores.masked_fill(apart, float("-inf")) if shift else scores
                out = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, w, w, channels)
                result[:, top : top + w, left : left + w] = out
        return self.linear(result.roll((shift, shift), (1, 2)), f"{at}proj")


def numbers(member: Swin, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in member.entries().items()}
    for name, tensor in tensors.items():
        # rows of unit length keep numbers near 1, norms about 1 so that no layer's order of channels goes unseen
        scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 and "table" not in name else 0.3
        tensors[name] = tensor * scale + ("norm" in name and name.endswith("weight"))
    return tensors


FORWARD = {
    "small windows": (MINI, 96),
    "three blocks in a stage, other sizes": (Swin(24, 72, (1, 3, 2, 2), (3, 3, 6, 12), (2,) * 4, patch_size=2), 32),
    "no bias for queries, keys and values": (replace(MINI, qkv_bias=False), 96),
}


@pytest.mark.mmdet
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
@pytest.mark.parametrize("which", FORWARD)
def test_mmdet_computes_from_the_file_what_the_authors_network_computes(which: str, eps: float, tmp_path: Path) -> None:
    member, pixels = FORWARD[which]
    tensors = numbers(member, seed=1)
    torch.save({"model": tensors}, tmp_path / "swin.pth")
    method = "auto" if member.qkv_bias else [keep("{key...}", "{key...}")]  # nobody publishes Swins without
    receipt = ckptconv.convert(tmp_path / "swin.pth", tmp_path / "backbone.pth", method)
    assert receipt.method.name == ("swin" if member.qkv_bias else "rules")
    network = mmdet_swin(
        member,
        norm_cfg={"type": "LN", "eps": eps},
        init_cfg=pretrained(tmp_path / "backbone.pth"),
        drop_path_rate=0.0,
    )
    before = {name: t.clone() for name, t in network.state_dict().items()}
    network.init_weights()
    after = network.state_dict()
    for stage in range(4):  # norms of stages start anew: 1 and 0
        assert torch.equal(after[f"norm{stage}.weight"], torch.ones_like(after[f"norm{stage}.weight"]))
        assert torch.equal(after[f"norm{stage}.bias"], before[f"norm{stage}.bias"])
    image = torch.randn(2, 3, pixels, pixels, generator=torch.Generator().manual_seed(2))
    network.eval()
    with torch.no_grad():
        found = network(image)
        wanted = Reference(tensors, member, eps).stages(image)
    assert len(found) == len(wanted) == 4
    for mine, plain in zip(found, wanted, strict=True):
        normed = F.layer_norm(plain, plain.shape[-1:], eps=eps).permute(0, 3, 1, 2)
        assert mine.shape == normed.shape
        assert (mine - normed).abs().max() < 1e-5


@pytest.mark.mmdet
def test_without_the_order_of_merged_columns_mmdet_computes_something_else(tmp_path: Path) -> None:
    """The comparison above can see it: only the columns where patches merge are laid out as in the source."""
    tensors = numbers(MINI, seed=1)
    torch.save({"model": tensors}, tmp_path / "swin.pth")
    ckptconv.convert(tmp_path / "swin.pth", tmp_path / "backbone.pth")
    written = torch.load(tmp_path / "backbone.pth", weights_only=True)["state_dict"]
    same = dict(written)
    for stage in range(3):
        for part in ("reduction.weight", "norm.weight", "norm.bias"):
            name = f"backbone.stages.{stage}.downsample.{part}"
            same[name] = tensors[f"layers.{stage}.downsample.{part}"]
            assert not torch.equal(same[name], written[name])
    image = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    wanted = Reference(tensors, MINI, 1e-5).stages(image)
    network = mmdet_swin(MINI, drop_path_rate=0.0)
    network.eval()
    network.load_state_dict({name.removeprefix("backbone."): t for name, t in same.items()}, strict=False)
    with torch.no_grad():
        found = network(image)
    gaps = [
        float((mine - F.layer_norm(plain, plain.shape[-1:]).permute(0, 3, 1, 2)).abs().max())
        for mine, plain in zip(found, wanted, strict=True)
    ]
    assert gaps[0] < 1e-5
    assert min(gaps[1:]) > 1e-2


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "name"),
    [
        (TINY, "Swin-T, window 7"),
        (SMALL, "Swin-S, window 7"),
        (BASE, "Swin-B, window 12"),
        (LARGE, "Swin-L, windows 12-12-12-6"),
        (V2, "SwinV2-T"),
        (MINI, "Swin-2-2-2-1, 16 channels, window 3"),
        (replace(BASE, shifted=False, positions=3136, window_sizes=(14, 14, 14, 7)), "MixMIM-B, windows 14-14-14-7"),
    ],
    ids=str,
)
def test_name(member: Swin, name: str) -> None:
    assert member.name == name


def test_it_is_described_in_plain_values() -> None:
    assert described(LARGE) == {
        "family": "Swin",
        "version": 1,
        "shifted": True,
        "embed_dim": 192,
        "hidden_dim": 768,
        "depths": [2, 2, 18, 2],
        "num_heads": [6, 12, 24, 48],
        "window_sizes": [12, 12, 12, 6],
        "patch_size": 4,
        "in_channels": 3,
        "patch_norm": True,
        "qkv_bias": True,
        "positions": 0,
        "final_norm": True,
    }
    assert described(V2)["window_sizes"] == []


# -- reading back ------------------------------------------------------------------------------------------------------


@st.composite
def members(draw: st.DrawFn) -> Swin:
    stages = draw(st.integers(1, 5))
    count = st.integers(1, 4)
    version = draw(st.sampled_from([1, 1, 2]))
    return Swin(
        embed_dim=draw(st.integers(1, 40)),
        hidden_dim=draw(st.integers(1, 90)),
        depths=tuple(draw(count) for _ in range(stages)),
        num_heads=tuple(draw(st.integers(1, 50)) for _ in range(stages)),
        window_sizes=tuple(draw(st.integers(1, 24)) for _ in range(stages))
        if version == 1 or draw(st.booleans())
        else (),
        patch_size=draw(st.sampled_from([1, 2, 4, 8])),
        in_channels=draw(st.integers(1, 5)),
        patch_norm=draw(st.booleans()),
        qkv_bias=draw(st.booleans()),
        positions=draw(st.sampled_from([0, 0, 9, 3136])),
        version=version,
    )


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["cls_token", "blocks.0.attn.qkv.weight", "norm.weight"],
        ["layer1.0.conv2.weight", "conv1.weight"],
        ["downsample_layers.0.0.weight", "stages.0.0.dwconv.weight"],
        ["patch_embed.proj.weight", "norm.weight"],
        ["layers.12.blocks.0.attn.qkv.weight", "layers.12.blocks.0.norm1.weight"],
    ],
    ids=["empty", "ViT", "ResNet", "ConvNeXt", "a stem alone", "more stages than any has"],
)
def test_read_gives_none_for_names_of_no_swin(names: list[str]) -> None:
    found = {name: TensorSpec((64,), DTYPES["float32"]) for name in names}
    assert read(found) is None
    assert read_unshifted(found) is None
    assert read_v2(found) is None


def read_either(names: Mapping[str, TensorSpec]) -> Swin | None:
    """What one of the two families reads; never both."""
    found = [member for member in (read(names), read_v2(names)) if member is not None]
    assert len(found) < 2
    return found[0] if found else None


# -- one thing wrong ---------------------------------------------------------------------------------------------------

NEAR = {m.name: state(m.entries()) for m in (TINY, BASE, LARGE, MINI, replace(SMALL, qkv_bias=False))}


def test_of_two_tables_that_do_not_agree_the_other_stages_tell_which_is_wrong() -> None:
    for block in (0, 1):
        key = f"layers.3.blocks.{block}.attn.relative_position_bias_table"
        for wrong in ((169, 12), (225, 24)):
            (problem,) = plan_of({**NEAR[TINY.name], key: TensorSpec(wrong, DTYPES["float32"])}).problems
            assert text_of(problem) == f"{key}: shape {list(wrong)}, but {key} of {TINY.name} is [169, 24]"


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_stage_that_was_cut_out_is_missing(stage: int) -> None:
    gone = {k for k in NEAR[TINY.name] if k.startswith(f"layers.{stage}.blocks.")}
    plan = plan_of({k: v for k, v in NEAR[TINY.name].items() if k not in gone})
    assert plan.backbone == TINY
    assert {(p.kind, p.key) for p in plan.problems} == {("missing", key) for key in gone}


def test_a_swin_without_its_last_norm_is_another_member_that_a_layout_must_know() -> None:
    names = {k: v for k, v in NEAR[TINY.name].items() if not k.startswith("norm.")}
    plan = plan_of(names)
    assert plan.complete
    assert plan.backbone == replace(read(NEAR[TINY.name]), final_norm=False)
    (problem,) = make_plan(SWIN, SWIN.layouts[0], "", Section(names, {})).problems
    assert text_of(problem) == (
        f"norm.weight of {TINY.name}: it has no norm after the last block, unlike other files of this layout: this "
        "file may be truncated"
    )


# -- networks that MMDetection has no place for ------------------------------------------------------------------------

NO_PLACE = {
    "positions": (
        replace(TINY, positions=3136),
        "it has an absolute position embedding, on which the loading code of MMDetection's Swin fails",
    ),
    "no norm of patches": (
        replace(TINY, patch_norm=False),
        "it normalises merged patches but not the first ones; MMDetection's Swin does both or neither",
    ),
    "odd MLPs": (
        replace(TINY, hidden_dim=240),
        "the width of its MLPs is not a multiple of its stages' width, which MMDetection's Swin needs",
    ),
}


@pytest.mark.parametrize("which", NO_PLACE)
def test_an_obstacle_is_the_only_problem_for_mmdet_and_none_for_the_official_names(which: str) -> None:
    member, why = NO_PLACE[which]
    assert member.obstacle("mmdet") == why
    assert member.obstacle("official") == ""
    (problem,) = plan_of(state(member.entries())).problems
    assert problem.kind == "target"
    others = " or ".join(
        f"`target='{name}'`" for name in ("timm", "transformers", "official") if not member.obstacle(name)
    )
    assert text_of(problem) == f"mmdet cannot hold {member.name}: {why} ({others} can)"
    assert plan_of(state(member.entries()), "official").complete


@pytest.mark.mmdet
def test_mmdet_breaks_on_positions(tmp_path: Path) -> None:
    member = replace(MINI, positions=16)
    names = {f"backbone.{name}": t for name, t in numbers(member, 0).items() if name == "absolute_pos_embed"}
    torch.save({"state_dict": names}, tmp_path / "positions.pth")
    network = mmdet_swin(
        MINI, use_abs_pos_embed=True, pretrain_img_size=16, init_cfg=pretrained(tmp_path / "positions.pth")
    )
    assert network.state_dict()["absolute_pos_embed"].shape == (1, 16, 16)
    with pytest.raises(ValueError, match="not enough values to unpack"):
        network.init_weights()  # type: ignore[operator]


@pytest.mark.mmdet
def test_mmdet_norms_merged_patches_and_the_first_ones_or_neither() -> None:
    names = mmdet_swin(MINI, patch_norm=False).state_dict()
    assert not [name for name in names if fnmatch(name, "*downsample.norm*") or fnmatch(name, "patch_embed.norm*")]


@pytest.mark.mmdet
def test_mmdet_has_no_second_version() -> None:
    import mmdet.models.backbones as backbones

    assert [name for name in dir(backbones) if name.startswith("Swin")] == ["SwinTransformer"]


def test_mixmim_is_refused_with_the_reason_and_written_in_its_own_names() -> None:
    mixmim = case("mixmim_base")
    with pytest.raises(IncompletePlanError) as caught:
        choose(mixmim.sections, "mixmim", Options())
    said = caught.value.message
    assert said == (
        "mmdet cannot hold MixMIM-B, windows 14-14-14-7: its windows are never shifted and it adds positions to "
        "its patches, so MMDetection's SwinTransformer would compute something else; mmpretrain has this network "
        "as MixMIMTransformer (`target='official'` can)"
    )
    for name in ("mixmim_base", "mmselfsup_mixmim_base"):
        with pytest.raises(UnidentifiedError) as unguessed:
            choose(case(name).sections, "auto", Options())
        assert unguessed.value.message == said
    names = {k: v for k, v in mixmim.tensors.items() if k != "absolute_pos_embed"}
    with pytest.raises(IncompletePlanError) as caught:
        choose({"model": Section(names, {})}, "mixmim", Options(target="official"))
    assert "absolute_pos_embed of MixMIM-B" in caught.value.message


def test_version_2_goes_to_timm_and_not_to_mmdet() -> None:
    for name in ("swinv2_t_classifier", "simmim_swinv2b", "torchvision_swin_v2_t"):
        assert choose(case(name).sections, "auto", Options()).plan.target == "timm"
        with pytest.raises(UnidentifiedError) as caught:
            choose(case(name).sections, "auto", Options(target="mmdet"))
        (line,) = caught.value.message.splitlines()
        assert line.endswith("a SwinV2 can be written for timm, transformers, official")


def test_version_2_without_its_buffers_does_not_tell_its_windows() -> None:
    """No tensor but a buffer tells them, and position biases are computed from them."""
    tensors = {k: v for k, v in case("swinv2_t_classifier").tensors.items() if not k.endswith("relative_coords_table")}
    sections = {"model": Section(tensors, {})}
    with pytest.raises(IncompletePlanError) as caught:
        choose(sections, "swin", Options())
    assert caught.value.message == (
        "timm cannot hold SwinV2-T: no tensor of the file tells the size of its windows: relative_coords_table does, "
        "which is a buffer (`target='official'` can)"
    )
    assert choose(sections, "swin", Options(target="official")).plan.complete


# -- methods -----------------------------------------------------------------------------------------------------------


def kept(name: str, options: Options | None = None) -> dict[str, tuple[str, ...]]:
    """Source names by target name, for MMDetection."""
    return {m.target: m.sources for m in choose(case(name).sections, "auto", options or Options()).plan.moves}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("moby_swint", 169),
        ("esvit_swint_full", 169),
        ("ibot_swint_full", 169),
        ("ibot_swint_teacher", 169),
        ("timm_swint", 169),
        ("simmim_swinb_w6", 325),
        ("greenmim_swinb", 325),
        ("mmselfsup_simmim_swinb", 325),
    ],
)
def test_each_layout_is_written_for_mmdet(name: str, count: int) -> None:
    targets = kept(name)
    assert len(targets) == count
    assert all(target.startswith("backbone.") for target in targets)
    assert "backbone.stages.0.blocks.1.attn.w_msa.relative_position_bias_table" in targets


def test_of_mobys_two_encoders_the_trained_one_is_kept() -> None:
    assert {s.split(".")[0] for sources in kept("moby_swint").values() for s in sources} == {"encoder"}


def test_timms_stages_begin_where_the_authors_end() -> None:
    targets = kept("timm_swint")
    for stage in range(3):
        for part in ("reduction.weight", "norm.weight", "norm.bias"):
            target = f"backbone.stages.{stage}.downsample.{part}"
            assert targets[target] == (f"layers.{stage + 1}.downsample.{part}",)


def test_names_of_timm_are_not_taken_for_the_authors() -> None:
    with pytest.raises(IncompletePlanError) as caught:
        choose(case("timm_swint").sections, "swin", Options())
    assert caught.value.hint == "The file is explained by timm: `ckptconv.convert('SRC', 'DST', method='timm')`"


def test_of_student_and_teacher_auto_takes_the_teacher() -> None:
    for student, teacher, name in (
        ("esvit_swint_student", "esvit_swint_full", "esvit"),
        ("ibot_swint_student", "ibot_swint_full", "ibot"),
    ):
        both = {**case(student).sections, **case(teacher).sections}
        match = choose(both, "auto", Options())
        assert (match.method.name, match.plan.section, match.also) == (name, "teacher", ())
        match = choose(both, f"{name}-student", Options())
        assert (match.plan.section, match.plan.complete) == ("student", True)


def test_a_file_in_mm_names_goes_to_mmdet_byte_for_byte_and_to_the_authors_order_and_back(tmp_path: Path) -> None:
    """MMSelfSup's names are those of our own output, with the last norm; what is moved there is moved back here."""
    tensors = numbers(MINI, seed=3)
    torch.save({"model": tensors}, tmp_path / "official.pth")
    ckptconv.convert(tmp_path / "official.pth", tmp_path / "mm.pth")
    mm = torch.load(tmp_path / "mm.pth", weights_only=True)["state_dict"]
    full = {**mm, "backbone.norm3.weight": tensors["norm.weight"], "backbone.norm3.bias": tensors["norm.bias"]}
    torch.save({"state_dict": full}, tmp_path / "mmselfsup.pth")
    receipt = ckptconv.convert(tmp_path / "mmselfsup.pth", tmp_path / "again.pth")
    assert receipt.method.name == "mmselfsup"
    assert all(move.op is None for move in receipt.plan.moves)
    again = torch.load(tmp_path / "again.pth", weights_only=True)["state_dict"]
    assert list(again) == list(mm)
    assert all(torch.equal(again[name], mm[name]) for name in mm)
    ckptconv.convert(tmp_path / "mmselfsup.pth", tmp_path / "back.pth", target="official")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
