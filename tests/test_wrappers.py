"""What trainers leave in names: before all of them, and inside of some."""

from __future__ import annotations

import re

import pytest
import torch

from ckptconv.errors import IncompletePlanError
from ckptconv.planning.identify import choose
from ckptconv.remap import remap_state_dict
from ckptconv.rules import Rule, keep
from ckptconv.spec import Section
from ckptconv.wrappers import INNER, OUTER, wrapper_of
from tests.support.cases import case
from tests.test_remap import STRIP, network


def refusal(state: dict[str, torch.Tensor], rules: tuple[Rule, ...]) -> str:
    with pytest.raises(IncompletePlanError) as caught:
        remap_state_dict(state, rules)
    return caught.value.message


@pytest.mark.parametrize("wrapper", [*OUTER, "module._orig_mod.", "_orig_mod.module.", "module._fsdp_wrapped_module."])
def test_wrappers_are_taken_off(wrapper: str) -> None:
    state = network(wrapper + "net.")
    out, plan = remap_state_dict(state, STRIP)
    assert plan.prefix == wrapper
    assert all(out[name] is state[f"{wrapper}net.{name}"] for name in network())


def test_a_wrapper_that_the_rules_spell_out_is_left_to_them() -> None:
    state = network("module.net.")
    out, plan = remap_state_dict(state, (keep("module.net.{k...}", "{k...}"),))
    assert plan.prefix == ""
    assert set(out) == set(network())


@pytest.mark.parametrize(
    ("names", "wrapper"),
    [
        ([], ""),
        (["module.a", "module.b"], "module."),
        (["module.a", "b"], ""),
        (["module.module.a"], "module.module."),
        (["_orig_mod.module.a", "_orig_mod.module.b"], "_orig_mod.module."),
        (["modules.a"], ""),
        (["net.module.a"], ""),
    ],
)
def test_a_wrapper_is_what_every_name_starts_with(names: list[str], wrapper: str) -> None:
    assert wrapper_of(names) == wrapper


def inside_blocks(state: dict[str, torch.Tensor], segment: str) -> dict[str, torch.Tensor]:
    """What wraps the blocks of the second stage, and nothing else, leaves in their names."""
    return {re.sub(r"(layer2\.\d+\.)", rf"\1{segment}.", name): tensor for name, tensor in state.items()}


@pytest.mark.parametrize("segment", INNER)
@pytest.mark.parametrize("prefix", ["net.", "module.net.", "net._orig_mod.", "module._fsdp_wrapped_module.net."])
def test_wrappers_of_single_blocks_are_taken_off(segment: str, prefix: str) -> None:
    state = inside_blocks(network(prefix), segment)
    out, _ = remap_state_dict(state, STRIP)
    assert set(out) == set(network())
    assert sum(segment in name for name in state) >= 20
    for name, tensor in state.items():
        bare = name.replace(f"{segment}.", "").removeprefix(prefix.replace(f"{segment}.", ""))
        assert out[bare] is tensor


def test_module_inside_of_a_name_is_no_wrapper() -> None:
    message = refusal(inside_blocks(network("net."), "module"), STRIP)
    assert "layer2.0.module.conv1.weight" in message


def test_a_wrapper_of_blocks_that_the_rules_spell_out_is_left_to_them() -> None:
    spelled = (keep("net.layer2.{b}._orig_mod.{k...}", "layer2.{b}.{k...}"), *STRIP)
    out, plan = remap_state_dict(inside_blocks(network("net."), "_orig_mod"), spelled)
    assert set(out) == set(network())
    assert {move.rule for move in plan.moves} == set(spelled)


def test_two_names_that_differ_by_a_wrapper_alone_are_not_taken_for_one() -> None:
    state = network("net.")
    twin = {"net.layer2._orig_mod.0.conv1.weight": torch.zeros_like(state["net.layer2.0.conv1.weight"])}
    for both in ({**state, **twin}, {**twin, **state}):
        assert "net.layer2._orig_mod.0.conv1.weight" in refusal(both, STRIP)


def test_of_two_such_names_the_user_may_drop_either() -> None:
    state = network("net.")
    kept = "net.layer2._orig_mod.0.conv1.weight"
    both = {**state, kept: torch.zeros_like(state["net.layer2.0.conv1.weight"])}
    for dropped, source in ((kept, "net.layer2.0.conv1.weight"), ("net.layer2.0.conv1.weight", kept)):
        out, _ = remap_state_dict(both, STRIP, drop=[dropped])
        assert set(out) == set(network())
        assert out["layer2.0.conv1.weight"] is both[source]


def test_what_a_rule_reads_beside_its_tensor_is_found_in_a_wrapped_block() -> None:
    """The bias of DINOv3's layer is that times its mask."""
    own = case("dinov3_vits16plus_teacher")
    names = {name: re.sub(r"(blocks\.\d+\.)", r"\1_checkpoint_wrapped_module.", name) for name in own.tensors}
    sections = {own.section: Section({names[name]: spec for name, spec in own.tensors.items()}, {})}
    plan = choose(sections, "auto", own.options).plan
    assert {m.target: m.sources for m in plan.moves} == {
        target: tuple(names[name] for name in sources) for target, sources in own.kept.items()
    }
    assert any(len(m.sources) > 1 and "_checkpoint_wrapped_module" in m.sources[1] for m in plan.moves)


@pytest.mark.parametrize(
    ("names", "wrapper"),
    [
        (["n_averaged", "module.conv1.weight"], "module."),
        (["module.conv1.weight", "steps"], "module."),
        (["module.n_averaged", "module.module.conv1.weight"], "module.module."),
        (["n_averaged"], ""),
        (["n_averaged", "module.conv1.weight", "conv1.weight"], ""),
    ],
)
def test_a_counter_beside_a_wrapped_network_does_not_hide_the_wrapper(names: list[str], wrapper: str) -> None:
    assert wrapper_of(names) == wrapper
