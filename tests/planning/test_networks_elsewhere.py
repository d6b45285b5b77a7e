"""Networks are found behind any prefix and in any section, and what a hint says to type converts them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from ckptconv.arguments import call
from ckptconv.errors import CkptconvError, UnidentifiedError, UsageError
from ckptconv.methods import METHODS
from ckptconv.planning.copies import Copy, copies
from ckptconv.planning.identify import choose
from ckptconv.planning.make_plan import make_plan
from ckptconv.planning.networks_elsewhere import Alternative, find_alternatives
from ckptconv.planning.options import Options
from ckptconv.planning.plan_search import Planner, Prefilter
from ckptconv.spec import DTYPES, Section, TensorSpec
from tests.backbones.test_resnet import resnet
from tests.support import hints
from tests.support.cases import Case, case, cases

AUTO = Options()
FLOAT = DTYPES["float32"]
FLAT = TensorSpec((7,), FLOAT)
OTHER = {"unknown_head.0.weight": TensorSpec((7, 5), FLOAT)}


def bare(of: Case) -> Section:
    """The names of a case as a file without anything around the network would have them."""
    (section,) = of.sections.values()
    return section


def with_prefix(prefix: str, section: Section, others: Mapping[str, TensorSpec] = OTHER) -> Section:
    return Section({**{prefix + name: spec for name, spec in section.tensors.items()}, **others}, section.others)


def refused(sections: Mapping[str, Section], options: Options = AUTO, method: str = "auto") -> CkptconvError:
    with pytest.raises(CkptconvError) as caught:
        choose(sections, method, options)
    return caught.value


BARE = ["torchvision_r18", "dino_r50_backbone", "mae_vitb16_released", "swin_tiny", "convnext_v2_atto_head"]


def one_of_each_network() -> list[Case]:
    """A case for each network and naming that `auto` finds, the first of each layout."""
    found: dict[tuple[str, str], Case] = {}
    for of in cases():
        if of.guessed and of.held and not of.prefix and of.target is None and not of.section.endswith("..."):
            found.setdefault((of.method, of.backbone), of)
    return list(found.values())


@pytest.mark.parametrize("prefix", ["model.resnet.", "module.backbone_module.", "encoder.module.", "a.b.c.d.e."])
def test_a_network_behind_a_prefix_that_no_method_knows_is_offered_with_the_command(prefix: str) -> None:
    sections = {"state_dict": with_prefix(prefix, bare(case("torchvision_r18")))}
    error = refused(sections)
    outer = "encoder." if prefix == "encoder.module." else prefix  # what wraps the names behind it goes by itself
    assert error.message.startswith("no method explains this file: 'state_dict' holds ")
    assert error.hint == f"A ResNet-18 is under '{outer}': {call('convert', 'SRC', 'DST', strip_prefix=outer)}"
    plan = choose(sections, "auto", Options(strip_prefix=prefix)).plan
    assert len(plan.moves) == 120
    assert {d.source for d in plan.dropped} >= set(OTHER)


@pytest.mark.parametrize("path", ["net", "model_state_dict", "module", "0", "run.weights"])
def test_a_network_in_a_section_that_no_method_knows_is_offered_with_the_command(path: str) -> None:
    sections = {path: bare(case("torchvision_r18"))}
    assert refused(sections).hint == (f"A ResNet-18 is in '{path}': `ckptconv.convert('SRC', 'DST', section='{path}')`")
    assert choose(sections, "auto", Options(section=path)).plan.section == path


def test_a_method_that_explains_all_of_another_section_goes_before_drops() -> None:
    error = refused({"": bare(case("fcmae_atto_dense"))})
    assert error.hint == "A ConvNeXt V2-A is at the top level: `ckptconv.convert('SRC', 'DST', section='')`"


def test_a_prefix_leads_to_the_section_that_has_it() -> None:
    sections = {"net": with_prefix("teacher.", bare(case("torchvision_r18")))}
    assert refused(sections).hint == (
        "A ResNet-18 is under 'teacher.': `ckptconv.convert('SRC', 'DST', strip_prefix='teacher.')`"
    )
    assert choose(sections, "auto", Options(strip_prefix="teacher.")).plan.section == "net"


def test_of_two_sections_that_have_the_prefix_the_later_one_is_named() -> None:
    network = with_prefix("teacher.", bare(case("torchvision_r18")))
    first = {"teacher.conv1.weight": TensorSpec((1,), FLOAT)}
    sections = {"a": Section(first, {}), "b": network}
    assert refused(sections).hint == (
        "A ResNet-18 is in 'b' under 'teacher.': `ckptconv.convert('SRC', 'DST', strip_prefix='teacher.', section='b')`"
    )


def test_a_prefix_that_exists_is_never_denied() -> None:
    broken = dict(with_prefix("teacher.", bare(case("torchvision_r18"))).tensors)
    del broken["teacher.layer1.0.conv1.weight"]
    error = refused({"net": Section(broken, {})}, Options(strip_prefix="teacher."))
    assert "no name starts with" not in error.message
    assert (
        "layer1.0.conv1.weight of ResNet-18 ([64, 64, 3, 3]): missing, no tensor of the file becomes it"
        in error.message
    )


def test_a_prefix_that_does_not_exist_is_refused_with_those_that_help() -> None:
    sections = {"net": with_prefix("teacher.", bare(case("torchvision_r18")))}
    error = refused(sections, Options(strip_prefix="net.teacher."))
    assert isinstance(error, UsageError)
    assert error.message == "no name starts with 'net.teacher.'"
    assert error.hint == "A ResNet-18 is under 'teacher.': `ckptconv.convert('SRC', 'DST', strip_prefix='teacher.')`"
    nothing = {"net": Section({f"a.b.{i}": TensorSpec((1,), FLOAT) for i in range(3)}, {})}
    assert refused(nothing, Options(strip_prefix="x.")).hint == "Prefixes in the file: 'a.b.'."


def test_a_method_that_looks_elsewhere_is_told_where() -> None:
    dino = bare(case("dino_vits16_full"))
    error = refused({"run": dino}, method="dino")
    assert error.hint == "A ViT-S/16 is in 'run': `ckptconv.convert('SRC', 'DST', method='dino', section='run')`"


def test_what_was_asked_for_stays_in_the_command() -> None:
    extra = {"teacher.extra": TensorSpec((1,), FLOAT), **OTHER}
    sections = {"net": with_prefix("teacher.", bare(case("torchvision_r18")), extra)}
    error = refused(sections, Options(drop=("teacher.extra",), target="torchvision"))
    assert error.hint == (
        "A ResNet-18 is under 'teacher.': "
        "`ckptconv.convert('SRC', 'DST', strip_prefix='teacher.', drop=['teacher.extra'], target='torchvision')`"
    )


def test_a_network_that_no_target_holds_is_named_behind_a_prefix_too() -> None:
    own = bare(case("dinov3_vitl16_sat493m"))
    without_scale = Section({name: spec for name, spec in own.tensors.items() if ".ls" not in name}, {})
    error = refused({"run": with_prefix("model.net.", without_scale)})
    assert re.match(r"A ViT-L/16, 4 registers, RoPE is under 'model\.net\.': .* no LayerScale", error.hint)
    assert "ckptconv.convert" not in error.hint


def test_a_network_that_another_target_holds_is_offered_for_that() -> None:
    small = Section({**bare(case("torchvision_r18")).tensors, "conv1.weight": TensorSpec((64, 3, 3, 3), FLOAT)}, {})
    error = refused({"run": with_prefix("model.net.", small)})
    assert error.hint == (
        "A ResNet-18 is under 'model.net.': "
        "`ckptconv.convert('SRC', 'DST', strip_prefix='model.net.', target='torchvision')`"
    )


WITHOUT_NORM = [
    "beit_vitb16_finetuned",
    "mmcls_swint_extracted",
    "mmpretrain_convnext_t_stages",
    "timm_convnext_t_features",
    "timm_swint_features",
]


@pytest.mark.parametrize("of", [*one_of_each_network(), *map(case, WITHOUT_NORM)], ids=str)
def test_every_network_is_found_behind_any_prefix(of: Case) -> None:
    """The commands are typed as for every test; that there is one for each case is what this says."""
    sections = {"run": with_prefix("model.net_1.", bare(of))}
    found = find_alternatives(Planner(sections, AUTO), METHODS)
    assert [(one.section, one.prefix) for one in found][:1] == [("run", "model.")] or found[0].prefix == "model.net_1."
    error, usual = refused(sections), replace(of.options, target=None)
    (words, *_) = hints.commands(error.hint)
    method, options = hints.asked(words, ())
    kept = {s.removeprefix("model.net_1.") for m in choose(sections, method, options).plan.moves for s in m.sources}
    expected = {s for m in choose(of.sections, of.method, usual).plan.moves for s in m.sources}
    assert kept == expected


@pytest.mark.parametrize("of", one_of_each_network(), ids=str)
def test_hints_work_whatever_is_wrong_with_a_file(of: Case) -> None:
    """Refusals of a file with a name too much, in a wrong section, with a wrong method: `conftest` types each hint."""
    section = bare(of)
    extra = Section({**section.tensors, **OTHER}, section.others)
    seen = 0
    for sections, options, method in (
        ({of.section: extra}, AUTO, "auto"),
        ({of.section: extra}, AUTO, of.method),
        ({of.section: section}, AUTO, "moco" if of.method != "moco" else "swav"),
        ({"elsewhere": section}, AUTO, of.method),
        ({of.section: section}, Options(strip_prefix="nothing."), "auto"),
        ({of.section: section}, Options(section="nothing"), "auto"),
        ({of.section: section}, Options(target="torchvision"), of.method),
    ):
        with contextlib.suppress(CkptconvError):
            choose(sections, method, options)
            seen += 1
    assert seen < 7


def test_a_circle_in_hints_is_seen() -> None:
    """The check itself: a hint that says what was asked is no hint."""
    sections = {"net": Section(dict(OTHER), {})}
    error = UnidentifiedError("no method explains this file", "Try: `ckptconv.convert('SRC', 'DST')`")
    with pytest.raises(AssertionError, match="a circle"):
        hints.require_typed(sections, "auto", AUTO, error)


@pytest.mark.parametrize("of", cases()[::20], ids=str)
def test_a_quick_look_rules_out_no_layout_that_explains_a_file(of: Case) -> None:
    (section,) = of.sections.values()
    glance, ruled_out = Prefilter(section.tensors), 0
    for method in METHODS:
        for layout in method.layouts:
            if glance.rules_out(layout):
                plan = make_plan(method, layout, "", section, Options())
                explains = plan.complete or plan.unsupported_target
                assert not explains, (method.name, layout.title)
                ruled_out += 1
    assert ruled_out


# -- copies -----------------------------------------------------------------------------------------------------------


def found(sections: Mapping[str, Section], method: str = "auto") -> tuple[Copy, ...]:
    return copies(Planner(sections, AUTO), choose(sections, method, AUTO).plan, METHODS)


def test_an_ema_beside_the_network_is_a_copy() -> None:
    network = bare(case("torchvision_r18"))
    wrapped = Section({f"_orig_mod.module.{n}": s for n, s in network.tensors.items()}, {})
    (copy,) = found({"state_dict": network, "state_dict_ema": wrapped})
    assert (copy.section, copy.prefix, copy.where) == ("state_dict_ema", "", "in 'state_dict_ema'")
    assert copy.alternative == Alternative("ResNet-18", "state_dict_ema", "", None, section_needed=True)


def test_a_key_encoder_is_a_copy() -> None:
    (copy,) = found(case("moco_v2_r50").sections)
    assert copy.where == "in 'state_dict' under 'module.encoder_k.'"
    assert copy.alternative is not None
    options = Options(strip_prefix=copy.alternative.prefix, section=copy.alternative.arguments["section"])
    assert {m.sources[0] for m in choose(case("moco_v2_r50").sections, "auto", options).plan.moves} == {
        name for name in case("moco_v2_r50").tensors if name.startswith("module.encoder_k.") and ".fc." not in name
    }


def test_another_network_and_an_optimizer_are_no_copies() -> None:
    small, large = bare(case("torchvision_r18")), bare(case("dino_r50_backbone"))
    assert found({"state_dict": small, "other": large}) == ()
    assert found(case("simsiam_r50").sections) == ()


@pytest.mark.parametrize("others", [{}, {"head.extra.weight": TensorSpec((7, 5), FLOAT)}])
def test_a_larger_network_is_no_copy_of_a_smaller_one(others: dict[str, TensorSpec]) -> None:
    """A ResNet-34 has all names of a ResNet-18, with the same shapes."""
    small, large = ({n: TensorSpec(s, FLOAT) for n, s in resnet(depth).entries().items()} for depth in (18, 34))
    beside = {f"student.{n}": s for n, s in small.items()} | {f"teacher.{n}": s for n, s in large.items()} | others
    options = Options(strip_prefix="student.")
    for sections in ({"": Section(beside, {})}, {"": Section(beside, {}), "ema": Section(large | others, {})}):
        assert copies(Planner(sections, options), choose(sections, "auto", options).plan, METHODS) == ()
    twice = {"model": Section(small, {}), "ema": Section(small | others, {})}
    assert [copy.section for copy in found(twice, "torchvision")] == ["ema"]


ODD = ["a\nb", "a\tb\r", "\x1b[31mred", "\u202eabc", "a\u2028b", "it's $(id)\x07", "-x\\\n", "net...\x7f", "\udcff"]


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_hints_work_whatever_letters_a_name_has(odd: str) -> None:
    network = bare(case("torchvision_r18"))
    for sections in (
        {f"a.{odd}": network},
        {"state_dict": with_prefix(f"{odd}.", network)},
        {"": with_prefix("", network, {odd: FLAT})},
    ):
        error = refused(sections)
        assert hints.commands(error.hint), error
        assert "\n" not in error.hint
        assert error.hint.isprintable()
        hints.require_typed(sections, "auto", AUTO, error)


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_hints_work_whatever_a_file_is_called(odd: str) -> None:
    convert, inspect = call("convert", "SRC", "DST"), call("inspect", "SRC")
    error = UsageError("it is no checkpoint", f"Convert it: {convert}\nSee the names: {inspect}")
    error.name_files(odd, odd)
    assert [line.isprintable() for line in error.hint.split("\n")] == [True, True]
    assert hints.commands(error.hint) == [["convert", odd, odd], ["inspect", odd]]


# -- the cost, in plans and not in seconds ----------------------------------------------------------------------------


def test_a_refusal_makes_few_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = 0
    complete = Planner.plan

    def counted(self: Planner, *args: object) -> object:
        nonlocal plans
        plans += 1
        return complete(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Planner, "plan", counted)
    names = {
        f"a{i}.b{j}.c{k}.d.{p}": TensorSpec((1,), FLOAT)
        for i in range(20)
        for j in range(20)
        for k in range(20)
        for p in ("weight", "bias")
    }
    assert find_alternatives(Planner({"x": Section(names, {})}, AUTO), METHODS) == ()
    refused({"x": Section(names, {})})
    assert plans < 60
