"""A file that is refused is planned once: no rules are applied twice to the same names, and no rank is made twice."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from ckptconv.errors import VerdictError
from ckptconv.planning import identify, make_plan, plan_search
from ckptconv.planning.options import Options
from ckptconv.spec import DTYPES, Section, TensorSpec
from ckptconv.wrappers import wrapper_of
from tests.backbones.test_resnet import resnet
from tests.backbones.test_vit import SMALL

FLOAT = DTYPES["float32"]
R50 = {name: TensorSpec(shape, FLOAT) for name, shape in resnet(50).entries().items()}
VIT = {name: TensorSpec(shape, FLOAT) for name, shape in SMALL.entries().items()}
OTHER = {"strange.weight": TensorSpec((3,), FLOAT)}


def under(prefix: str, names: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    return {prefix + name: spec for name, spec in names.items()}


def without(key: str, names: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    return {name: spec for name, spec in names.items() if name != key}


FILES: dict[str, tuple[Mapping[str, Section], str]] = {
    "a tensor too many": ({"model": Section({**VIT, **OTHER}, {})}, "auto"),
    "a tensor too many, named": ({"model": Section({**VIT, **OTHER}, {})}, "mae"),
    "a tensor too few": (
        {"state_dict": Section(under("module.encoder_q.", without("layer2.0.conv1.weight", R50)), {})},
        "auto",
    ),
    "a tensor too few, named": (
        {"state_dict": Section(under("module.encoder_q.", without("layer2.0.conv1.weight", R50)), {})},
        "mocov2",
    ),
    "a prefix that no method knows": ({"state_dict": Section({**under("net.encoder.", R50), **OTHER}, {})}, "auto"),
    "another prefix than the method's": ({"state_dict": Section({**under("net.a.", R50), **OTHER}, {})}, "mocov2"),
    "no network": ({"": Section({f"a.{i}.weight": TensorSpec((3,), FLOAT) for i in range(200)}, {})}, "auto"),
}


@dataclass
class Counts:
    """How often each plan was made, and how often methods were ranked."""

    plans: Counter[Any] = field(default_factory=Counter)
    ranks: int = 0


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    made = Counts()
    rank: Callable[..., Any] = plan_search.Planner._ranked
    made_by = make_plan.make_plan

    def counted(method: Any, layout: Any, path: str, section: Section, options: Options | None = None) -> Any:
        wrapper = wrapper_of(section.tensors)
        names = frozenset((name.removeprefix(wrapper), spec) for name, spec in section.tensors.items())
        made.plans[layout.number, names, options] += 1
        return made_by(method, layout, path, section, options)

    def ranked(*arguments: Any) -> Any:
        made.ranks += 1
        return rank(*arguments)

    monkeypatch.setattr(plan_search, "make_plan", counted)
    monkeypatch.setattr(plan_search.Planner, "_ranked", ranked)
    return made


@pytest.mark.parametrize("name", FILES)
def test_a_refused_file_is_planned_once(name: str, counts: Counts) -> None:
    sections, method = FILES[name]
    with pytest.raises(VerdictError):
        identify.choose(sections, method, Options())
    assert counts.plans
    assert max(counts.plans.values()) == 1
    assert counts.ranks <= 1


@pytest.mark.parametrize("name", FILES)
def test_what_is_nearest_is_known_from_the_refusal(name: str, counts: Counts) -> None:
    """`explain` of a refused file: what `choose` has planned is not planned again."""
    sections, method = FILES[name]
    with contextlib.suppress(VerdictError):
        identify.nearest(sections, method, Options())
    assert max(counts.plans.values()) == 1
    assert counts.ranks <= 1
