"""The public face: what is exported, and that a parameter has one name and one meaning in every function."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

import ckptconv
from ckptconv import Options, errors
from ckptconv.backbones import TARGETS, TargetName
from ckptconv.mmdetection.config.detectors import DETECTORS, SCHEDULES, DetectorName, ScheduleName
from ckptconv.mmdetection.config.options import Choices
from tests.support.cases import case

SHARED = (ckptconv.convert, ckptconv.plan, ckptconv.explain, ckptconv.inspect, ckptconv.remap_state_dict)
FIELDS = {field.name for field in dataclasses.fields(Options)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 with torchvision's names."""
    path = tmp_path_factory.mktemp("source") / "raw.pth"
    (section,) = case("torchvision_r18").sections.values()
    torch.manual_seed(0)
    torch.save(
        {
            name: torch.rand(spec.shape) if spec.dtype.is_float else torch.ones(spec.shape, dtype=torch.int64)
            for name, spec in section.tensors.items()
        },
        path,
    )
    return path


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def test_every_name_is_there_and_listed() -> None:
    assert dir(ckptconv) == ckptconv.__all__ == sorted(ckptconv.__all__)
    assert all(hasattr(ckptconv, name) for name in ckptconv.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ckptconv.nothing


def test_every_exception_is_exported() -> None:
    known = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    assert {name for name in known if getattr(errors, name).__module__ == errors.__name__} == {
        "CkptconvError",
        "EnvironmentMissingError",
        "IncompletePlanError",
        "PluginWarning",
        "ProofError",
        "TrainingError",
        "UnidentifiedError",
        "UnreadableError",
        "UsageError",
        "VerdictError",
    }
    assert known <= set(ckptconv.__all__)
    assert all(getattr(ckptconv, name) is getattr(errors, name) for name in known)


def test_exit_codes_are_those_of_the_command_line() -> None:
    kinds = (ckptconv.VerdictError, ckptconv.UsageError, ckptconv.UnreadableError, ckptconv.EnvironmentMissingError)
    assert [kind("it is so").exit_code for kind in kinds] == [1, 2, 3, 4]
    assert issubclass(ckptconv.UnidentifiedError, ckptconv.VerdictError)
    assert issubclass(ckptconv.IncompletePlanError, ckptconv.VerdictError)
    assert issubclass(ckptconv.ProofError, ckptconv.VerdictError)


@pytest.mark.parametrize("function", SHARED, ids=lambda function: function.__name__)
def test_the_parameters_of_options_have_the_same_names_everywhere(function: Callable[..., Any]) -> None:
    named = parameters(function)
    assert FIELDS - {"methods"} | {"options", "rules"} <= named.keys()
    for name in FIELDS - {"methods"} | {"options", "rules"}:
        assert named[name].default is None
        assert named[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_source_destination_and_method_come_first() -> None:
    assert list(parameters(ckptconv.convert))[:3] == ["source", "destination", "method"]
    for function in (ckptconv.plan, ckptconv.explain, ckptconv.inspect):
        assert next(iter(parameters(function))) == "source"
    for function in (ckptconv.convert, ckptconv.plan, ckptconv.explain, ckptconv.remap_state_dict):
        assert parameters(function)["method"].default == "auto"


def test_each_field_of_options_is_documented() -> None:
    text = Path(inspect.getsourcefile(Options) or "").read_text("utf-8")
    body = text[text.index("class Options") : text.index("def __post_init__")]
    for field in dataclasses.fields(Options):
        after = body.split(f"    {field.name}: ")[1].splitlines()[1]
        assert after.startswith('    """'), field.name


def test_options_are_one_object_or_single_parameters(source: Path, tmp_path: Path) -> None:
    whole = Options(target="torchvision", channels=(3, 2, 1))
    plan = ckptconv.plan(source, options=whole)
    assert plan == ckptconv.plan(source, target="torchvision", channels=(3, 2, 1))
    assert plan.target == "torchvision"
    assert ckptconv.plan(source, options=whole, target="mmdet").target == "mmdet"
    assert ckptconv.plan(source, options=whole, channels=()).selected_channels is None
    receipt = ckptconv.convert(source, tmp_path / "out.pth", options=dataclasses.replace(whole, dtype="float16"))
    assert (receipt.plan.target, receipt.dtype) == ("torchvision", "float16")
    state = torch.load(source, weights_only=True)
    renamed, same = ckptconv.remap_state_dict(state, options=dataclasses.replace(whole, dtype="float16"))
    assert {name: one.target for name, one in zip(renamed, same.moves, strict=True)} == {n: n for n in renamed}
    written = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    assert renamed.keys() == written.keys()
    for name, tensor in renamed.items():
        assert tensor.dtype == written[name].dtype, name
        assert torch.equal(tensor, written[name]), name


def test_an_error_names_the_parameter_that_was_refused() -> None:
    for wrong, parameter in (
        ({"strip_prefix": "encoder"}, "strip_prefix"),
        ({"target": "detectron"}, "target"),
        ({"channels": (0,)}, "channels"),
        ({"image_size": 0}, "image_size"),
        ({"patch_size": 1000}, "patch_size"),
    ):
        with pytest.raises(ckptconv.UsageError) as caught:
            Options(**wrong)  # type: ignore[arg-type]
        assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"image_size": 224}, "image_size"),
        ({"patch_size": 8}, "patch_size"),
        ({"channels": (9,)}, "channels"),
        ({"channels": (1, 2, 3)}, "channels"),
        ({"drop": ["no.such.name"]}, "drop"),
    ],
)
def test_an_error_about_a_file_names_the_parameter_too(source: Path, options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ckptconv.UsageError) as caught:
        ckptconv.plan(source, **options)
    assert caught.value.parameter == parameter


def test_a_plan_and_a_receipt_are_short_in_words(source: Path, tmp_path: Path) -> None:
    receipt = ckptconv.convert(source, tmp_path / "out.pth")
    assert repr(receipt.plan) == (
        "Plan(method='torchvision', layout='bare backbone', section='', target='mmdet', "
        "backbone='ResNet-18', moves=120, dropped=0, problems=0)"
    )
    assert repr(receipt) == (
        f"Receipt(source='{source}', destination='{tmp_path}/out.pth', format='torch', method='torchvision', "
        f"written=True, proved=120, fingerprint='{receipt.fingerprint[:16]}…')"
    )
    assert len(receipt.plan.moves) == 120  # all of it is still there


def test_literals_have_the_names_of_their_tables() -> None:
    assert get_args(TargetName) == TARGETS
    assert get_args(DetectorName) == tuple(DETECTORS)
    assert get_args(ScheduleName) == tuple(SCHEDULES)
    assert get_type_hints(Options)["target"] == TargetName | None
    for function in SHARED:
        assert parameters(function)["target"].annotation == "TargetName | None"
    hints = get_type_hints(Choices)
    assert (hints["detector"], hints["schedule"]) == (DetectorName, ScheduleName)
