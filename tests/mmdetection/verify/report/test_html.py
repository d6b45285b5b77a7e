"""The page as a browser takes it in: nothing is loaded, nothing that a file says is markup, every tag is closed."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.stats
from pycocotools import mask as run_lengths

from ckptconv.mmdetection.verify.measure import NAMES
from ckptconv.mmdetection.verify.report.detections import EvaluatedImages
from ckptconv.mmdetection.verify.report.html import page as page_of
from ckptconv.mmdetection.verify.report.report import from_json
from ckptconv.mmdetection.verify.report.write import write
from tests.support.html_page import Parsed, loaded, require_sound

pytestmark = [
    pytest.mark.mmdet,
    # pycocotools' masks are older than numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

HOSTILE = "<script>alert(1)</script>"
NAME = """a "b" & 'c' <i>é.png"""


def ran(seed: int = 0, **changed: Any) -> dict[str, Any]:
    """One training, with AP of box and mask after each of its two epochs."""
    metrics = {metric: {name: ap + i for i, name in enumerate(NAMES)} for metric, ap in (("box", 30.0), ("mask", 20.0))}
    return {
        "name": f"seed{seed}",
        "group": "trained",
        "seed": seed,
        "iterations": 20,
        "starts": 1,
        "seconds_per_step": 0.5,
        "images_per_second": 2.5,
        "peak_mib": 1536.0,
        "ap": {metric: ap["AP"] for metric, ap in metrics.items()},
        "metrics": metrics,
        "raw": None,
        "detections": 30,
        "steps": [[i, 2.0 - i / 20, 0.01] for i in range(1, 21)],
        "evaluations": [[10, {"box": 15.0, "mask": 10.0}], [20, {"box": 30.0, "mask": 20.0}]],
        "environment": {"python": "3.11", "device": "CPU", "cuda": None},
    } | changed


def made(*runs: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {
        "schema": 2,
        "command": "verify-ap",
        "config": "mocov2-mask-rcnn",
        "title": "MoCo v2, Mask R-CNN",
        "tier": "smoke",
        "purpose": "the whole chain works",
        "verdict": verdict("pass"),
        "expected": None,
        "proof": None,
        "notes": [],
        "recipe": dict(RECIPE),
        "data": data(),
        "detector": None,
        "runs": list(runs),
        "date": "2025-01-01T00:00:00+00:00",
    } | changed


def verdict(status: str, needed: int | None = None) -> dict[str, Any]:
    return {"status": status, "reasons": ["box AP 30.00"], "rule": "at least box AP 20", "needed": needed}


def data(**changed: Any) -> dict[str, Any]:
    return {"generated": True, "images": 60, "annotated": 60, "sha256": "ab" * 32, "notes": []} | changed


def page(report: dict[str, Any], images: EvaluatedImages | None) -> str:
    """The page of the report with this JSON."""
    return page_of(from_json(report), images)


RECIPE = {"digest": "d1gest", "detector": "MaskRCNN", "images_per_step": 8, "row": None, "length": "12 epochs"} | {
    "lr": 0.02,
    "style": "pytorch",
    "schedule": None,
}
EXPECTED = {"ap": {"box": 38.2, "mask": 34.7}, "tolerance": 0.3, "reason": "noise", "source": "a table"}
BAND = "box AP 38.2, mask AP 34.7, at most 0.3 points below"
PROOF = {"equal": 120, "total": 120, "checkpoint": "r18.pth", "fingerprint": "cd" * 32} | {
    "method": "moco",
    "backbone": "ResNet-18",
}


def curves(text: str) -> dict[str, str]:
    """The drawings by what they show: the beginning of the sentence about them."""
    found = re.findall(r'<svg role="img" aria-label="(.*?)".*?</svg>', text, re.DOTALL)
    return dict(zip(found, re.findall(r'<svg role="img".*?</svg>', text, re.DOTALL), strict=True))


def drawing(text: str, begins: str) -> str:
    """The one drawing whose sentence begins so."""
    (found,) = [drawn for said, drawn in curves(text).items() if said.startswith(begins)]
    return found


@pytest.fixture
def seen(tmp_path) -> EvaluatedImages:
    """Two images, of which the first has a box and a mask that are sure, and the second one that is not."""
    names = [NAME, "two.png"]
    for name in names:
        _, encoded = cv2.imencode(".png", np.zeros((32, 48, 3), np.uint8))
        (tmp_path / name).write_bytes(encoded.tobytes())
    truth = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": HOSTILE}],
    }
    (tmp_path / "val.json").write_text(json.dumps(truth))
    return detected(tmp_path, [(0, 0.9), (0, 0.5), (1, 0.49)])


def detected(folder: Path, found: list[tuple[int, float]]) -> EvaluatedImages:
    """What a detector has found, by image and score, beside the images."""
    mask = run_lengths.encode(np.asfortranarray(np.ones((32, 48), np.uint8)))
    segmentation = {"size": mask["size"], "counts": mask["counts"].decode()}
    boxes = [{"image_id": i, "category_id": 1, "bbox": [4.0, 4.0, 20.0, 20.0], "score": score} for i, score in found]
    (folder / "found.bbox.json").write_text(json.dumps(boxes))
    (folder / "found.segm.json").write_text(json.dumps([{**box, "segmentation": segmentation} for box in boxes]))
    return EvaluatedImages(folder / "val.json", folder / "found", folder)


@pytest.fixture
def whole(seen) -> str:
    """A page with everything on it."""
    return page(made(ran(0), ran(1), expected=EXPECTED, proof=PROOF), seen)


def test_a_page_needs_nothing_but_itself(whole):
    assert list(loaded(whole)) == []


def test_its_parts_are_there(whole):
    parsed = Parsed(whole)
    assert parsed.said("title")[0] == "mocov2-mask-rcnn: pass"
    assert parsed.said("h1") == ["mocov2-mask-rcnn"]
    assert parsed.said("h2") == ["Average precision, in percent", "Curves", "The hardest images", "What was measured"]
    facts = parsed.said("dd")
    assert "120/120 tensors equal r18.pth" in facts
    assert "ResNet-18 of moco" in facts
    assert f"{BAND}; a table" in facts
    assert "generated, 60 images evaluated" in facts


def test_it_is_sound(whole):
    require_sound(whole)
    assert [said.partition(" ")[0] for said in curves(whole)][:4] == ["The", "The", "box", "mask"]


def test_the_same_report_is_the_same_page(whole, seen):
    page(made(ran(3)), None)  # another page between them changes nothing
    assert page(made(ran(0), ran(1), expected=EXPECTED, proof=PROOF), seen) == whole


def test_what_is_written_is_the_page(tmp_path, seen, whole):
    write(from_json(made(ran(0), ran(1), expected=EXPECTED, proof=PROOF)), tmp_path, seen, print)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == whole


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a report a string stands that comes from a user, a file or a machine."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in pairs:
        if isinstance(child, str):
            yield (*path, key)
        yield from places(child, (*path, key))


# Not on the page.
HIDDEN = {
    ("command",),
    ("runs", 0, "group"),
    ("expected", "reason"),
    ("recipe", "length"),
    ("recipe", "style"),
}
SHORT = {("proof", "fingerprint")}  # only its beginning is


@pytest.mark.parametrize("where", list(places(made(ran(), expected=EXPECTED, proof=PROOF))), ids=str)
def test_what_is_said_anywhere_is_text(where):
    hostile = f"""{HOSTILE}' onload="alert(1)">--> ]]> <b>&lt; é"""
    report = made(ran(), expected=dict(EXPECTED), proof=dict(PROOF))
    plain = Parsed(page(report, None))
    *path, last = where
    node: Any = report
    for key in path:
        node = node[key]
    node[last] = hostile
    text = page(report, None)
    parsed = Parsed(text)
    assert [tag for tag, _ in parsed.elements] == [tag for tag, _ in plain.elements]
    assert [attrs.keys() for _, attrs in parsed.elements] == [attrs.keys() for _, attrs in plain.elements]
    shown = hostile[:16] if where in SHORT else hostile
    assert (where in HIDDEN) != any(shown in said for _, said in parsed.texts)


def test_what_is_said_in_a_drawing_is_text():
    found = curves(page(made(ran(name=HOSTILE), ran(name=NAME)), None))
    assert len(found) == 4
    said = [title for text in found.values() for title in Parsed(text).said("title")]
    assert {HOSTILE, NAME} <= set(said)
    assert not [tag for text in found.values() for tag, _ in Parsed(text).elements if tag in ("script", "i")]


def test_the_name_of_an_image_is_text(seen):
    parsed = require_sound(page(made(ran()), seen))
    counts = "0 objects, 0 hit, 0 missed, 2 false"
    assert parsed.said("figcaption") == [f"{NAME}: {counts}"]
    said = [
        attrs["aria-label"]
        for tag, attrs in parsed.elements
        if tag == "svg" and "missed" in attrs.get("aria-label", "")
    ]
    assert said == [f"{NAME}, annotations: {counts}", f"{NAME}, detections: {counts}"]
    assert not {"i", "script"} & {tag for tag, _ in parsed.elements}
    assert sum(text == f"{HOSTILE} 0.90 false" for text in parsed.said("text")) == 1


def picture(parsed: Parsed) -> np.ndarray:
    """The one image of a page."""
    (url,) = [attrs["href"] for tag, attrs in parsed.elements if tag == "image"]
    kind, _, encoded = url.partition("base64,")
    assert kind == "data:image/jpeg;"
    image = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def test_an_image_is_in_the_page_once_and_shown_twice(seen):
    parsed = require_sound(page(made(ran()), seen))
    assert picture(parsed).shape == (240, 360, 3)
    assert picture(parsed).max() < 10  # black, as it is: what is drawn is drawn over it
    assert [attrs["href"] for tag, attrs in parsed.elements if tag == "use"] == ["#image0"]


def annotated(folder: Path, *entries: dict[str, Any]) -> None:
    """Write objects into the annotations, of category 1 unless they say another."""
    path = folder / "val.json"
    truth = json.loads(path.read_text())
    truth["annotations"] = [{"category_id": 1, "iscrowd": 0, "id": i, **entry} for i, entry in enumerate(entries, 1)]
    path.write_text(json.dumps(truth))


def outcomes(parsed: Parsed) -> list[tuple[str, str, str]]:
    """The class and the corner of each box, in the order of the page."""
    found, kind = [], ""
    for tag, attrs in parsed.elements:
        if tag == "g":
            kind = attrs.get("class", "")
        elif tag == "rect" and kind in ("hit", "missed", "false") and attrs["x"] != "2":  # which are in the legend
            found.append((kind, attrs["x"], attrs["y"]))
    return found


def test_hits_misses_and_false_detections_are_told_apart(tmp_path, seen):
    annotated(tmp_path, {"image_id": 0, "bbox": [5, 4, 20, 20]}, {"image_id": 0, "bbox": [30, 10, 8, 8]})
    (tmp_path / "found.segm.json").unlink()
    boxes = [([4, 4, 20, 20], 0.9, 1), ([6, 6, 20, 20], 0.8, 1), ([30, 10, 8, 8], 0.7, 2), ([30, 10, 8, 8], 0.4, 1)]
    found = [{"image_id": 0, "category_id": c, "bbox": box, "score": score} for box, score, c in boxes]
    (tmp_path / "found.bbox.json").write_text(json.dumps(found))
    parsed = require_sound(page(made(ran()), seen))
    assert parsed.said("figcaption") == [f"{NAME}: 2 objects, 1 hit, 1 missed, 2 false"]
    assert outcomes(parsed) == [
        ("hit", "37.5", "30.0"), ("missed", "225.0", "75.0"),  # 7.5 pixels each
        ("false", "225.0", "75.0"), ("false", "45.0", "45.0"), ("hit", "30.0", "30.0"),
    ]  # fmt: skip
    assert f"{HOSTILE} missed" in parsed.said("text")


def test_the_hardest_image_comes_first(tmp_path, seen):
    annotated(
        tmp_path, *({"image_id": 1, "bbox": [x, 2, 4, 4]} for x in (0, 10, 20)), {"image_id": 0, "bbox": [4, 4, 20, 20]}
    )
    detected(tmp_path, [(0, 0.9)])
    assert [said.partition(":")[0] for said in Parsed(page(made(ran()), seen)).said("figcaption")] == ["two.png", NAME]


def test_classes_that_do_not_count_are_left_out(tmp_path, seen):
    annotated(tmp_path, {"image_id": 0, "bbox": [4, 4, 20, 20], "category_id": 7})
    parsed = Parsed(page(made(ran()), seen._replace(categories=(1,))))
    assert parsed.said("figcaption") == [f"{NAME}: 0 objects, 0 hit, 0 missed, 2 false"]


def test_an_image_with_nothing_in_it_is_not_shown(tmp_path, seen):
    text = page(made(ran()), detected(tmp_path, [(0, 0.49)]))
    assert "No image has an object or a detection." in Parsed(text).said("p")
    assert "image" not in [tag for tag, _ in Parsed(text).elements]


@pytest.mark.parametrize("masks", [True, False])
def test_masks_are_outlined_where_there_are_some(tmp_path, seen, masks):
    annotated(tmp_path, {"image_id": 0, "bbox": [4, 4, 20, 20], "segmentation": [[4, 4, 24, 4, 24, 24, 4, 24]]})
    if not masks:
        (tmp_path / "found.segm.json").unlink()
    parsed = require_sound(page(made(ran()), seen))
    points = [attrs["points"] for tag, attrs in parsed.elements if tag == "polygon"]
    assert points[0] == "30,30 180,30 180,180 30,180"
    assert len(points) == 1 + 2 * masks
    assert all(set(one.split()) == {"0,0", "0,232", "352,232", "352,0"} for one in points[1:])


def test_an_image_that_is_not_there_is_passed_over(tmp_path, seen):
    (tmp_path / NAME).unlink()
    detected(tmp_path, [(0, 0.9), (1, 0.9)])
    parsed = Parsed(page(made(ran()), seen))
    assert parsed.said("figcaption") == ["two.png: 0 objects, 0 hit, 0 missed, 1 false"]


def test_ap_of_each_class_is_the_mean_of_a_groups_runs():
    classes = [{"box": {"cat": box, HOSTILE: 10.0, "none": None}} for box in (30.0, 40.0)]
    parsed = require_sound(page(made(*(ran(i, classes=c) for i, c in enumerate(classes))), None))
    cells = parsed.said("td")
    assert cells[cells.index(HOSTILE) :] == [HOSTILE, "10.00", "cat", "35.00", "none", "–"]
    assert "AP by class" in parsed.said("summary")


def test_what_was_typed_is_shown():
    parsed = require_sound(page(made(ran(), command_line=f"ckptconv verify-ap '{HOSTILE}'"), None))
    assert parsed.said("pre") == [f"ckptconv verify-ap '{HOSTILE}'"]
    assert "What was typed" not in Parsed(page(made(ran()), None)).said("h2")


def test_a_report_without_runs_says_why_and_draws_nothing(seen):
    text = page(made(verdict=verdict("fail"), data=data(generated=False, images=None, sha256=None)), seen)
    parsed = Parsed(text)
    assert parsed.said("h2") == ["What was measured"]
    assert not {"table", "svg", "img"} & {tag for tag, _ in parsed.elements}
    assert "box AP 30.00." in parsed.said("p")
    assert "0 images evaluated" in parsed.said("dd")


def test_a_test_of_a_detector_has_a_table_and_no_curve():
    parsed = Parsed(page(made(ran(steps=[], iterations=0)), None))
    assert "svg" not in [tag for tag, _ in parsed.elements]
    assert parsed.said("td")[8:9] == ["–"]


def test_ap_that_is_null_is_a_dash():
    nothing = dict.fromkeys(NAMES)
    run = ran(ap={"box": None}, metrics={"box": nothing}, images_per_second=None, evaluations=[[20, {}]])
    text = page(made(run), None)
    assert Parsed(text).said("td") == ["seed0", "box", *"––––––", "20", "1.6 GB", "–"]
    assert [said.partition(" of ")[0] for said in curves(text)] == ["The loss", "The learning rate"]


@pytest.mark.parametrize("loss", [None, 0.0, -1.0])
def test_a_loss_that_a_log_axis_has_no_place_for_is_left_out_of_the_curve(loss):
    run = ran(steps=[[1, 2.0, 0.1], [2, loss, 0.1], [3, 1.0, 0.1]])
    (line,) = [attrs for tag, attrs in Parsed(drawing(page(made(run), None), "The loss")).elements if tag == "polyline"]
    assert len(line["points"].split()) == 2
    assert curves(page(made(ran(steps=[[1, loss, 0.1]], evaluations=[])), None)) == {}


def test_each_seed_has_its_rows_and_its_line():
    text = page(made(ran(0), ran(1)), None)
    cells = Parsed(text).said("td")
    assert [cells.count(name) for name in ("seed0", "seed1", "box", "mask")] == [1, 1, 2, 2]
    for begins in ("The loss of 2 trainings", "box AP", "mask AP"):
        assert Parsed(drawing(text, begins)).said("title") == ["seed0", "seed1"]


def arm(group: str, seed: int, box: float) -> dict[str, Any]:
    return ran(seed, name=f"{group}-seed{seed}", group=group, ap={"box": box, "mask": box / 2})


def test_a_lift_has_a_dot_for_each_seed_and_the_interval_of_the_difference():
    values = {"converted": (30.0, 31.0, 32.0), "random": (20.0, 22.0, 21.0)}
    runs = [arm(group, seed, values[group][seed]) for seed in range(3) for group in values]
    text = page(made(*runs, tier="lift"), None)
    assert Parsed(drawing(text, "box AP of each seed")).said("title") == [
        "seed 0: 30.00", "seed 1: 31.00", "seed 2: 32.00", "seed 0: 20.00", "seed 1: 22.00", "seed 2: 21.00",
    ]  # fmt: skip
    low, high = scipy.stats.t.interval(0.95, 2, 10.0, scipy.stats.sem([10.0, 9.0, 11.0]))
    assert Parsed(drawing(text, "The difference in box AP")).said("title") == [
        f"mean 10.00, interval from {low:.2f} to {high:.2f}", "seed 0: 10.00", "seed 1: 9.00", "seed 2: 11.00",
    ]  # fmt: skip
    assert Parsed(text).said("h3")[:2] == ["AP of each seed, box", "AP of each seed, mask"]
    legend = [said for tag, said in Parsed(text).texts if tag == "li"]
    assert legend == ["checkpoint", "random"] * 3


def test_a_lift_that_has_one_seed_so_far_has_no_interval():
    text = page(made(arm("converted", 0, 30.0), arm("random", 0, 20.0), arm("converted", 1, 30.0)), None)
    assert "The lift" not in Parsed(text).said("h2")


def test_configs_and_logs_beside_the_page_are_linked(tmp_path):
    for name in ("config.py", "seed0/config.py", "seed0/output.log", "seed1/config.py", "seed0/other.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    write(from_json(made(ran(0), ran(2))), tmp_path, None, print)
    parsed = Parsed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert parsed.attributes("href") == ["config.py", "seed0/config.py", "seed0/output.log"]


def test_files_are_linked_by_their_names_beside_the_page():
    text = page_of(from_json(made(ran())), None, ["config.py", "seed0/a b#?<i>.log"])
    parsed = require_sound(text)
    assert parsed.attributes("href") == ["config.py", "seed0/a%20b%23%3F%3Ci%3E.log"]
    assert parsed.said("a") == ["config.py", "seed0/a b#?<i>.log"]


@pytest.mark.parametrize("status", ["pass", "fail", "inconclusive", "measured"])
def test_each_verdict_has_its_colour(status):
    text = page(made(verdict=verdict(status)), None)
    parsed = Parsed(text)
    colour = {"fail": "bad", "inconclusive": "warn"}.get(status, "good")
    assert ("div", {"class": f"verdict {colour}"}) in parsed.elements
    assert parsed.said("b") == [status]
    assert "Rule: at least box AP 20." in parsed.said("p")


@pytest.mark.parametrize(("needed", "said"), [(None, []), (7, ["About 7 seeds would decide."])])
def test_seeds_that_would_decide_are_told(needed, said):
    parsed = Parsed(page(made(verdict=verdict("inconclusive", needed)), None))
    assert [text for text in parsed.said("p") if text.startswith("About")] == said


def test_what_was_expected_is_a_line_in_the_curve_of_ap_only():
    without, with_it = (page(made(ran(), expected=expected), None) for expected in (None, EXPECTED))
    for metric, level in (("box", "expected 38.2"), ("mask", "expected 34.7")):
        assert level in Parsed(drawing(with_it, f"{metric} AP")).said("text")
        assert "expected" not in drawing(without, f"{metric} AP")
    assert drawing(with_it, "The loss") == drawing(without, "The loss")


def test_what_is_not_known_is_no_fact():
    parsed = Parsed(page(made(ran()), None))
    assert parsed.said("dt") == [
        "expected",
        "detector",
        "recipe",
        "data",
        "annotations",
        "python",
        "device",
        "judged",
    ]
    assert parsed.said("dd")[0] == "nothing"


def test_a_file_whose_name_is_no_utf8_has_a_page(tmp_path):
    write(from_json(made(config=os.fsdecode(b"caf\xe9.py"))), tmp_path, None, print)
    assert "caf" in (tmp_path / "report.html").read_text(encoding="utf-8", errors="surrogateescape")
