"""One example of each page, by its name, for tests that look at all of them.

``python -m tests.report.pages FOLDER`` writes them, and a picture of each on both screens, by day and by night; and all
of them in one picture, for the guide.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ckptconv import guide

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
ITERATIONS = 300


def run(group: str, seed: int, box: float) -> dict[str, Any]:
    """A training, as a report's JSON has it, whose loss falls and whose AP rises to ``box``."""
    drawn = random.Random(f"{group}{seed}")
    box += drawn.uniform(-1.5, 1.5)
    metrics = {
        metric: {name: factor * box + 2 * i for i, name in enumerate(NAMES)}
        for metric, factor in (("box", 1.0), ("mask", 0.8))
    }
    steps = [
        [i, 2.5 * math.exp(-i / 150) + drawn.uniform(0.1, 0.3), 2e-3 * min(1, i / 60) * (0.1 if i > 250 else 1)]
        for i in range(1, ITERATIONS, 2)
    ]
    return {
        "name": f"{group}-seed{seed}",
        "group": group,
        "seed": seed,
        "iterations": ITERATIONS,
        "starts": 1,
        "seconds_per_step": 0.5,
        "images_per_second": 2.5,
        "peak_mib": 1536.0,
        "ap": {metric: ap["AP"] for metric, ap in metrics.items()},
        "metrics": metrics,
        "raw": None,
        "detections": 30,
        "steps": steps,
        "evaluations": [
            [i, {metric: ap["AP"] * i / ITERATIONS for metric, ap in metrics.items()}] for i in (150, ITERATIONS)
        ],
        "environment": {"python": "3.11", "device": "CPU"},
        "classes": {
            metric: {name: values["AP"] + 3 * i for i, name in enumerate(("disc", "square", "triangle"))}
            for metric, values in metrics.items()
        },
    }


def lift_report() -> dict[str, Any]:
    """The JSON of a lift over three seeds."""
    return {
        "schema": 2,
        "command": "verify-ap",
        "config": "configs/mask_rcnn_moco_v2_r50_with_a_long_name.py",
        "title": "Mask R-CNN with FPN, of MoCo v2's ResNet-50",
        "tier": "lift",
        "purpose": "the checkpoint helps: its AP compared with that of the same network from random weights",
        "verdict": {
            "status": "pass",
            "reasons": ["box AP 15.20 ± 1.30 above random weights"],
            "rule": "pass if the 95% interval of the mean difference in box AP over 3 seeds lies above 0",
            "needed": None,
            "meaning": "the checkpoint helps on these images",
        },
        "expected": None,
        "proof": {
            "equal": 318,
            "total": 318,
            "checkpoint": "r50.pth",
            "fingerprint": "cd" * 32,
            "method": "moco",
            "backbone": "ResNet-50",
        },
        "notes": [],
        "recipe": {
            "digest": "ab" * 32,
            "row": None,
            "images_per_step": 4,
            "length": "6 epochs",
            "lr": 0.002,
            "detector": "MaskRCNN",
            "style": "pytorch",
            "schedule": None,
        },
        "data": {"generated": True, "images": 100, "annotated": 100, "sha256": "ef" * 32, "notes": []},
        "detector": None,
        "runs": [run(group, seed, box) for seed in range(3) for group, box in (("converted", 35), ("random", 20))],
        "date": "2026-01-01T00:00:00+00:00",
        "command_line": "ckptconv verify-ap configs/mask_rcnn_moco_v2_r50_with_a_long_name.py --tier lift --gpus 0",
    }


def _verification(folder: Path) -> str:
    from ckptconv.mmdetection.verify.report.html import page
    from ckptconv.mmdetection.verify.report.report import from_json

    return page(from_json(lift_report()), _evaluated(folder), ["config.py", "converted-seed0/output.log"])


def _comparison(folder: Path) -> str:
    """A lift, and two trainings with other rates."""
    from ckptconv.mmdetection.verify.report import comparison, comparison_page

    lift = lift_report()
    reports = {"lift-moco_v2-mask_rcnn": (lift, 0.002)}
    for lr, box in ((0.001, 27.0), (0.004, 31.0)):
        runs = [run("trained", seed, box) for seed in range(2)]
        verdict = {**lift["verdict"], "reasons": ["box AP is not compared"], "meaning": "the AP is measured"}
        changed = {"tier": "full", "runs": runs, "recipe": {**lift["recipe"], "lr": lr}, "verdict": verdict}
        reports[f"full-lr{lr}"] = ({**lift, **changed}, lr)
    for name, (report, lr) in reports.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "report.json").write_text(json.dumps(report))
        text = f"optim_wrapper = dict(optimizer=dict(type='SGD', lr={lr}, momentum=0.9))\n"
        (folder / name / "config.py").write_text(text)
    page = comparison_page.page(comparison.read([folder / name for name in reports]))
    return page.replace(f"{folder}/", "work_dirs/")


def _evaluated(folder: Path) -> Any:
    """Generated images, and detections of most of their objects: some elsewhere, some of another class."""
    from ckptconv.mmdetection.verify.data import synthetic
    from ckptconv.mmdetection.verify.report.detections import EvaluatedImages

    if not (folder / "data").exists():
        synthetic.make(folder / "data", 1, 12, 128)
    (path,) = (folder / "data" / "annotations").glob("*val*.json")
    truth, drawn, found = json.loads(path.read_text()), random.Random(3), []
    for one in truth["annotations"]:
        moved = [value + drawn.uniform(-4, 4) for value in one["bbox"]]
        category = drawn.choice([one["category_id"]] * 5 + [c["id"] for c in truth["categories"]])
        found.append({"image_id": one["image_id"], "category_id": category, "bbox": moved, "score": drawn.random()})
    (folder / "found.bbox.json").write_text(json.dumps(found))
    (images,) = {
        p.parent for p in (folder / "data").rglob("*") if "val" in p.parent.name and p.suffix in (".png", ".jpg")
    }
    return EvaluatedImages(path, folder / "found", images)


def _conversion(folder: Path) -> str:
    """A MoCo checkpoint with a layer of zeros, one that is too large, and NaN."""
    import torch

    import ckptconv
    from tests.support import hollow

    hollow.fill("moco_v2_r50_legacy", folder / "raw.pth.tar")
    body = torch.load(folder / "raw.pth.tar", weights_only=True)
    state = {name: value.clone() for name, value in body["state_dict"].items() if "encoder_k" not in name}
    at = "module.encoder_q."
    state[f"{at}layer3.2.conv2.weight"].zero_()
    state[f"{at}layer2.1.conv1.weight"].mul_(9)
    state[f"{at}layer4.1.bn2.weight"][3] = math.nan
    torch.save({"state_dict": state, "epoch": 200}, folder / "moco_v2_200ep.pth.tar")
    ckptconv.convert(folder / "moco_v2_200ep.pth.tar", folder / "r50.pth", report=folder / "made.html", force=True)
    return (folder / "made.html").read_text(encoding="utf-8").replace(f"{folder}/", "")


def _check(_: Path) -> str:
    """Of a ViT whose first blocks are frozen, and whose rates decay by layer."""
    from ckptconv.mmdetection.check.verdict import CheckReport, DetectorPart, ModuleReport, RateGroup
    from ckptconv.mmdetection.config.training_commands import Command, Training

    block = 7_087_872
    rates = [0.7 ** (12 - i) * 1e-4 for i in range(12)]
    blocks = [
        DetectorPart(f"backbone.blocks.{i}", "Block", 12, block, block, 0, block if i < 4 else 0, (rates[i], rates[i]))
        for i in range(12)
    ]
    stem = DetectorPart("backbone.patch_embed", "PatchEmbed", 2, 590_592, 590_592, 0, 590_592, ())
    neck = DetectorPart("neck", "SimpleFeaturePyramid", 24, 5_560_000, 0, 0, 0, (1e-4, 1e-4))
    head = DetectorPart("roi_head", "StandardRoIHead", 20, 16_900_000, 0, 900_000, 0, (1e-4, 1e-4))
    train = ".venv/bin/python .venv/lib/python3.11/site-packages/mmdet/.mim/tools/train.py vit.py --auto-scale-lr"
    return CheckReport(
        config="configs/mask_rcnn_vit_base_mae_1x_coco.py",
        detector="MaskRCNN",
        modules=(ModuleReport("backbone", "ViT-B/16", "work_dirs/vitb16_mae.pth", "", 150, 150, (), ()),),
        problems=(),
        training=Training("its learning rate, 0.0001, is for 8 GPUs with 2 images each", (Command("1 GPU", 1, train),)),
        parts=(stem, *blocks, neck, head),
        rates=(
            RateGroup(1e-4, 0.1, 44, 22_400_000, ("neck (12 of 24)", "roi_head")),
            *(RateGroup(rates[i], 0.1, 4, block, (f"backbone.blocks.{i} (4 of 12)",)) for i in range(11, 3, -1)),
        ),
    ).to_html()


def _swin(_: Path) -> str:
    return _planned("esvit_swint_full")


def _vit(_: Path) -> str:
    return _planned("dinov2_vitg14")


def _planned(case: str) -> str:
    """The page of a dry run, of the names of a test's case."""
    from ckptconv.planning.identify import choose
    from tests.conversion.report.test_page import receipt
    from tests.support import cases

    known = cases.case(case)
    return receipt(choose(known.sections, known.method, known.options).plan).to_html()


PAGES: Mapping[str, Callable[[Path], str]] = {
    "convert": _conversion,
    "convert-swin": _swin,
    "convert-vit": _vit,
    "check": _check,
    "report": _comparison,
    "verify-ap": _verification,
}
OF_MMDETECTION = ("check", "report", "verify-ap")
"""Those that need its packages."""


SHEET = Path(guide.__file__).with_name("reports.webp")
"""The pages on both screens, by day and by night, in one picture."""
_SCREENS = ((1280, False), (1280, True), (400, False), (400, True))
_SHOWN = ("convert", "check", "verify-ap", "report")
_HIGH = 560  # pixels of a page's upper part, as the sheet shows it


def pictures(folder: Path) -> Iterator[Path]:
    """Write each page, and its pictures."""
    from tests.support.browser import browser

    with browser() as one:
        for name, make in PAGES.items():
            page = folder / f"{name}.html"
            page.write_text(make(folder), encoding="utf-8")
            for width, dark in _SCREENS:
                path = _picture(folder, name, width, dark)
                path.write_bytes(one.open(page, width, dark, picture=True).picture)
                yield path


def _picture(folder: Path, name: str, width: int, dark: bool) -> Path:
    return folder / f"{name}-{width}-{'dark' if dark else 'light'}.png"


def sheet(folder: Path) -> bytes:
    """The upper parts of the pages side by side, from their pictures in this folder."""
    from tests.support.browser import browser

    cells = [
        f"<div style='height:{_HIGH}px;overflow:hidden;border:1px solid #999'>"
        f"<img src='{_picture(folder, name, width, dark).name}' style='width:100%;display:block'></div>"
        for name in _SHOWN
        for width, dark in _SCREENS
    ]
    columns = " ".join(f"{width / 4}fr" for width, _ in _SCREENS)
    style = f"display:grid;grid-template-columns:{columns};gap:12px;margin:12px;background:#fff"
    page = folder / "sheet.html"
    page.write_text(f"<!doctype html><body style='{style}'>{''.join(cells)}", encoding="utf-8")
    with browser() as one:
        one.open(page, 1800)
        return one.picture(1800, format="webp", quality=55)


if __name__ == "__main__":
    import sys

    for path in pictures(Path(sys.argv[1])):
        print(path)
    SHEET.write_bytes(sheet(Path(sys.argv[1])))
