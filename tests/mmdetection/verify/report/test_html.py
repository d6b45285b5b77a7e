"""The page as a browser takes it in: nothing is loaded, nothing that a file says is markup, every tag is closed."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as run_lengths

from ckptconv.mmdetection.verify.measure import NAMES
from ckptconv.mmdetection.verify.report.detections import EvaluatedImages
from ckptconv.mmdetection.verify.report.html import page as page_of
from ckptconv.mmdetection.verify.report.report import from_json
from ckptconv.mmdetection.verify.report.write import write

pytestmark = [
    pytest.mark.mmdet,
    # pycocotools' masks are older than numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

HOSTILE = "<script>alert(1)</script>"
NAME = """a "b" & 'c' <i>é.png"""
EMPTY = {"meta", "img"}  # those of HTML's elements without an end that are used here
LOADS = {"src", "srcset", "href", "xlink:href", "data", "poster", "action", "background"}


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and its text by the element that it stands in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), attrs
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open += [tag] if tag not in EMPTY else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        assert self._open.pop() == tag

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_decl(self, decl: str) -> None:
        assert decl == "doctype html"

    def handle_pi(self, data: str) -> None:
        raise AssertionError(data)

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def said(self, *tags: str) -> list[str]:
        """The texts of these elements."""
        return [text for tag, text in self.texts if tag in tags]

    def attributes(self, *names: str) -> list[str]:
        return [value for _, attrs in self.elements for name, value in attrs.items() if name in names]


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
    """The drawings by what they show."""
    found = re.findall(r'<svg role="img" aria-label="(\w+) over the iterations".*?</svg>', text, re.DOTALL)
    return dict(zip(found, re.findall(r"<svg.*?</svg>", text, re.DOTALL), strict=True))


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


def loaded(text: str) -> Iterator[str]:
    """What a browser would fetch for a page, or go to."""
    parsed = Parsed(text)
    yield from (url for url in parsed.attributes(*LOADS) if not url.startswith(("#", "data:")))
    styles = [*parsed.said("style"), *parsed.attributes("style", "clip-path", "fill", "filter", "mask")]
    yield from (url for style in styles for url in re.findall(r"@import.*|url\((?!#).*?\)", style))
    yield from (tag for tag, _ in parsed.elements if tag in {"script", "link", "iframe", "object", "embed", "base"})


def test_a_page_needs_nothing_but_itself(whole):
    assert list(loaded(whole)) == []


def test_its_parts_are_there(whole):
    parsed = Parsed(whole)
    assert parsed.said("title") == ["mocov2-mask-rcnn: pass"]
    assert parsed.said("h1") == ["mocov2-mask-rcnn"]
    assert parsed.said("h2") == ["Average precision, in percent", "Curves", "Detections", "What was measured"]
    facts = parsed.said("dd")
    assert "120/120 tensors equal r18.pth" in facts
    assert "ResNet-18 of moco" in facts
    assert f"{BAND}; a table" in facts
    assert "generated, 60 images evaluated" in facts


def test_ids_are_used_once_and_what_refers_to_one_finds_it(whole):
    ids = Parsed(whole).attributes("id")
    used = re.findall(r'(?:href="|url\()#([^")]+)', whole)
    assert len(curves(whole)) == 2
    assert used
    assert len(ids) == len(set(ids))
    assert set(used) <= set(ids)


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
    for text in found.values():
        assert escape(HOSTILE, quote=False) in text
        assert "script" not in [tag for tag, _ in Parsed(text).elements]
        assert [said for said in Parsed(text).said("text") if said.startswith(NAME)]


def test_the_name_of_an_image_is_text(seen):
    parsed = Parsed(page(made(ran()), seen))
    assert parsed.said("figcaption") == parsed.attributes("alt") == [f"{NAME}: 2 detections"]
    assert "i" not in [tag for tag, _ in parsed.elements]


def test_images_are_in_the_page_and_drawn_upon(seen):
    (url,) = Parsed(page(made(ran()), seen)).attributes("src")
    kind, _, encoded = url.partition("base64,")
    assert kind == "data:image/jpeg;"
    image = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (240, 360, 3)
    assert image[230, 350].max() > 40  # black before: the mask is everywhere
    assert image.max() > 200


def test_where_nothing_is_sure_no_image_is_shown(tmp_path, seen):
    text = page(made(ran()), detected(tmp_path, [(0, 0.49)]))
    assert "<p>None above 0.5.</p>" in text
    assert Parsed(text).attributes("src") == []


def test_without_masks_boxes_are_drawn(tmp_path, seen):
    (tmp_path / "found.segm.json").unlink()
    assert len(Parsed(page(made(ran()), seen)).attributes("src")) == 1


def test_an_image_that_is_not_there_is_passed_over(tmp_path, seen):
    (tmp_path / NAME).unlink()
    detected(tmp_path, [(0, 0.9), (1, 0.9)])
    assert Parsed(page(made(ran()), seen)).said("figcaption") == ["two.png: 1 detection"]


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
    assert curves(text).keys() == {"loss"}


def test_a_loss_that_is_null_is_left_out_of_the_curve():
    run = ran(steps=[[1, 2.0, 0.1], [2, None, 0.1], [3, 1.0, 0.1]])
    assert curves(page(made(run), None)).keys() == {"loss", "AP"}
    assert curves(page(made(ran(steps=[[1, None, 0.1]], evaluations=[])), None)) == {}


def test_each_seed_has_its_rows_and_its_curves():
    parsed = Parsed(page(made(ran(0), ran(1)), None))
    cells = parsed.said("td")
    assert [cells.count(name) for name in ("seed0", "seed1", "box", "mask")] == [1, 1, 2, 2]
    names = [said for said in parsed.said("text") if said.startswith("seed")]
    assert names == ["seed0", "seed1", "seed0 box", "seed0 mask", "seed1 box", "seed1 mask"]


@pytest.mark.parametrize("status", ["pass", "fail", "inconclusive", "measured"])
def test_each_verdict_has_its_colour(status):
    text = page(made(verdict=verdict(status)), None)
    parsed = Parsed(text)
    assert ("div", {"class": f"verdict {status}"}) in parsed.elements
    assert parsed.said("b") == [status]
    assert len(re.findall(rf"\.{status}\b[^{{]*{{ --hue: #", text)) == 2  # by day and by night
    assert "Rule: at least box AP 20." in parsed.said("p")


@pytest.mark.parametrize(("needed", "said"), [(None, []), (7, ["About 7 seeds would decide."])])
def test_seeds_that_would_decide_are_told(needed, said):
    parsed = Parsed(page(made(verdict=verdict("inconclusive", needed)), None))
    assert [text for text in parsed.said("p") if text.startswith("About")] == said


def test_what_was_expected_is_a_line_in_the_curve_of_ap_only():
    without, with_it = (curves(page(made(ran(), expected=expected), None)) for expected in (None, EXPECTED))
    lines = ["expected box 38.2", "expected mask 34.7"]
    assert [said for said in Parsed(with_it["AP"]).said("text") if "expected" in said] == lines
    assert "expected" not in without["AP"]
    assert with_it["loss"] == without["loss"]


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
