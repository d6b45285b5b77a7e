"""Which method wrote a file: found by names alone, never guessed where methods differ, and said when none fits."""

from __future__ import annotations

import base64
import gzip
import io
import json
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ckptconv.errors import CkptconvError, IncompletePlanError, UnidentifiedError, UnreadableError, UsageError
from ckptconv.methods import METHODS, rule_file
from ckptconv.methods.interface import Layout, Method
from ckptconv.planning.identify import Sections, choose, identify, nearest, rank
from ckptconv.planning.make_plan import make_plan, unexplained
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.problem_texts import text_of
from ckptconv.planning.same_result import Match
from ckptconv.rules import drop, keep
from ckptconv.sections import find_sections
from ckptconv.spec import DTYPES, Section, TensorSpec
from tests.support import hollow
from tests.support.cases import Case, case, cases

AUTO = Options()


def refusal(call: Callable[[], Any], kind: type[CkptconvError]) -> CkptconvError:
    with pytest.raises(kind) as caught:
        call()
    return caught.value


def sections(*parts: Case) -> dict[str, Section]:
    return {name: section for part in parts for name, section in part.sections.items()}


def found(where: Sections, method: Any = "auto", options: Options = AUTO) -> tuple[str, str]:
    match = choose(where, method, options)
    return match.method.name, match.plan.section


# -- one file, several readings ---------------------------------------------------------------------------------------


def test_a_bare_backbone_is_named_by_its_names_and_all_who_publish_such_files_are_told() -> None:
    match = choose(case("barlowtwins_r50_released").sections, "auto", AUTO)
    assert match.method.name == "torchvision"
    assert set(match.also) == {"swav", "barlowtwins", "vicreg", "vicregl", "dino", "spark"}


def test_a_method_that_is_named_is_not_told_who_else_would_do() -> None:
    match = choose(case("barlowtwins_r50_released").sections, "barlowtwins", AUTO)
    assert (match.method.name, match.named, match.also) == ("barlowtwins", True, ())


def test_the_method_with_fewest_idle_rules_gives_the_name() -> None:
    match = choose(case("vicreg_r50_full").sections, "auto", AUTO)
    assert (match.method.name, match.also) == ("vicreg", ("barlowtwins", "vicregl"))


def test_of_student_and_teacher_auto_takes_the_teacher_and_a_person_can_have_the_student() -> None:
    both = sections(case("dino_r50_student"), case("dino_r50_full"))
    assert found(both) == ("dino", "teacher")
    assert choose(both, "auto", AUTO).also == ()
    assert found(both, "dino-student") == ("dino-student", "student")


CONVERTED = [
    ("torchvision_vissl_converted_r50", "vissl"),
    ("detectron2_moco_r50", "vissl"),
    ("detectron2_moco_r50", "moco"),
    ("detectron2_moco_r50", "pixpro"),
    ("detectron2_moco_r50", "solo-learn"),
    ("detectron2_resim_r50", "resim"),
    ("detectron2_soco_r50", "soco"),
    ("mmselfsup_mocov2_r50", "soco"),
    ("timm_vit_tiny", "mocov3"),
    ("timm_vit_tiny", "mmselfsup"),
    ("torchvision_r18", "mmselfsup"),
    ("torchvision_r18_children", "lightly"),
    ("torchvision_r18_fc", "timm"),
]


@pytest.mark.parametrize(("name", "method"), CONVERTED)
def test_a_method_that_is_named_reads_what_its_own_repository_converts_to(name: str, method: str) -> None:
    of = case(name)
    own = choose(of.sections, of.method, of.options)
    match = choose(of.sections, method, of.options)
    assert (match.method.name, match.named, match.plan.layout) == (method, True, own.plan.layout)
    assert match.plan.same_as(own.plan)
    auto = choose(of.sections, "auto", of.unasked)
    assert method not in (auto.method.name, *auto.also)


def test_what_a_repository_converts_to_is_a_layout_of_another_method() -> None:
    owned = {layout for method in METHODS for layout in method.layouts}
    for method in METHODS:
        assert set(method.converted) <= owned - set(method.layouts)


def test_a_file_of_neither_kind_is_refused_by_the_method_s_own_layouts() -> None:
    error = refusal(lambda: choose(case("simsiam_r50").sections, "moco", AUTO), IncompletePlanError)
    assert "simsiam" in error.hint


def test_dino_student_is_never_guessed() -> None:
    student = case("dino_r50_student").sections
    error = refusal(lambda: choose(student, "auto", AUTO), UnidentifiedError)
    assert "dino-student" not in error.message
    assert all(method.name != "dino-student" for method, _ in rank(student, [m for m in METHODS if m.guess], AUTO))


def test_of_model_and_momentum_encoder_auto_takes_the_model_and_a_person_can_have_the_other() -> None:
    both = sections(case("pycontrast_ema_infomin_r50"), case("pycontrast_infomin_r50"))
    assert found(both) == ("pycontrast", "model")
    assert choose(both, "auto", AUTO).also == ()
    assert found(both, "pycontrast-ema") == ("pycontrast-ema", "model_ema")


def test_with_c4_the_last_stage_comes_from_the_head_over_regions() -> None:
    moves = {m.target: m.sources[0] for m in choose(case("insloc_c4_r50").sections, "auto", AUTO).plan.moves}
    assert moves["layer3.0.conv1.weight"] == "backbone.layer3.0.conv1.weight"
    assert moves["layer4.0.conv1.weight"] == "roi_head.shared_head.layer4.0.conv1.weight"


@pytest.mark.parametrize(("prefix", "takes"), [("encoder1.", "1 channel"), ("encoder2.", "2 channels")])
def test_a_target_that_cannot_take_so_many_channels_refuses_them(prefix: str, takes: str) -> None:
    where = case("cmc_r50_half").sections
    error = refusal(
        lambda: choose(where, "generic", Options(strip_prefix=prefix, target="torchvision")), IncompletePlanError
    )
    assert error.message == (
        f"torchvision cannot hold ResNet-50, width x0.5, images of {takes}: its stem takes {takes}, and "
        "torchvision's ResNet always takes 3 (`target='mmdet'` or `target='timm'` or `target='detectron2'` or "
        "`target='transformers'` or `target='official'` can)"
    )
    assert choose(where, "generic", Options(strip_prefix=prefix)).plan.target == "mmdet"


# -- two methods that both fit ----------------------------------------------------------------------------------------

ONE = """name = "one"
sections = ["model"]
rules = [{keep = "query.{key...}", to = "{key...}"}, {drop = "key.{key...}", why = "the other"}]
"""
OTHER = """name = "other"
sections = ["model"]
rules = [{drop = "query.{key...}", why = "the other"}, {keep = "key.{key...}", to = "{key...}"}]
"""


def twins() -> dict[str, Section]:
    (only,) = case("torchvision_r18").sections.values()
    return {
        "model": Section({f"{head}.{n}": spec for head in ("query", "key") for n, spec in only.tensors.items()}, {})
    }


def own(tmp_path: Path, *texts: str) -> Options:
    methods = []
    for i, text in enumerate(texts):
        path = tmp_path / f"{i}.toml"
        path.write_text(text, encoding="utf-8")
        methods.append(rule_file.load(path))
    return Options(methods=tuple(methods))


def test_two_methods_that_keep_different_tensors_are_not_chosen_between(tmp_path: Path) -> None:
    options = own(tmp_path, ONE, OTHER)
    error = refusal(lambda: choose(twins(), "auto", options), UnidentifiedError)
    assert error.message == (
        "more than one method explains the file, and they keep different tensors: "
        "one keeps 120 tensors of 'model'; other keeps 120 tensors of 'model'"
    )
    assert (
        error.hint == "Choose one:\n`ckptconv.convert('SRC', 'DST', method='one')`\n"
        "`ckptconv.convert('SRC', 'DST', method='other')`"
    )
    assert error.exit_code == 1
    for name, head in (("one", "query"), ("other", "key")):
        match = choose(twins(), name, options)
        assert all(m.sources[0].startswith(f"{head}.") for m in match.plan.moves)


def test_two_methods_that_keep_the_same_tensors_are_both_named(tmp_path: Path) -> None:
    agreeing = ONE.replace('"one"', '"too"').replace("the other", "in other words")
    match = choose(twins(), "auto", own(tmp_path, ONE, agreeing))
    assert (match.method.name, match.also) == ("one", ("too",))


def test_the_same_tensors_of_another_section_are_other_tensors() -> None:
    (section,) = case("torchvision_r18").sections.values()
    both = {"model": section, "ema": section}
    rules = (keep("{k...}", "{k...}"),)
    methods = [Method(n, n, (Layout(rules, (n,)),)) for n in ("model", "ema")]
    error = refusal(lambda: identify(both, methods, AUTO), UnidentifiedError)
    assert "model keeps 120 tensors of 'model'; ema keeps 120 tensors of 'ema'" in error.message


# -- a method that does not fit ---------------------------------------------------------------------------------------


def test_a_wrong_method_is_refused_with_the_right_one() -> None:
    moco = case("moco_v2_r50").sections
    error = refusal(lambda: choose(moco, "simsiam", AUTO), IncompletePlanError)
    assert error.message.splitlines()[:2] == [
        "the rules of simsiam do not account for 'state_dict': 647 problems",
        "  module.queue (float32 [128, 65536]): no rule explains it",
    ]
    assert error.hint == "The file is explained by moco: `ckptconv.convert('SRC', 'DST', method='moco')`"
    assert error.exit_code == 1


def test_a_method_that_looks_elsewhere_is_refused_with_the_right_one() -> None:
    error = refusal(lambda: choose(case("moco_v2_r50").sections, "pixpro", AUTO), UnidentifiedError)
    assert error.message == "pixpro expects the weights in model; this file has none there"
    assert error.hint == "The file is explained by moco: `ckptconv.convert('SRC', 'DST', method='moco')`"


def test_a_wrong_method_for_a_file_that_none_explains_is_refused_with_the_nearest() -> None:
    moco = broken_moco()
    error = refusal(lambda: choose(moco, "simsiam", AUTO), IncompletePlanError)
    assert error.hint == "The nearest method is moco: `ckptconv.convert('SRC', 'DST', method='moco')`"
    error = refusal(lambda: choose(moco, "pixpro", AUTO), UnidentifiedError)
    assert error.hint == "The nearest method is moco: `ckptconv.convert('SRC', 'DST', method='moco')`"


def broken_moco() -> dict[str, Section]:
    whole = case("moco_v2_r50")
    tensors = {**whole.tensors, "module.predictor.0.weight": TensorSpec((3,), DTYPES["float32"])}
    return {whole.section: Section(tensors, {})}


def test_the_nearest_method_is_named_with_what_it_leaves_unexplained() -> None:
    error = refusal(lambda: choose(broken_moco(), "auto", AUTO), UnidentifiedError)
    assert error.message.splitlines() == [
        "no method explains this file; the nearest is moco:",
        "the rules of moco do not account for 'state_dict': 1 problem",
        "  module.predictor.0.weight (float32 [3]): no rule explains it",
    ]
    assert error.hint == (
        "If these are not part of the backbone, drop them: "
        "`ckptconv.convert('SRC', 'DST', method='moco', drop=['module.predictor.{p...}'])`"
    )
    accepted = Options(drop=("module.predictor.{p...}",))
    assert found(broken_moco(), "auto", accepted) == ("moco", "state_dict")


def test_the_nearest_plan_is_for_looking_at_and_the_whole_one_if_there_is_one() -> None:
    match = nearest(broken_moco(), "auto", AUTO)
    assert (match.method.name, match.named, match.plan.complete) == ("moco", False, False)
    match = nearest(case("simsiam_r50").sections, "auto", AUTO)
    assert (match.method.name, match.plan.complete) == ("simsiam", True)
    match = nearest(case("simsiam_r50").sections, "moco", AUTO)
    assert (match.method.name, match.named, match.plan.complete) == ("moco", True, False)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("mocov22", "mocov3"), ("simsam", "simsiam"), ("dinostuden", "dino-student"), ("auti", "auto"), ("swaw", "swav")],
)
def test_a_misspelled_method_is_refused_with_what_was_meant(typed: str, meant: str) -> None:
    error = refusal(lambda: choose(case("moco_v2_r50").sections, typed, AUTO), UsageError)
    assert error.message == f"there is no method '{typed}'"
    assert error.hint.startswith("Did you mean ")
    assert meant in error.hint.removeprefix("Did you mean ").rstrip("?").split(" or ")


@pytest.mark.parametrize(
    ("alias", "file", "meant"),
    [
        ("simclr", "simclr_sthalles_r50", "simclr-sthalles"),
        ("SimCLR", "simclr_spijkervet_r18", "simclr-spijkervet"),
        ("simclr", "simclr_tonylins_r50_1x", "simclr-tonylins"),
        ("simclr", "vissl_simclr_r50", "vissl"),
        ("simclr", "bolts_simclr_r50", "bolts"),
        ("deepcluster", "deepclusterv2_r50_released", "swav"),
        ("deepcluster", "solo_deepclusterv2_r18", "solo-learn"),
    ],
)
def test_an_alias_of_several_methods_is_the_one_that_explains_the_file(alias: str, file: str, meant: str) -> None:
    match = choose(case(file).sections, alias, AUTO)
    assert (match.method.name, match.named, match.also) == (meant, False, ())
    assert nearest(case(file).sections, alias, AUTO).method.name == meant


def test_an_alias_of_several_methods_none_of_which_fits_is_refused_as_the_nearest_of_them() -> None:
    error = refusal(lambda: choose(case("moco_v2_r50").sections, "npid", AUTO), IncompletePlanError)
    assert error.message.startswith("the rules of mmselfsup do not account for ")
    assert error.hint == "The file is explained by moco: `ckptconv.convert('SRC', 'DST', method='moco')`"
    error = refusal(lambda: choose(case("mae_vitb16_pretrain").sections, "npid", AUTO), UnidentifiedError)
    assert error.hint == "The file is explained by mae: `ckptconv.convert('SRC', 'DST', method='mae')`"


@pytest.mark.parametrize("typed", ["MoCo", "moco_v2", "mocov1"])
def test_another_spelling_of_a_method_is_that_method(typed: str) -> None:
    match = choose(case("moco_v2_r50").sections, typed, AUTO)
    assert (match.method.name, match.named, match.also) == ("moco", True, ())
    assert choose(case("moco_v2_r50").sections, "Auto", AUTO).also == ("resim", "bolts")


def test_a_name_like_no_method_is_refused_with_all_there_are() -> None:
    error = refusal(lambda: choose(case("moco_v2_r50").sections, "qqqq", AUTO), UsageError)
    assert error.hint == f"Known: auto, {', '.join(m.name for m in METHODS)}."


def test_no_section_and_a_wrong_section() -> None:
    error = refusal(lambda: choose({}, "auto", AUTO), UnreadableError)
    assert (error.message, error.exit_code) == ("the file holds no named tensors", 3)
    several = {f"optimizer.state.{i}": Section({"exp_avg": TensorSpec((1,), DTYPES["float32"])}, {}) for i in range(90)}
    error = refusal(lambda: choose({**several, "model": Section({}, {})}, "auto", Options(section="x")), UsageError)
    assert error.message == "there is no section 'x'"
    assert error.hint == "Sections: 'optimizer.state.*', 'model'."


def test_a_section_that_the_user_names_is_the_only_one_looked_at() -> None:
    where = {"ema": case("torchvision_r18").sections[""], **case("simsiam_r50").sections}
    assert found(where) == ("simsiam", "state_dict")
    assert found(where, "auto", Options(section="ema")) == ("torchvision", "ema")


def test_a_layout_that_leaves_fewest_problems_speaks_for_its_method() -> None:
    tensors = dict(case("lightly_moco_r18_sequential").tensors)
    del tensors["backbone.1.bias"]
    ((method, plan), *_) = rank({"state_dict": Section(tensors, {})}, METHODS, AUTO)
    assert method.name == "lightly"
    assert plan.layout.startswith("example")
    assert [p.key for p in plan.problems] == ["bn1.bias"]


# -- files of other networks: their names and shapes, from their pickles ----------------------------------------------


@dataclass
class Tensor:
    spec: TensorSpec


class Inert(dict[Any, Any]):
    """Stands for whatever a pickle names: takes any arguments and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass


def rebuilt(storage: str, _offset: int, size: Iterable[int], *_: Any) -> Tensor:
    dtype = next(d for d in DTYPES.values() if d.storage == storage)
    return Tensor(TensorSpec(tuple(size), dtype))


class Names(pickle.Unpickler):
    """Reads tensors' names and shapes and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "OrderedDict":
            return OrderedDict
        if name.startswith("_rebuild_tensor"):
            return rebuilt
        if name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        return name if name.endswith("Storage") else Inert

    def persistent_load(self, pid: Any) -> str:
        return str(pid[1])


def real_sections(layout: str) -> Mapping[str, Section]:
    record = json.loads(gzip.decompress((hollow.LAYOUTS / f"{layout}.json.gz").read_bytes()))
    tree = Names(io.BytesIO(base64.b64decode(record["pkl"]))).load()
    return find_sections(tree, lambda value: value.spec if isinstance(value, Tensor) else None)


def test_a_network_of_no_known_family_is_refused_and_the_message_names_its_tensors() -> None:
    names = [f"module.{part}.{p}" for part in ("features.0", "features.3", "classifier.1") for p in ("weight", "bias")]
    alexnet = {"model": Section(dict.fromkeys(names, TensorSpec((64,), DTYPES["float32"])), {})}
    error = refusal(lambda: choose(alexnet, "auto", AUTO), UnidentifiedError)
    assert error.exit_code == 1
    first = "module.features.0.weight, module.features.0.bias"
    assert error.message.startswith(f"no method explains this file: 'model' holds 6 tensors, {first}")
    assert "`ckptconv.inspect('SRC')`" in error.hint


@pytest.mark.parametrize(("method", "section"), [("dino", "teacher"), ("dino-student", "student")])
def test_the_right_method_for_a_network_that_is_not_known_says_so(method: str, section: str) -> None:
    alexnet = ("features.0.weight", "features.0.bias", "classifier.1.weight")
    tensors = {f"backbone.{name}": TensorSpec((64,), DTYPES["float32"]) for name in alexnet}
    error = refusal(lambda: choose({section: Section(tensors, {})}, method, AUTO), IncompletePlanError)
    assert "the kept tensors are not a known backbone: backbone.features.0.weight, " in error.message


def test_names_from_a_pickle_are_those_of_the_case() -> None:
    """The oracle above reads what the cases say."""
    one = case("moco_v2_r50")
    assert real_sections("moco_v2_r50")[one.section] == Section(one.tensors, one.others)


# -- what a match is --------------------------------------------------------------------------------------------------


def test_every_method_is_asked_and_the_complete_ones_come_first() -> None:
    ranked = rank(case("vicreg_r50_full").sections, METHODS, AUTO)
    complete = [plan.complete for _, plan in ranked]
    assert complete == sorted(complete, reverse=True)
    assert [m.name for m, p in ranked if p.complete] == ["vicreg", "barlowtwins", "vicregl"]
    assert all(isinstance(plan, Plan) and plan.method == method.name for method, plan in ranked)


def test_a_method_of_the_callers_own_is_found_by_auto_and_by_name() -> None:
    mine = Method(
        "mine", "mine", (Layout((keep("query.{k...}", "{k...}"), drop("key.{k...}", "no")), ("model",), "my own"),)
    )
    for method, options in (("auto", Options(methods=(mine,))), ("mine", Options(methods=(mine,))), (mine, AUTO)):
        match: Match = choose(twins(), method, options)
        assert match.method is mine
        assert match.plan.layout == "my own"
        assert match.named is (method != "auto")


@pytest.mark.parametrize("case", cases()[::15], ids=str)
def test_the_quick_look_at_rules_says_what_the_plan_says(case: Case) -> None:
    (section,) = case.sections.values()
    said = set()
    for method in METHODS:
        for layout in method.layouts:
            plan = make_plan(method, layout, "", section)
            left = [p for p in plan.problems if text_of(p).endswith("no rule explains it")]
            assert unexplained(layout, section, Options(), len(left)) == len(left), (method.name, layout.title)
            assert bool(unexplained(layout, section, Options())) == bool(left), (method.name, layout.title)
            said.add(not left)
    assert said == {True, False}
