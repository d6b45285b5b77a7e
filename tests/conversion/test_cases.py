"""Every layout of `tests/cases/`, by names alone and, where its real file can be made, with bytes."""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch

import ckptconv
from ckptconv.backbones.interface import CANONICAL
from ckptconv.errors import UnidentifiedError, VerdictError
from ckptconv.methods import METHODS
from ckptconv.planning.identify import choose, nearest, rank
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.same_result import Match
from ckptconv.rules import Rule
from tests.formats.test_torch_files import records
from tests.formats.test_writers import TORCH_1_13
from tests.support import hollow
from tests.support.cases import FOLDER, Case, by_name, cases

CASES = cases()
REAL = [c for c in CASES if c.layout and c.held]

UNSEEN = {
    ("eupe", "drop projectors.{p...} (the projection heads for the teachers)"): "timm's filter removes them: eva.py",
    ("vissl", "drop heads.{key...} (the pretext task's heads)"): "VISSL saves the heads beside the trunk, not in it",
}
"""Rules (method, rule) that no case shows, and why they are there all the same."""

each = pytest.mark.parametrize("case", CASES, ids=str)


def chosen(case: Case, method: str, options: Options) -> Match:
    """The match of a case; of a network that no target holds, the one whose only problem that is."""
    if case.held and (method, options) == (case.method, case.options):
        return by_name(case)
    if case.held:
        return choose(case.sections, method, options)
    with pytest.raises(VerdictError):
        choose(case.sections, method, options)
    return nearest(case.sections, method, options)


def accounts(plan: Plan) -> bool:
    return plan.complete or plan.unsupported_target


def assert_as_written(plan: Plan, case: Case) -> None:
    assert {p.kind for p in plan.problems} == (set() if case.held else {"target"})
    assert {m.target: m.sources for m in plan.moves} == case.kept
    assert len(plan.moves) == len(case.kept)
    assert {d.source for d in plan.dropped} == case.dropped
    assert len(plan.dropped) == len(case.dropped)
    assert all(d.why for d in plan.dropped)
    for move in plan.moves:
        first = case.tensors[move.sources[0]]
        same = len(move.sources) == 1 and move.target not in case.shapes
        assert (move.op is None) == same
        assert move.spec.dtype == first.dtype
        if len(move.sources) == 1:
            assert move.spec.shape == case.shapes.get(move.target, first.shape)
    assert plan.section == case.section
    assert plan.tensors == len(case.tensors)
    assert plan.backbone is not None
    if plan.dialect == CANONICAL:
        assert set(plan.optional_missing) == set(plan.backbone.entries()) - set(
            case.kept
        )  # all optional: there is no problem
    assert plan.backbone.name == case.backbone


# -- names alone ------------------------------------------------------------------------------------------------------


@each
def test_the_method_by_name_does_what_the_case_says(case: Case) -> None:
    match = chosen(case, case.method, case.options)
    assert match.method.name == case.method
    assert match.named
    assert match.also == ()
    assert_as_written(match.plan, case)


@pytest.mark.parametrize("case", [c for c in CASES if c.found], ids=str)
def test_auto_finds_the_method_and_names_those_that_agree(case: Case) -> None:
    match = chosen(case, "auto", case.unasked)
    assert not match.named
    if case.held:
        assert {match.method.name, *match.also} == case.found
        assert len(match.also) == len(case.found) - 1
    assert match.method.name in case.found
    assert_as_written(match.plan, case)


@pytest.mark.parametrize("case", [c for c in CASES if c.instead], ids=str)
def test_auto_takes_the_other_copy_where_there_are_two(case: Case) -> None:
    match = chosen(case, "auto", case.unasked)
    assert {match.method.name, *match.also} == {case.instead}
    assert takes_another_copy(match.plan, case)


def takes_another_copy(plan: Plan, case: Case) -> bool:
    ours = {source for sources in case.kept.values() for source in sources}
    return ours.isdisjoint(source for move in plan.moves for source in move.sources)


@pytest.mark.parametrize("case", [c for c in CASES if not c.found and not c.instead], ids=str)
def test_auto_never_guesses_what_only_a_person_can_want(case: Case) -> None:
    with pytest.raises(UnidentifiedError):
        choose(case.sections, "auto", case.unasked)


@each
def test_no_method_by_name_explains_the_case_in_another_way(case: Case) -> None:
    explained = set()
    for method, plan in rank(case.sections, METHODS, case.unasked):  # as by name, without the search for advice
        if not accounts(plan):
            continue
        other = method.name != case.method and (not method.guess or method.name == case.instead)
        if other and takes_another_copy(plan, case):
            continue
        assert_as_written(plan, case)
        if method.guess:
            explained.add(method.name)
    assert explained == case.found


# -- the cases themselves ---------------------------------------------------------------------------------------------


def test_there_are_cases_and_nothing_else_in_the_folder() -> None:
    assert {p.name for p in FOLDER.iterdir()} == {f"{c.name}.txt" for c in CASES}
    assert len(CASES) >= 30


def test_every_layout_has_a_case() -> None:
    assert {c.layout for c in CASES if c.layout} == set(hollow.names())


SAME_FILES = {"dinov3-sat493m": "dinov3"}
"""Methods with the layouts of another one, whose cases show them: they differ in pixels alone."""
OWN_FILES = [method for method in METHODS if method.name not in SAME_FILES]


def test_what_has_the_layouts_of_another_method_has_them_all() -> None:
    for name, other in SAME_FILES.items():
        (mine,), (theirs,) = ([m.layouts for m in METHODS if m.name == one] for one in (name, other))
        assert mine == theirs


def test_every_method_has_a_case() -> None:
    assert {c.method for c in CASES} == {m.name for m in OWN_FILES}


def test_every_layout_of_every_method_is_used_by_a_case() -> None:
    used = set()
    for case in CASES:
        match = chosen(case, case.method, case.options)
        used.add((match.method.name, match.plan.layout))
    assert used == {(m.name, layout.title) for m in OWN_FILES for layout in m.layouts}


def test_every_rule_of_every_method_is_shown_by_a_case() -> None:
    shown: set[tuple[str, Rule | None]] = set()
    for case in CASES:
        plan = chosen(case, case.method, case.options).plan
        shown.update((case.method, done.rule) for done in (*plan.moves, *plan.dropped))
    unseen = {
        (m.name, str(rule))
        for m in OWN_FILES
        for layout in m.layouts
        for rule in layout.rules
        if (m.name, rule) not in shown
    }
    assert unseen == set(UNSEEN)


def test_the_cases_of_one_method_are_not_one_case_under_many_names() -> None:
    seen: dict[tuple[object, ...], str] = {}
    for case in CASES:
        twin = seen.setdefault((case.method, case.section, case.layout, tuple(case.targets.items())), case.name)
        assert twin == case.name


# -- with bytes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RealFile:
    case: Case
    path: Path
    tensors: dict[str, torch.Tensor]


def load(path: Path, mapped: bool) -> Any:
    # Some files hold an argparse.Namespace, numpy's numbers or mmengine's message hub, which weights_only=True refuses.
    # Their pickles are ours: they lie in tests/layouts. Nothing but this oracle ever unpickles them.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="mmengine")
        return torch.load(path, map_location="cpu", mmap=mapped, weights_only=False)


@pytest.fixture(scope="module", params=REAL, ids=str)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealFile]:
    """A full-size file in the case's layout (90 MB to 1.4 GB, gone after its tests), and what torch reads from it."""
    case: Case = request.param
    path = hollow.fill(case.layout, tmp_path_factory.mktemp(case.name) / "source.pth")
    section = load(path, mapped=not case.layout.endswith(("_legacy", "_released")))
    for step in filter(None, case.section.split(".")):
        section = section[step]
    assert set(section) == set(case.targets)
    yield RealFile(case, path, {name: section[name] for sources in case.kept.values() for name in sources})
    path.unlink()


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def assert_equal_to_the_source(written: dict[str, torch.Tensor], real: RealFile) -> None:
    assert set(written) == set(real.case.kept)
    for target, (name, *by) in real.case.kept.items():
        wanted = real.tensors[name]
        if by:  # of a ViT with registers, as timm has it
            wanted = wanted + real.tensors[by[0]][:, 0]
        elif target in real.case.shapes:
            wanted = wanted[:, 1:]
        assert (written[target].dtype, written[target].shape) == (wanted.dtype, wanted.shape), target
        assert torch.equal(bits(written[target]), bits(wanted)), target


def test_a_torch_file_holds_the_backbone_bit_for_bit(real: RealFile, tmp_path: Path) -> None:
    target = tmp_path / "backbone.pth"
    convert(real, target, "auto")
    loaded = torch.load(target, weights_only=True)
    assert_equal_to_the_source(loaded["state_dict"], real)
    (pickled,) = [data for name, data in records(target).items() if name.endswith("/data.pkl")]
    assert {op.name for op, *_ in pickletools.genops(pickled)} <= TORCH_1_13
    target.unlink()


def test_a_safetensors_file_holds_the_backbone_bit_for_bit(real: RealFile, tmp_path: Path) -> None:
    target = tmp_path / "backbone.safetensors"
    convert(real, target, "by name")
    with safetensors.safe_open(target, framework="pt") as file:
        assert_equal_to_the_source({name: file.get_tensor(name) for name in file.keys()}, real)  # noqa: SIM118
    target.unlink()


def test_auto_and_the_name_plan_the_same(real: RealFile) -> None:
    """What is written, of which each format has tried one, follows from the plan."""
    if not real.case.guessed:
        assert_the_guess_is_another(real)
        return
    by_name, guessed = (ckptconv.plan(real.path, m, target=real.case.target) for m in (real.case.method, "auto"))
    assert (by_name.moves, by_name.section, by_name.backbone) == (guessed.moves, guessed.section, guessed.backbone)


def convert(real: RealFile, target: Path, how: str) -> None:
    case = real.case
    if how == "auto" and not case.guessed:
        assert_the_guess_is_another(real)
        how = "by name"
    receipt = ckptconv.convert(real.path, target, "auto" if how == "auto" else case.method, target=case.target)
    assert receipt.proved == len(case.kept)
    assert {receipt.method.name, *receipt.also} == {case.method} | (case.also if how == "auto" else set())
    assert receipt.plan.backbone is not None
    assert receipt.plan.backbone.name == case.backbone


def assert_the_guess_is_another(real: RealFile) -> None:
    """DINO's file holds student and teacher: auto takes the teacher."""
    found = ckptconv.plan(real.path, target=real.case.target)
    assert found.method != real.case.method
    assert found.section != real.case.section
