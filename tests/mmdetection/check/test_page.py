"""The page of `check`: how the modules of a detector start, their learning rates, and that every text is text."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptconv
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check.evidence import Finding
from ckptconv.mmdetection.check.run import check
from ckptconv.mmdetection.check.verdict import CheckReport, DetectorPart, ModuleReport, RateGroup
from ckptconv.mmdetection.config.training_commands import Command, Training
from tests.support import forked, raw_files
from tests.support.html_page import Parsed, require_sound

pytestmark = pytest.mark.mmdet
HOSTILE = '<script>alert(1)</script>\' onload="x"'
OPTIMIZER = (
    "optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=0.0005),\n"
    "    paramwise_cfg=dict("
    "custom_keys={'backbone': dict(lr_mult=0.1), 'backbone.layer4': dict(lr_mult=0.1, decay_mult=0)}))\n"
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def r18(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("r18")
    raw_files.moco(folder / "moco18.pth.tar")
    ckptconv.convert(folder / "moco18.pth.tar", folder / "r18.pth")
    return folder / "r18.pth"


def detector(checkpoint: Path, more: str = "", frozen: int = 1) -> Path:
    path = Path("detector.py")
    path.write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n"
        f"model = dict(backbone=dict(depth=18, frozen_stages={frozen}, norm_eval=False,\n"
        f"    init_cfg=dict(type='Pretrained', checkpoint={str(checkpoint)!r})),\n"
        "    neck=dict(in_channels=[64, 128, 256, 512]))\n"
        f"{more}"
    )
    return path


def test_each_module_is_from_the_file_or_fresh_and_frozen_or_trained(r18):
    found = check(detector(r18, OPTIMIZER))
    assert found.good or [f.text for f in found.findings]
    by_path = {part.path: part for part in found.parts}
    stages = [f"layer{i}" for i in range(1, 5)]
    assert list(by_path) == [*(f"backbone.{name}" for name in ("conv1", "bn1", *stages)), "neck", "bbox_head"]
    settings = runtime.read_config(Path("detector.py"))
    model = runtime.build(settings, "detector.py")
    for path, part in by_path.items():
        inside = list(model.get_submodule(path).parameters())
        assert part.numel == sum(value.numel() for value in inside)
        assert part.parameters == len(inside)
        assert part.class_name == type(model.get_submodule(path)).__name__
        from_file, frozen = path.startswith("backbone"), path in ("backbone.conv1", "backbone.bn1", "backbone.layer1")
        assert (part.from_file, part.wrong) == (part.numel if from_file else 0, 0)
        assert part.frozen == (part.numel if frozen else 0)
        assert part.rates == (() if frozen else pytest.approx((1e-3, 1e-3) if from_file else (0.01, 0.01)))


def test_the_groups_have_the_rates_of_the_config(r18):
    found = check(detector(r18, OPTIMIZER))
    rates = {(round(group.lr, 9), group.weight_decay): group for group in found.rates}
    assert set(rates) == {(0.01, 0.0005), (0.001, 0.0005), (0.001, 0.0)}
    assert rates[0.001, 0.0].modules == ("backbone.layer4",)
    assert rates[0.001, 0.0005].modules == ("backbone.layer2", "backbone.layer3")
    assert rates[0.01, 0.0005].modules == ("neck", "bbox_head")
    layer4 = next(part for part in found.parts if part.path == "backbone.layer4")
    assert rates[0.001, 0.0].numel == layer4.numel
    trained = sum(part.numel - part.frozen for part in found.parts)
    assert sum(group.numel for group in found.rates) == trained
    assert found.rates_unknown == ""


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("optim_wrapper = dict(_delete_=True)\n", "the config has no optim_wrapper with one optimizer"),
        ("optim_wrapper = dict(optimizer=dict(type='Nothing'))\n", "TypeError"),
        ("optim_wrapper = dict(constructor='Nothing')\n", "Nothing"),
    ],
)
def test_rates_that_are_not_known_say_why(r18, more, why):
    found = check(detector(r18, more))
    assert found.modules[0].equal == 120
    assert found.rates == ()
    assert why in found.rates_unknown
    assert all(part.rates == () for part in found.parts)
    assert any(said.startswith("Not known: ") for said in require_sound(found.to_html()).said("p"))


@pytest.mark.parametrize("wrapper", ["AmpOptimWrapper", "OptimWrapper"])
def test_a_wrapper_that_needs_a_gpu_does_not_matter(r18, wrapper):
    found = check(detector(r18, f"optim_wrapper = dict(type='{wrapper}', loss_scale='dynamic')\n"))
    assert len(found.rates) == 1


def test_what_should_be_from_the_file_and_is_not_is_told_apart(r18):
    state = torch.load(r18, weights_only=True)
    state["state_dict"]["layer3.0.conv1.weight"] += 1
    del state["state_dict"]["layer4.0.conv1.weight"]
    torch.save(state["state_dict"], "other.pth")
    found = check(detector(Path("other.pth").resolve()))
    by_path = {part.path: part for part in found.parts}
    conv = 512 * 256 * 9
    wrong = next(
        part for path, part in by_path.items() if path.endswith("layer4.0.conv1") or path == "backbone.layer4.0"
    )
    assert wrong.wrong >= conv > 0
    parsed = require_sound(found.to_html())
    assert "should be from the file, and is not" in parsed.said("li")


def made(**changed: Any) -> CheckReport:
    """A report with everything in it."""
    module = ModuleReport("backbone", "ResNet-50", "r50.pth", "", 318, 318, (), (Finding("a note", ("do this",)),))
    part = DetectorPart("backbone", "ResNet", 161, 23_000_000, 20_000_000, 1_000_000, 225_000, (0.01, 0.02))
    report = CheckReport(
        config="c.py",
        detector="MaskRCNN",
        modules=(module,),
        problems=(),
        training=Training("its learning rate", (Command("1 GPU", 1, "python train.py"),)),
        notes=(Finding("another note"),),
        parts=(part, replace(part, path="neck", from_file=0, wrong=0, frozen=0, rates=())),
        rates=(RateGroup(0.02, 1e-4, 3, 300, ("a.weight", "b.weight", "c.weight")), RateGroup(0.01, 0, 1, 5, ("d",))),
    )
    return replace(report, **changed)


def test_it_says_what_was_found():
    parsed = require_sound(made().to_html())
    assert parsed.said("b")[0] == "The detector starts from its checkpoint"
    assert parsed.said("h2") == [
        "What it starts from", "Learning rates", "Checkpoints", "Notes", "How to train it",
    ]  # fmt: skip
    cells = parsed.said("td")
    row = cells[cells.index("backbone") :][:7]
    assert row == ["backbone", "ResNet", "23 M", "87 %", "8.7 %", "0.978 %", "0.01 to 0.02"]
    assert "python train.py" in parsed.said("pre")


@pytest.mark.parametrize(("certain", "colour"), [(True, "bad"), (False, "warn")])
def test_problems_come_first_with_their_fixes(certain, colour):
    problem = Finding("nothing was loaded: `strip_prefix='x.'`", ("first `image_size=1`", "second"), certain)
    parsed = require_sound(made(problems=(problem,)).to_html(lambda text: text.replace("`", "|")))
    assert parsed.said("h2")[0] == "What is wrong"
    assert "Nothing was loaded: |strip_prefix='x.'|." in parsed.said("p")
    assert parsed.said("pre")[:2] == ["first |image_size=1|", "second"]
    assert ("div", {"class": f"verdict {colour}"}) in parsed.elements


def test_every_text_is_text():
    module = ModuleReport(
        HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1, 2, (Finding(HOSTILE, (HOSTILE,)),), (Finding(HOSTILE),)
    )
    part = DetectorPart(HOSTILE, HOSTILE, 1, 10, 5, 0, 0, ())
    report = made(
        config=HOSTILE,
        detector=HOSTILE,
        modules=(module,),
        problems=(Finding(HOSTILE, (HOSTILE,)),),
        training=Training(HOSTILE, (Command(HOSTILE, 1, HOSTILE),)),
        parts=(part,),
        rates=(RateGroup(0.1, 0.0, 1, 1, (HOSTILE, HOSTILE, HOSTILE)),),
    )
    parsed = require_sound(report.to_html())
    assert "script" not in {tag for tag, _ in parsed.elements}
    assert sum(HOSTILE in said for _, said in parsed.texts) > 15
    assert "script" not in {tag for tag, _ in Parsed(report._repr_html_()).elements}


def test_in_a_notebook():
    parsed = Parsed(made()._repr_html_())
    assert parsed.said("b") == ["the detector starts from its checkpoint"]
    assert parsed.said("td") == ["backbone, ResNet-50", "318/318 equal r50.pth"]


def test_on_the_command_line(r18):
    detector(r18)
    words = [sys.executable, "-m", "ckptconv", "check", "detector.py", "--report", "p.html"]
    done = forked.run(words, env={**os.environ}, timeout=120)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "report    p.html" in done.stdout.splitlines()
    parsed = require_sound(Path("p.html").read_text(encoding="utf-8"))
    assert "detector.py" in parsed.said("h1")
    again = forked.run(words, env={**os.environ}, timeout=120)
    assert (again.returncode, again.stderr.splitlines()[0]) == (2, "error: p.html exists")
    forced = forked.run([*words, "--force", "--json"], env={**os.environ}, timeout=120)
    body = json.loads(forced.stdout)
    assert body["report"] == "p.html"
    assert body["parts"][0]["path"] == "backbone.conv1"
    other = forked.run([*words[:-1], "detector.py"], env={**os.environ}, timeout=120)
    assert (other.returncode, "does not have the name of an HTML page" in other.stderr) == (2, True)
