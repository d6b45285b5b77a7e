"""Networks that MMDetection has no place for are refused by name, with the reason and what comes nearest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from ckptconv.backbones.unsupported import MARKS, Shapes, name_shown, unsupported_network
from ckptconv.cli import render_inspection
from ckptconv.errors import CkptconvError, IncompletePlanError, UnidentifiedError
from ckptconv.inspection import inspect
from ckptconv.methods import METHODS
from ckptconv.planning.identify import choose
from ckptconv.planning.options import Options
from ckptconv.spec import Section
from tests.support.cases import UNSUPPORTED, Unsupported, cases, unsupported_files

ELSEWHERE = "a ResNet with selective kernels"  # in test_traps: made from a case


def shapes(section: Section) -> Shapes:
    return {**{name: spec.shape for name, spec in section.tensors.items()}, **dict.fromkeys(section.others)}


def refusal(of: Unsupported, method: str) -> CkptconvError:
    with pytest.raises((UnidentifiedError, IncompletePlanError)) as caught:
        choose(of.sections, method, Options())
    return caught.value


@pytest.mark.parametrize("of", unsupported_files(), ids=str)
def test_an_unsupported_network_is_refused_by_what_it_is(of: Unsupported) -> None:
    (found,) = [[mark.what for mark in MARKS if name_shown(mark, shapes(section))] for section in of.sections.values()]
    (what,) = found  # one mark, and no other network's
    assert what.startswith(of.what)
    for method in filter(None, ("auto", of.method)):
        error = refusal(of, method)
        assert re.search(rf"(: this|It) is {re.escape(what)}(\n|$)", error.message), method
        assert "drop" not in error.hint  # what is left would be another network


@pytest.mark.parametrize("of", unsupported_files(), ids=str)
def test_an_unsupported_network_behind_a_wrapper_is_the_same_and_said_in_one_sentence(of: Unsupported) -> None:
    wrapped = {
        path: Section({f"module.{name}": spec for name, spec in section.tensors.items()}, section.others)
        for path, section in of.sections.items()
    }
    with pytest.raises(UnidentifiedError) as caught:
        choose(wrapped, "auto", Options())
    assert caught.value.message.startswith(f"no method explains this file. It is {of.what}")
    assert "\n" not in caught.value.message


def test_inspect_calls_an_unsupported_network_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {"modality_encoders.IMAGE.extra_tokens": torch.zeros(1, 1, 8)}}, tmp_path / "d2v2.pt")
    found = inspect(tmp_path / "d2v2.pt")
    assert found.unsupported.startswith("data2vec 2.0, whose blocks norm")
    render_inspection.inspection(found, full=False, as_json=False)
    shown = capsys.readouterr().out
    assert "what      data2vec 2.0, whose blocks norm" in shown
    assert "strip" not in shown


def test_every_mark_is_met() -> None:
    met = {
        mark
        for of in unsupported_files()
        for section in of.sections.values()
        for mark in MARKS
        if name_shown(mark, shapes(section))
    }
    assert [mark.what for mark in MARKS if mark not in met and not mark.what.startswith(ELSEWHERE)] == []


def test_no_network_with_a_place_has_a_mark() -> None:
    own = (
        (case.name, unsupported_network(shapes(section))[0]) for case in cases() for section in case.sections.values()
    )
    assert {name: shown for name, shown in own if shown} == {}


def test_an_unsupported_network_is_called_by_a_method_that_exists() -> None:
    assert {of.method for of in unsupported_files()} <= {"", *(m.name for m in METHODS)}
    assert {path.name for path in UNSUPPORTED.iterdir()} == {f"{of.name}.txt" for of in unsupported_files()}


def test_a_mark_that_comes_with_a_reason_names_what_is_nearest() -> None:
    """Every sentence says what the network is; nearly all say what can be used in its place, or what to do."""
    silent = [mark.what for mark in MARKS if not re.search(r": |\. (Use|Gather) ", mark.what)]
    assert [what for what in silent if not what.startswith(ELSEWHERE)] == []
