"""Tensors that a Python program holds, and what a plan says of names that do not fit. The oracle is torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptconv.backbones import TARGETS
from ckptconv.backbones.resnet import ResNet
from ckptconv.conversion.transform import transform
from ckptconv.errors import CkptconvError, IncompletePlanError, UnidentifiedError, UnreadableError, UsageError
from ckptconv.formats import open_checkpoint
from ckptconv.methods.interface import Layout, Method
from ckptconv.ops import concat, permute, reshape
from ckptconv.patterns import RuleError
from ckptconv.planning.adjust import cast_plan
from ckptconv.planning.make_plan import make_plan
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.problem_texts import text_of
from ckptconv.remap import remap_state_dict, spec_of
from ckptconv.rules import Rule, drop, fuse, keep
from ckptconv.spec import DTYPES, Section, TensorSpec
from tests.support import hints

STRIP = (keep("net.{key...}", "{key...}"),)
TINY = ResNet((2, 2, 2, 2), False, 4, 4, 4, 1, 7, 3)  # a ResNet-18 of 4 channels


def network(prefix: str = "", dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A whole small network; no two of its tensors hold the same numbers."""
    state: dict[str, torch.Tensor] = {}
    for i, (name, shape) in enumerate(TINY.entries().items()):
        kind = torch.int64 if TINY.optional(name) else dtype
        numbers = torch.arange(int(np.prod(shape)), dtype=torch.float32) / 64 + i
        state[prefix + name] = numbers.reshape(shape).to(kind)
    return state


def heads(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}fc.weight": torch.ones(3, 32), f"{prefix}fc.bias": torch.zeros(3)}


def refusal(call: Callable[[], Any], kind: type[CkptconvError]) -> CkptconvError:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return caught.value


def same(tensor: torch.Tensor, wanted: torch.Tensor) -> bool:
    raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (tensor, wanted)]
    return tensor.dtype == wanted.dtype and tensor.shape == wanted.shape and torch.equal(*raw)


# -- names alone change -----------------------------------------------------------------------------------------------


def test_a_tensor_whose_name_alone_changes_is_the_object_that_came_in() -> None:
    state = network("net.")
    out, plan = remap_state_dict(state, STRIP)
    assert list(out) == [name.removeprefix("net.") for name in state]
    assert all(out[name] is state[f"net.{name}"] for name in out)
    assert isinstance(plan, Plan)
    assert plan.complete
    assert plan.backbone == TINY
    assert plan.method == "rules"


def test_the_mapping_that_came_in_is_left_alone() -> None:
    state = network("net.")
    before = dict(state)
    remap_state_dict(state, STRIP)
    assert list(state) == list(before)
    assert all(state[name] is before[name] for name in before)


def test_numpy_arrays_are_tensors_too() -> None:
    state = {name: tensor.numpy() for name, tensor in network("net.").items()}
    out, plan = remap_state_dict(state, STRIP)
    assert all(out[name] is state[f"net.{name}"] for name in out)
    assert plan.backbone == TINY


def test_parameters_and_buffers_of_a_module_are_tensors_too() -> None:
    state = {name: torch.nn.Parameter(t) if t.is_floating_point() else t for name, t in network("net.").items()}
    out, _ = remap_state_dict(state, STRIP)
    assert all(out[name] is state[f"net.{name}"] for name in out)


def test_auto_is_the_default_and_a_name_a_method_or_rules_will_do() -> None:
    state = {**network("encoder_q."), **heads("encoder_q."), **network("encoder_k."), "queue": torch.zeros(2, 3)}
    mine = Method("mine", "mine", (Layout((keep("encoder_q.{k...}", "{k...}"), drop("{k...}", "the rest")), ("",)),))
    for method in ("auto", "moco"):
        out, plan = remap_state_dict(state, method)
        assert (set(out), plan.method) == (set(network()), "moco")
    without_head = {name: t for name, t in state.items() if ".fc." not in name}
    for given_method in (mine, mine.layouts[0].rules, iter(mine.layouts[0].rules)):
        out, plan = remap_state_dict(without_head, given_method)
        assert all(out[name] is state[f"encoder_q.{name}"] for name in network())
        assert {d.why for d in plan.dropped} == {"the rest"}


# -- where the tensors lie --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "section"),
    [
        (lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}, "state_dict"),
        (lambda s: {"a": {"b": {"c": s}}}, "a.b.c"),
        (lambda s: {"models": [{"x": 1}, s]}, "models.1"),
        (lambda s: {"models": (s,)}, "models.0"),
        (lambda s: {"net.v1": s}, "net.v1"),
        (lambda s: {"net": {"v1": 0, "x": {}}, "net.v1": s}, "net.v1"),
        (lambda s: {"a.b": {"x": 1}, "a": {"b": {"c": s}}}, "a.b.c"),
        (lambda s: {7: s}, "7"),
    ],
    ids=[
        "beside others",
        "deep",
        "in a list",
        "in a tuple",
        "dots in a key",
        "a key's head",
        "a key's tail",
        "a number",
    ],
)
def test_a_section_is_found_by_its_path(wrap: Callable[[Any], Any], section: str) -> None:
    state = network("net.")
    out, plan = remap_state_dict(wrap(state), STRIP, section=section)
    assert plan.section == section
    assert all(out[name] is state[f"net.{name}"] for name in network())


def test_of_two_sections_with_one_path_the_plan_and_the_tensors_are_of_the_same_one() -> None:
    outer, inner = network(), network()
    for tree in ({"a": {"b": inner}, "a.b": outer}, {"a.b": outer, "a": {"b": inner}}):
        out, _ = remap_state_dict(tree, "torchvision", section="a.b")
        assert all(out[name] is outer[name] for name in out)


def test_rules_without_a_section_find_the_one_that_fits() -> None:
    state = network("net.")
    out, plan = remap_state_dict({"ema": network("ema."), "model": state}, STRIP)
    assert plan.section == "model"
    assert out["conv1.weight"] is state["net.conv1.weight"]


def test_a_section_that_is_not_there_is_refused_with_those_that_are() -> None:
    error = refusal(lambda: remap_state_dict({"model": network()}, section="state_dict"), UsageError)
    assert error.message == "there is no section 'state_dict'"
    assert error.hint == "Sections: 'model'."


@pytest.mark.parametrize("nothing", [{}, {"epoch": 3}, {"a": [1, 2]}, {3: torch.ones(1)}])
def test_no_tensors_by_name(nothing: Any) -> None:
    error = refusal(lambda: remap_state_dict(nothing), UnreadableError)
    assert str(error) == "the file holds no named tensors\nA state dict maps names to tensors."


def of_no_plain_numbers() -> dict[str, Callable[[], Any]]:
    kernel = torch.ones(64, 3, 7, 7)

    def distributed() -> Any:
        from torch.distributed.tensor import DTensor  # its constructor needs the processes that hold the other parts

        return torch.Tensor._make_wrapper_subclass(DTensor, kernel.shape)

    def fake() -> Any:
        from torch._subclasses import FakeTensorMode

        return FakeTensorMode().from_tensor(kernel)

    return {
        "a tensor of the layout torch.sparse_coo": kernel.to_sparse,
        "a tensor of the layout torch._mkldnn": kernel.to_mkldnn,
        "a tensor on the device 'meta'": lambda: kernel.to("meta"),
        "a tensor of the class FakeTensor": fake,
        "one rank's part of a tensor": distributed,
        "a parameter without a shape yet": torch.nn.parameter.UninitializedParameter,
        "a nested tensor": lambda: torch.nested.nested_tensor([torch.ones(2)]),
        "a masked array": lambda: np.ma.masked_equal(kernel.numpy(), 5),
        "a tensor of type torch.qint8": lambda: torch.quantize_per_tensor(kernel, 0.1, 0, torch.qint8),
    }


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor", "ignore:.*nested tensors")
@pytest.mark.parametrize("what", of_no_plain_numbers())
def test_a_tensor_that_does_not_hold_its_numbers_is_refused(what: str) -> None:
    """As in files: a plan with such a tensor would be complete, and the network start from nothing."""
    state = {**network(), "conv1.weight": of_no_plain_numbers()[what]()}
    error = refusal(lambda: remap_state_dict(state, "torchvision"), IncompletePlanError)
    assert f"  conv1.weight is {what}, which cannot be read as a plain tensor" in error.message


def test_subclasses_of_tensors_that_hold_their_numbers_are_plain() -> None:
    class Own(torch.Tensor):
        pass

    state = network()
    for own in (state["conv1.weight"].as_subclass(Own), torch.nn.Parameter(state["conv1.weight"])):
        assert remap_state_dict({**state, "conv1.weight": own}, "torchvision")[0]["conv1.weight"] is own


# -- what a user may add ----------------------------------------------------------------------------------------------


def test_drop_accepts_a_loss_by_name_and_the_plan_says_so() -> None:
    state = {**network("net."), "extra.weight": torch.ones(2), "extra.bias": torch.ones(2)}
    refusal(lambda: remap_state_dict(state, STRIP), IncompletePlanError)
    refusal(lambda: remap_state_dict(state, STRIP, drop=["extra.weight"]), IncompletePlanError)
    out, plan = remap_state_dict(state, STRIP, drop=["extra.{p}"])
    assert set(out) == set(network())
    assert {(d.source, d.why) for d in plan.dropped} == {
        ("extra.weight", "dropped on request"),
        ("extra.bias", "dropped on request"),
    }


@pytest.mark.parametrize("channels", [3, "321"])
def test_channels_are_a_list(channels: Any) -> None:
    error = refusal(lambda: remap_state_dict(network(), channels=channels), UsageError)
    assert error.message == f"'channels' must be a list of whole numbers, not {channels!r}"


def test_drop_goes_before_the_rules_and_by_the_whole_name() -> None:
    state = {**network("module.net."), "module.net.fc.weight": torch.ones(2)}
    assert remap_state_dict(state, STRIP, drop=["module.net.fc.{p}"])[1].complete
    error = refusal(lambda: remap_state_dict(state, STRIP, drop=["net.fc.{p}"]), IncompletePlanError)
    assert "module.net.fc.weight" in error.message


def test_drop_of_a_tensor_that_the_backbone_needs_is_no_way_round_it() -> None:
    error = refusal(lambda: remap_state_dict(network("net."), STRIP, drop=["net.conv1.weight"]), IncompletePlanError)
    assert (
        "conv1.weight of ResNet-18, width x0.0625 ([4, 3, 7, 7]): missing, no tensor of the file becomes it"
        in error.message
    )


def test_an_unused_drop_is_an_error() -> None:
    error = refusal(lambda: remap_state_dict(network("net."), STRIP, drop=["head.{p}"]), UsageError)
    assert error.message.startswith("`drop=['head.{p}']` matches no name of ")
    assert error.hint == "See the names: `ckptconv.inspect('SRC')`"
    state = {**network("net."), "extra": torch.ones(1)}
    error = refusal(lambda: remap_state_dict(state, STRIP, drop=["extra", "ex{p}"]), UsageError)
    assert error.message.startswith("`drop=['ex{p}']` matches no name of ")


def test_a_drop_pattern_must_be_one() -> None:
    error = refusal(lambda: remap_state_dict(network("net."), STRIP, drop=["{a}{b}"]), RuleError)
    assert error.message == "the pattern '{a}{b}' has two captures in one segment"


def test_strip_prefix_takes_what_lies_under_it_and_drops_the_rest() -> None:
    state = {**network("net.trunk."), **network("net.twin."), "queue": torch.ones(1)}
    out, plan = remap_state_dict(state, "generic", strip_prefix="net.trunk.")
    assert all(out[name] is state[f"net.trunk.{name}"] for name in network())
    assert {d.why for d in plan.dropped} == {"outside the prefix 'net.trunk.'"}
    assert len(plan.dropped) == len(network()) + 1


def test_strip_prefix_behind_a_wrapper_may_be_written_without_it() -> None:
    state = {**network("module.net."), "module.queue": torch.ones(1)}
    for prefix in ("net.", "module.net."):
        out, plan = remap_state_dict(state, "generic", strip_prefix=prefix)
        assert set(out) == set(network())
        assert plan.prefix == "module.net."


def test_a_prefix_that_is_not_there_is_refused_with_those_that_are() -> None:
    state = {**network("net.trunk."), **network("net.twin.")}
    error = refusal(lambda: remap_state_dict(state, "generic", strip_prefix="backbone."), UsageError)
    assert error.message == "no name starts with 'backbone.'"
    assert "net.trunk." in error.hint
    assert "net.twin." in error.hint


def test_a_prefix_that_ends_inside_a_segment_is_refused_and_not_tried() -> None:
    """'encoder' is also how 'encoder_k.' starts: a prefix ends with a dot."""
    error = refusal(lambda: remap_state_dict(network("encoder."), "generic", strip_prefix="encoder"), UsageError)
    assert "encoder." in error.hint


def test_targets() -> None:
    small_stem = ResNet((2, 2, 2, 2), False, 64, 64, 64, 1, 3, 3)
    state = {name: torch.ones(shape) for name, shape in small_stem.entries().items()}
    error = refusal(lambda: remap_state_dict(state), UnidentifiedError)
    assert "its stem is 3x3, for small images" in error.message
    assert set(remap_state_dict(state, target="torchvision")[0]) == set(state)
    error = refusal(lambda: remap_state_dict(state, target="detectron"), UsageError)
    assert str(error) == f"there is no target 'detectron'\nTargets: {', '.join(TARGETS)}."


@pytest.mark.parametrize("method", [[], ["torchvision"], [keep("a", "a"), "b"], 42, None])
def test_what_is_no_method_is_refused(method: Any) -> None:
    error = refusal(lambda: remap_state_dict(network(), method), UsageError)
    assert error.message == "the method must be a name, a Method or a list of rules"
    assert error.hint == "Make rules with keep, drop, fuse, split."


# -- what does not fit ------------------------------------------------------------------------------------------------


def test_two_sources_for_one_target_collide() -> None:
    state = {**network("a."), "b.conv1.weight": torch.ones(4, 3, 7, 7)}
    both = (keep("a.{k...}", "{k...}"), keep("b.{k...}", "{k...}"))
    error = refusal(lambda: remap_state_dict(state, both), IncompletePlanError)
    assert "  b.conv1.weight: conv1.weight is already made from a.conv1.weight" in error.message


def test_weights_in_whole_numbers_are_no_weights() -> None:
    state = {**network("net."), "net.conv1.weight": torch.ones(4, 3, 7, 7, dtype=torch.int8)}
    error = refusal(lambda: remap_state_dict(state, STRIP), IncompletePlanError)
    assert error.message.splitlines()[1:] == [
        "  net.conv1.weight: dtype int8, but conv1.weight of ResNet-18, width x0.0625 is floating point"
    ]


def test_counters_may_be_of_any_type() -> None:
    state = {name: t if t.ndim else t.to(torch.int32) for name, t in network("net.").items()}
    assert remap_state_dict(state, STRIP)[1].complete


def test_a_refusal_names_three_keys_a_kind_counts_the_others_and_says_what_to_type() -> None:
    state = network("net.")
    del state["net.bn1.bias"]
    state |= {f"net.neck.{i}.{p}": torch.ones(2) for i in range(3) for p in ("weight", "bias")}
    state |= {"scale": torch.tensor(1.0)}
    error = refusal(lambda: remap_state_dict(state, STRIP, section=""), IncompletePlanError)
    assert error.message.splitlines() == [
        "the rules of rules do not account for the top level: 8 problems",
        "  scale (float32 []): no rule explains it",
        "  net.neck.0.weight (float32 [2]): ResNet-18, width x0.0625 has no neck.0.weight",
        "  net.neck.0.bias (float32 [2]): ResNet-18, width x0.0625 has no neck.0.bias",
        "  … and 4 more like these (unexplained): net.neck.1.weight, net.neck.1.bias, net.neck.2.weight and 1 more",
        "  bn1.bias of ResNet-18, width x0.0625 ([4]): missing, no tensor of the file becomes it",
    ]
    assert "drop" not in error.hint  # bn1.bias would still be missing
    state["net.bn1.bias"] = torch.ones(4)
    error = refusal(lambda: remap_state_dict(state, STRIP, section=""), IncompletePlanError)
    assert error.hint == (
        "If these are not part of the backbone, drop them: "
        "`ckptconv.convert('SRC', 'DST', section='', drop=['scale', 'net.neck.{p...}'])`"
    )


def test_the_drops_a_refusal_proposes_are_enough_and_take_nothing_else() -> None:
    state = {
        **network("net."),
        "net.layer0.neck.weight": torch.ones(2),
        "net.head.1.w": torch.ones(2),
        "x": torch.ones(1),
    }
    error = refusal(lambda: remap_state_dict(state, STRIP), IncompletePlanError)
    (words,) = hints.commands(error.hint)
    out, plan = remap_state_dict(state, STRIP, drop=hints.asked(words, ())[1].drop)
    assert set(out) == set(network())
    assert {d.source for d in plan.dropped} == set(state) - set(network("net."))


# -- ops: the plan's answer against torch's ---------------------------------------------------------------------------

FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn]
HWIO = (  # as Haiku and TF keep a ResNet: kernels HWIO, norms [1, 1, 1, C], one name for what torch calls two
    keep("{m...}.w", "{m...}.weight", permute(3, 2, 0, 1)),
    keep("{m...}.scale", "{m...}.weight", reshape(-1)),
    keep("{m...}.offset", "{m...}.bias", reshape(-1)),
    keep("{m...}.mean_ema", "{m...}.running_mean", reshape(-1)),
    keep("{m...}.var_ema", "{m...}.running_var", reshape(-1)),
    keep("{m...}.num_batches_tracked", "{m...}.num_batches_tracked"),
)
_HAIKU = {"bias": "offset", "running_mean": "mean_ema", "running_var": "var_ema"}


def haiku(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    out = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        if tensor.ndim == 4:
            out[f"{module}.w"] = tensor.permute(2, 3, 1, 0)
        elif tensor.ndim == 1:
            out[f"{module}.{_HAIKU.get(leaf, 'scale')}"] = tensor.reshape(1, 1, 1, -1)
        else:
            out[name] = tensor
    return out


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_network_with_hwio_kernels_and_four_axes_norms_comes_out_as_torch_has_it(dtype: torch.dtype) -> None:
    wanted = network(dtype=dtype)
    out, plan = remap_state_dict(haiku(wanted), HWIO)
    assert plan.backbone == TINY
    assert set(out) == set(wanted)
    assert all(same(out[name], wanted[name]) for name in wanted)
    assert all(tensor.is_contiguous() for tensor in out.values())


def test_the_same_for_numpy_arrays() -> None:
    wanted = network()
    out, _ = remap_state_dict({name: t.contiguous().numpy() for name, t in haiku(wanted).items()}, HWIO)
    assert all(np.array_equal(out[name], wanted[name].numpy()) for name in wanted)


def test_parameters_lose_their_gradient_where_an_op_makes_a_new_tensor() -> None:
    wanted = network()
    state = {n: torch.nn.Parameter(t) if t.is_floating_point() else t for n, t in haiku(wanted).items()}
    out, _ = remap_state_dict(state, HWIO)
    assert all(same(out[name].detach(), wanted[name]) for name in wanted)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_fused_halves_of_every_tensor_are_what_torch_cat_gives(dtype: torch.dtype) -> None:
    wanted = network(dtype=dtype)
    state = {name: t for name, t in wanted.items() if not t.ndim}
    for name, tensor in wanted.items():
        if tensor.ndim:
            state |= {f"first.{name}": tensor[:1], f"second.{name}": tensor[1:]}
    rules = (fuse(["first.{k...}", "second.{k...}"], "{k...}", concat(0)), keep("{k...}", "{k...}"))
    out, plan = remap_state_dict(state, rules)
    assert plan.complete
    assert all(same(out[name], wanted[name]) for name in wanted)


def test_an_op_that_does_not_suit_is_a_problem_that_names_the_tensor() -> None:
    rules = (keep("conv1.weight", "conv1.weight", permute(1, 0)), keep("{k...}", "{k...}"))
    error = refusal(lambda: remap_state_dict(network(), rules), IncompletePlanError)
    assert "  conv1.weight: permute(1, 0) does not suit float32 [4, 3, 7, 7]" in error.message


# Networks that no backbone here knows yet: remap_state_dict refuses them, so their moves are asked for by themselves.

HF_VIT = (
    fuse(
        [f"vit.encoder.layer.{{i}}.attention.attention.{part}.{{p}}" for part in ("query", "key", "value")],
        "layers.{i}.attn.qkv.{p}",
        concat(0),
    ),
    keep("vit.encoder.layer.{i}.attention.output.dense.{p}", "layers.{i}.attn.proj.{p}"),
)
CONVNEXT_V2 = (keep("stages.{s}.{b}.grn.{p}", "stages.{s}.{b}.grn.{p}", reshape(-1)),)
HAIKU = (keep("res_net50/~/initial_conv.w", "conv1.weight", permute(3, 2, 0, 1)),)


def hf_vit(dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    state, wanted = {}, {}
    for layer in range(2):
        at, to = f"vit.encoder.layer.{layer}.attention", f"layers.{layer}.attn"
        for p, shape in (("weight", (6, 6)), ("bias", (6,))):
            parts = {part: torch.randn(shape).to(dtype) for part in ("value", "key", "query")}
            state |= {f"{at}.attention.{part}.{p}": tensor for part, tensor in parts.items()}
            wanted[f"{to}.qkv.{p}"] = torch.cat([parts["query"], parts["key"], parts["value"]])
            state[f"{at}.output.dense.{p}"] = wanted[f"{to}.proj.{p}"] = torch.randn(shape).to(dtype)
    return state, wanted


def grn(dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    state = {f"stages.0.1.grn.{p}": torch.randn(1, 1, 1, 24).to(dtype) for p in ("gamma", "beta")}
    return state, {name: tensor.reshape(-1) for name, tensor in state.items()}


def hwio(dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    kernel = torch.randn(7, 7, 3, 8).to(dtype)
    return {"res_net50/~/initial_conv.w": kernel}, {"conv1.weight": kernel.permute(3, 2, 0, 1).contiguous()}


Example = Callable[[torch.dtype], tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    ("rules", "example"), [(HF_VIT, hf_vit), (CONVNEXT_V2, grn), (HAIKU, hwio)], ids=["HF ViT", "ConvNeXt V2", "Haiku"]
)
def test_what_a_file_of_such_a_network_becomes(
    rules: tuple[Rule, ...], example: Example, dtype: torch.dtype, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    state, wanted = example(dtype)
    torch.save(state, tmp_path / "state.pth")
    layout = Layout(rules, ("",))
    with open_checkpoint(tmp_path / "state.pth") as checkpoint:
        plan = make_plan(Method("test", "test", (layout,)), layout, "", checkpoint.sections[""])
        assert [p.kind for p in plan.problems] == ["backbone"]
        assert text_of(plan.problems[0]).startswith("the kept tensors are not a known backbone: ")
        pieces = {piece.name: piece for piece in transform(plan, checkpoint)}
        assert set(pieces) == set(wanted)
        for name, tensor in wanted.items():
            assert pieces[name].spec == spec_of(tensor)
            assert b"".join(pieces[name].read(True)) == tensor.view(torch.uint8).numpy().tobytes()
    error = refusal(lambda: remap_state_dict(state, rules), IncompletePlanError)
    assert "the kept tensors are not a known backbone" in error.message


# -- the plan accounts for everything ---------------------------------------------------------------------------------

VECTOR = TensorSpec((2,), DTYPES["float32"])


def draft(names: Mapping[str, TensorSpec], *rules: Rule, options: Options | None = None) -> Plan:
    layout = Layout(rules, ("",))
    return make_plan(Method("test", "test", (layout,)), layout, "", Section(names, {"epoch": "int"}), options)


def accounted(plan: Plan) -> set[str]:
    """Source names that are moved, dropped, or named by a problem."""
    said = {s for m in plan.moves for s in m.sources} | {d.source for d in plan.dropped}
    words = {word.strip(",:()") for p in plan.problems for word in text_of(p).split()}
    return said | {p.key for p in plan.problems} | words


_segment = st.sampled_from(["q", "k", "v", "a", "b"])
_names = st.lists(_segment, min_size=1, max_size=3).map(".".join)
_specs = st.sampled_from([VECTOR, TensorSpec((3, 2), DTYPES["float32"]), TensorSpec((2,), DTYPES["int64"])])
_ways: st.SearchStrategy[Rule] = st.sampled_from(
    [
        keep("a.{x...}", "{x...}"),
        keep("{x}", "{x}"),
        keep("{x}.b", "{x}", reshape(2, 1)),
        drop("b.{x...}", "no use"),
        fuse(["q.{x}", "k.{x}"], "qk.{x}", concat(0)),
        fuse(["q.{x}", "k.{x}", "v.{x}"], "qkv", concat(0)),
        fuse(["{x}.q", "{x}.k"], "qk", concat(0)),
    ]
)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(
    st.dictionaries(_names, _specs, max_size=8),
    st.lists(_ways, min_size=1, max_size=4, unique_by=lambda rule: rule.sources[0]),
)
def test_every_source_is_moved_dropped_or_reported(names: dict[str, TensorSpec], rules: list[Rule]) -> None:
    plan = draft(names, *rules)
    assert accounted(plan) >= {*names, "epoch"}
    moved = [s for m in plan.moves for s in m.sources]
    gone = [d.source for d in plan.dropped]
    assert len(set(moved)) == len(moved)
    assert not set(moved) & set(gone)
    assert not plan.complete  # none of this is a backbone


def test_parts_of_two_groups_are_never_fused_with_one_another() -> None:
    """Two groups of parts that would get one name are two groups all the same."""
    names = dict.fromkeys(["q.a", "q.b", "k.a"], VECTOR)
    plan = draft(names, fuse(["q.{x}", "k.{x}"], "qk", concat(0)))
    assert [m.sources for m in plan.moves] == [("q.a", "k.a")]
    assert [(p.kind, p.key) for p in plan.problems if p.kind == "parts"] == [("parts", "q.b")]


def test_parts_that_cannot_be_joined_are_all_named() -> None:
    names = {"q.a": VECTOR, "k.a": TensorSpec((2, 2), DTYPES["float32"])}
    (problem, _) = draft(names, fuse(["q.{x}", "k.{x}"], "qk.{x}", concat(0))).problems
    assert problem.kind == "shape"
    assert "q.a" in text_of(problem)
    assert "k.a" in text_of(problem)
    assert "concat(axis=0) cannot join float32 [2] and float32 [2, 2]" in text_of(problem)


def test_what_is_no_tensor_is_dropped_and_said() -> None:
    plan = draft({}, keep("{k...}", "{k...}"))
    assert [(d.source, d.why, d.rule) for d in plan.dropped] == [("epoch", "not a tensor: int", None)]
    assert [(p.kind, text_of(p)) for p in plan.problems] == [("backbone", "no tensor is kept")]


def test_two_plans_are_the_same_if_they_keep_the_same_under_the_same_names() -> None:
    names = dict.fromkeys(["a.x", "b.x"], VECTOR)
    one = draft(names, keep("a.{k}", "{k}"), drop("b.{k}", "this"))
    assert one.same_as(draft(names, drop("b.x", "that"), keep("{n}.x", "x")))
    assert not one.same_as(draft(names, keep("b.{k}", "{k}"), drop("a.{k}", "this")))
    assert not one.same_as(draft(names, keep("a.{k}", "y"), drop("b.{k}", "this")))
    assert not one.same_as(draft(names, keep("a.{k}", "{k}", reshape(1, 2)), drop("b.{k}", "this")))


# -- rounding ---------------------------------------------------------------------------------------------------------


def test_a_cast_plan_rounds_floating_tensors_and_no_others() -> None:
    plan = cast_plan(remap_state_dict(haiku(network()), HWIO)[1], "float16")
    kinds = {(m.spec.dtype.name, str(m.op).rpartition(", ")[2]) for m in plan.moves}
    assert kinds == {("float16", "cast to float16"), ("int64", "None")}
    kernel = next(m for m in plan.moves if m.target == "conv1.weight")
    assert str(kernel.op) == "permute(3, 2, 0, 1), cast to float16"
    assert kernel.spec.shape == (4, 3, 7, 7)


def test_a_cast_to_the_type_there_is_changes_nothing() -> None:
    plan = remap_state_dict(network())[1]
    assert cast_plan(plan, "float32") == plan


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("float12", "there is no element type 'float12'"),
        ("int8", "tensors of type int8 cannot be cast"),
        ("float8_e5m2", "tensors of type float8_e5m2 cannot be cast"),
    ],
)
def test_a_type_that_nothing_can_be_cast_to_is_refused(dtype: str, message: str) -> None:
    plan = remap_state_dict(network())[1]
    with pytest.raises(UsageError) as caught:
        cast_plan(plan, dtype)
    assert caught.value.message == message
    assert caught.value.hint.endswith("float16, bfloat16, float32, float64.")


# -- specs of what Python holds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "spec"),
    [
        (torch.zeros(2, 3), TensorSpec((2, 3), DTYPES["float32"])),
        (torch.tensor(1), TensorSpec((), DTYPES["int64"])),
        (torch.zeros(1, dtype=torch.bfloat16), TensorSpec((1,), DTYPES["bfloat16"])),
        (torch.zeros(0, dtype=torch.bool), TensorSpec((0,), DTYPES["bool"])),
        (np.zeros((2, 1), np.float16), TensorSpec((2, 1), DTYPES["float16"])),
        (np.zeros(3, np.uint8), TensorSpec((3,), DTYPES["uint8"])),
        (np.array(["a"]), None),
        (torch.float32, None),
        ([1.0], None),
        ({"shape": ()}, None),
        (None, None),
    ],
    ids=str,
)
def test_spec_of(value: object, spec: TensorSpec | None) -> None:
    assert spec_of(value) == spec
