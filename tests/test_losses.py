"""What --drop may take: names beside the network, and none of the network's own, in any family and under any prefix."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ckptconv.backbones import FAMILIES
from ckptconv.folding import fold
from ckptconv.identify import choose
from ckptconv.losses import blocks_of
from ckptconv.methods import METHODS
from ckptconv.planning import Options, Plan, make_plan
from ckptconv.spec import DTYPES, Section, TensorSpec
from tests.cases import Case, cases

FOREIGN = TensorSpec((5,), DTYPES["float32"])
BY_NAME = {m.name: m for m in METHODS}


def whole(own: Case) -> Plan:
    return choose(own.sections, own.method, own.options).plan


def one_of_each_network() -> list[Case]:
    """A case for each method and family."""
    found = {(own.method, own.backbone[:6], own.section): own for own in cases()}
    return list(found.values())


def planned(own: Case, tensors: Mapping[str, TensorSpec], plan: Plan, drops: tuple[str, ...] = ()) -> Plan:
    """What the layout that explains a case makes of other tensors."""
    (layout,) = (found for found in BY_NAME[own.method].layouts if found.title == plan.layout)
    options = Options(drops=drops, prefix=own.prefix, target=own.target)
    return make_plan(BY_NAME[own.method], layout, own.section, Section(tensors, {}), options)


@pytest.mark.parametrize("own", one_of_each_network(), ids=str)
def test_a_name_inside_a_block_or_stage_is_neither_offered_nor_dropped(own: Case) -> None:
    plan = whole(own)
    assert plan.backbone is not None
    plain = choose(own.sections, own.method, Options(prefix=own.prefix, target=_last(plan))).plan  # no dialect
    blocks = blocks_of(plan.backbone, plain.moves)
    assert len(blocks) > 3
    for block in (blocks[0], blocks[-1]):
        foreign = f"{block}inner_attn_ln.weight"
        tensors = {**own.tensors, foreign: FOREIGN}
        assert planned(own, tensors, plan).losable == ()
        dropped = planned(own, tensors, plan, (foreign,))
        (problem,) = [p for p in dropped.problems if p.kind == "drop"]
        assert problem.key == foreign
        text = f"--drop cannot take {foreign}: it lies in {block[:-1]}, of which other tensors are kept: "
        assert problem.text == f"{text}without it the network computes something else"


@pytest.mark.parametrize("own", one_of_each_network(), ids=str)
def test_no_part_of_the_network_is_dropped_but_what_every_network_makes_itself(own: Case) -> None:
    plan = whole(own)
    assert plan.backbone is not None
    sources = [source for move in plan.moves for source in move.sources]
    optional = {s for t, names in own.kept.items() for s in names if plan.backbone.optional(t)}
    for line, names in fold(sources).items():
        if optional.isdisjoint(names):
            refused = planned(own, own.tensors, plan, tuple(names))
            assert not refused.complete, line
            assert refused.losable == ()
            without = {name: spec for name, spec in own.tensors.items() if name not in names}
            assert planned(own, without, plan).losable == (), line


def _last(plan: Plan) -> str:
    assert plan.backbone is not None
    return FAMILIES[plan.backbone.family].targets[-1]
