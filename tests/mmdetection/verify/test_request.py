"""What may be asked for, and each refusal word for word."""

from __future__ import annotations

import pytest

from ckptconv.errors import UsageError
from ckptconv.mmdetection.verify.recipes import RECIPES
from ckptconv.mmdetection.verify.request import LAUNCHERS, Request, expectations, is_config
from ckptconv.mmdetection.verify.tiers import TIERS

pytestmark = pytest.mark.mmdet
ROW = "mocov2-mask-rcnn-r50-fpn-1x"


def asked(**said: object) -> Request:
    if said.get("tier") == "eval":
        said = {"checkpoint": "detector.pth", **said}
    return Request(ROW, **said)


@pytest.mark.parametrize("tier", TIERS)
def test_every_tier_can_be_asked_for_and_says_what_it_shows(tier):
    assert asked(tier=tier).tier == tier
    assert TIERS[tier]


def test_nothing_said_is_a_smoke_test_with_one_seed():
    request = Request(ROW)
    assert (request.tier, request.seed, request.seeds, request.nodes) == ("smoke", 0, None, 1)


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        ({"tier": "smok"}, "there is no tier 'smok'", "Did you mean smoke?"),
        ({"tier": "zzz"}, "there is no tier 'zzz'", "Known: load, smoke, lift, eval, full."),
        ({"tier": ""}, "there is no tier ''", "Known: load, smoke, lift, eval, full."),
        ({"launcher": "slurn"}, "there is no launcher 'slurn'", "Did you mean slurm?"),
        ({"launcher": "mpi"}, "there is no launcher 'mpi'", "Known: none, pytorch, slurm."),
        ({"gpus": -1}, "`gpus=-1` is too small", "Give 0 or more."),
        ({"nodes": 0}, "`nodes=0` is too small", "Give 1 or more."),
        ({"nodes": -2}, "`nodes=-2` is too small", "Give 1 or more."),
        ({"seeds": 0}, "`seeds=0` is too small", "Give 1 or more."),
        ({"seed": -1}, "`seed=-1` is too small", "Give 0 or more."),
        ({"images": 0}, "`images=0` is too small", "Give 1 or more."),
        ({"tolerance": -0.1}, "`tolerance=-0.1` is not a number of AP points", "Give 0 or more, such as 0.3."),
        ({"tolerance": float("nan")}, "`tolerance='nan'` is not a number of AP points", "Give 0 or more, such as 0.3."),
        ({"tolerance": float("inf")}, "`tolerance='inf'` is not a number of AP points", "Give 0 or more, such as 0.3."),
        (
            {"tier": "eval", "checkpoint": None},
            "`tier='eval'` needs a trained detector",
            "Give `checkpoint='DETECTOR.pth'`.",
        ),
        ({"tier": "lift", "seeds": 1}, "one seed has no confidence interval", "Give `seeds=3` or more."),
        (
            {"tier": "lift", "images": 100},
            "`images` needs a data set of your own",
            "Give it, too: `data_root='DIR'`.",
        ),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_with_what_to_type_next(said, message, hint):
    with pytest.raises(UsageError) as error:
        asked(**said)
    assert (error.value.message, error.value.hint) == (message, hint)
    assert error.value.exit_code == 2


FITS = {
    "checkpoint": ({"checkpoint": "detector.pth"}, ("eval",)),
    "images": ({"images": 10, "data_root": "coco"}, ("lift",)),
    "data_root": ({"data_root": "coco"}, ("lift", "eval", "full")),
    "expect": ({"expect": {"box": 38.0}}, ("smoke", "eval", "full")),
    "tolerance": ({"tolerance": 0.0}, ("smoke", "eval", "full")),
    "amp": ({"amp": True}, ("smoke", "lift", "full")),
    "seeds": ({"seeds": 3}, ("smoke", "lift", "full")),
}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("option", FITS)
def test_an_option_belongs_to_its_tiers_only(tier, option):
    said, tiers = FITS[option]
    if tier in tiers:
        assert asked(tier=tier, **said).tier == tier
        return
    with pytest.raises(UsageError) as error:
        asked(tier=tier, **said)
    assert error.value.message == f"`{option}` does not apply to `tier='{tier}'`"
    assert error.value.hint == "It applies to " + " and ".join(f"`tier='{name}'`" for name in tiers) + "."


@pytest.mark.parametrize(
    "said",
    [
        {"gpus": 0},
        {"gpus": 8},
        {"gpus": 1, "launcher": "none"},
        {"gpus": 0, "launcher": "none"},
        {"gpus": 0, "launcher": "pytorch"},
        {"gpus": 8, "nodes": 2, "launcher": "slurm"},
        {"gpus": 8, "nodes": 2, "launcher": "pytorch"},
        {"tolerance": 0.0},
        {"tier": "lift", "seeds": 2},
        {"tier": "lift", "images": 1, "data_root": "coco"},
        {"seed": 0, "seeds": 1},
    ],
    ids=str,
)
def test_what_makes_sense_is_taken(said):
    request = asked(**said)
    assert {name: getattr(request, name) for name in said} == said


def test_a_request_does_not_change():
    with pytest.raises(AttributeError):
        Request(ROW).tier = "full"  # type: ignore[misc]


def test_the_launchers_are_those_of_mmengine_that_can_be_started():
    assert LAUNCHERS == ("none", "pytorch", "slurm")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("box=38.0,mask=34.3", {"box": 38.0, "mask": 34.3}),
        ("mask=34.3", {"mask": 34.3}),
        (" box = 38 , mask = 34 ", {"box": 38.0, "mask": 34.0}),
        ("box=0", {"box": 0.0}),
        ("box=1", {"box": 1.0}),
        ("box=100,mask=100.0", {"box": 100.0, "mask": 100.0}),
    ],
)
def test_expected_ap_is_in_percent_by_metric(text, found):
    assert expectations(text) == found


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", ""),
        ("38.0", "38.0"),
        ("box", "box"),
        ("box=38,", ""),
        ("bbox=38", "bbox=38"),
        ("box:38", "box:38"),
        ("=38", "=38"),
        ("Box=38", "Box=38"),
        ("box=38,box=39", "box=39"),
        ("box=38;mask=34", None),
    ],
)
def test_what_names_no_metric_is_refused(text, part):
    with pytest.raises(UsageError) as error:
        expectations(text)
    if part is not None:
        assert error.value.message == f"`expect={text!r}`: {part!r} is neither box=AP nor mask=AP"
    assert error.value.hint == "Write it as box=38.0,mask=34.3."


@pytest.mark.parametrize("value", ["", "high", "nan", "inf", "-inf", "-1", "100.1", "38%", "3 8"])
def test_what_is_no_ap_is_refused(value):
    with pytest.raises(UsageError) as error:
        expectations(f"mask=34.3,box={value}")
    assert error.value.message == f"`expect='mask=34.3,box={value}'`: {value!r} is not an AP in percent"
    assert error.value.hint == "Write it as box=38.0,mask=34.3."


@pytest.mark.parametrize(
    ("text", "meant"), [("box=0.38", "box=38"), ("mask=0.343", "mask=34.3"), ("box=0.29", "box=29")]
)
def test_a_fraction_is_asked_back(text, meant):
    with pytest.raises(UsageError) as error:
        expectations(text)
    assert error.value.message == f"`expect={text!r}`: AP is in percent here"
    assert error.value.hint == f"Do you mean {meant}?"


@pytest.mark.parametrize("target", ["mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "mine.py", "folder/mine"])
def test_a_config_is_told_by_its_looks(target):
    assert is_config(target)


def test_a_file_is_a_config_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_config("mine")
    (tmp_path / "mine").write_text("")
    assert is_config("mine")


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_looks_like_a_config(name):
    assert not is_config(name)
