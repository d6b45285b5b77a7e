"""The evaluated images with the most errors: what is in each beside what was detected, drawn over the same picture."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ckptconv.mmdetection.verify.report.matching import FALSE, HIT, LEAST_SCORE, MISSED, Matched, Outcome, matched
from ckptconv.report.markup import Html, element, joined

_SIDE = 360  # pixels of the longer side
_LETTER, _LINE = 7.8, 12  # of a label
Image = np.ndarray[Any, Any]


class EvaluatedImages(NamedTuple):
    """The paths of what one run evaluated.

    ``annotations``: instances in COCO's format; ``detections``: the path of ``….bbox.json`` and ``….segm.json`` without
    these suffixes; ``folder`` of the files that the annotations name. ``categories``: those that count; None is all.
    """

    annotations: Path
    detections: Path
    folder: Path
    categories: Collection[int] | None = None


def figures(evaluated: EvaluatedImages, most: int = 6) -> Iterator[Html]:
    """The images with the most errors first, those that can be read."""
    truth = json.loads(evaluated.annotations.read_text(encoding="utf-8"))
    names = {c["id"]: str(c["name"]) for c in truth["categories"]}
    objects, found = _by_image(_counting(truth.get("annotations", []), evaluated)), _detections(evaluated)
    results = {entry["id"]: matched(objects[entry["id"]], found[entry["id"]]) for entry in truth["images"]}
    hardest = sorted(truth["images"], key=lambda entry: -results[entry["id"]].errors)
    count = 0
    for entry in hardest:
        result = results[entry["id"]]
        image = _read(evaluated.folder / entry["file_name"]) if result.objects or result.detections else None
        if image is None:
            continue
        yield _figure(f"image{count}", str(entry["file_name"]), image, result, names)
        count += 1
        if count == most:
            return


def _counting(entries: Iterable[Mapping[str, Any]], evaluated: EvaluatedImages) -> Iterator[Mapping[str, Any]]:
    wanted = evaluated.categories
    return (one for one in entries if wanted is None or one["category_id"] in wanted)


def _by_image(entries: Iterable[Mapping[str, Any]]) -> dict[Any, list[Mapping[str, Any]]]:
    found: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in entries:
        found[entry["image_id"]].append(entry)
    return found


def _detections(evaluated: EvaluatedImages) -> dict[Any, list[Mapping[str, Any]]]:
    path = evaluated.detections
    masks = path.with_name(f"{path.name}.segm.json")
    source = masks if masks.exists() else path.with_name(f"{path.name}.bbox.json")
    sure = (one for one in json.loads(source.read_text(encoding="utf-8")) if one["score"] >= LEAST_SCORE)
    return _by_image(_counting(sure, evaluated))


def _read(path: Path) -> Image | None:
    import cv2

    image: Image | None = cv2.imread(str(path))
    return image


def _figure(number: str, file: str, image: Image, result: Matched, names: Mapping[int, str]) -> Html:
    """The annotations on the left, the detections on the right; the second picture is the first one, used again."""
    height, width = image.shape[:2]
    scale = _SIDE / max(width, height)
    size = (round(width * scale), round(height * scale))
    picture = element("image", href=Html(_url(image, size)), width=size[0], height=size[1], id=number)
    again = element("use", href=f"#{number}")
    counts = _counts(result)
    pictures = (
        _picture("annotations", size, picture, [_drawn(one, scale, size, names) for one in result.objects]),
        _picture("detections", size, again, [_drawn(one, scale, size, names) for one in reversed(result.detections)]),
    )
    panels = [
        element("svg", *parts, role="img", aria_label=f"{file}, {what}: {counts}", viewBox=f"0 0 {size[0]} {size[1]}")
        for what, parts in pictures
    ]
    return element(
        "figure", element("div", *panels, class_="pair"), element("figcaption", f"{file}: {counts}"), class_="photo"
    )


def _picture(what: str, size: tuple[int, int], picture: Html, drawn: Sequence[Html]) -> tuple[str, list[Html]]:
    title = element("text", what, x=size[0] - 4, y=size[1] - 5, text_anchor="end")
    return what, [picture, *drawn, title]


def _counts(result: Matched) -> str:
    objects = len(result.objects)
    parts = [f"{objects} object{'s' * (objects != 1)}", f"{result.count(HIT)} hit", f"{result.count(MISSED)} missed"]
    return ", ".join([*parts, f"{result.count(FALSE)} false"])


def _drawn(one: Outcome, scale: float, size: tuple[int, int], names: Mapping[int, str]) -> Html:
    """A box with its label, and its mask. A line is solid for a hit, dashed for what is missed, dotted for false."""
    x, y, width, height = (value * scale for value in one.box)
    score = f" {one.score:.2f}" if one.score is not None else f" {one.kind}" * (one.kind != HIT)
    false = " false" if one.kind == FALSE else ""
    label = f"{names.get(one.category, '?')}{score}{false}"
    left = max(min(x, size[0] - _LETTER * len(label)), 0)
    top = y - 3 if y > _LINE else y + _LINE
    box = element("rect", x=f"{x:.1f}", y=f"{y:.1f}", width=f"{width:.1f}", height=f"{height:.1f}")
    return element(
        "g", _mask(one, scale), box, element("text", label, x=f"{left:.1f}", y=f"{top:.1f}"), class_=one.kind
    )


def _mask(one: Outcome, scale: float) -> Html | None:
    """The outline of a mask."""
    outlines = [
        " ".join(f"{x * scale:.0f},{y * scale:.0f}" for x, y in outline)
        for outline in _outlines(one.segmentation)
        if len(outline) > 2
    ]
    if not outlines:
        return None
    return joined(element("polygon", points=points) for points in outlines)


def _outlines(segmentation: Any) -> Iterator[Sequence[Sequence[float]]]:
    """Polygons of COCO's format as they are; those around the parts of an encoded mask."""
    if isinstance(segmentation, list):
        for polygon in segmentation:
            yield list(zip(polygon[::2], polygon[1::2], strict=False))
    elif isinstance(segmentation, Mapping) and isinstance(segmentation.get("counts"), str):
        import cv2
        from pycocotools import mask

        inside = mask.decode(dict(segmentation))
        for outline in cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
            simple = cv2.approxPolyDP(outline, 0.005 * cv2.arcLength(outline, True), True)
            yield simple.reshape(-1, 2).tolist()


def _url(image: Image, size: tuple[int, int]) -> str:
    import cv2

    smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_LINEAR)
    _, encoded = cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def key() -> Html:
    """What the lines around boxes mean."""
    lines = {HIT: "hit", MISSED: "missed", FALSE: "false detection"}
    return element(
        "ul",
        *(
            element(
                "li",
                element(
                    "svg",
                    element("g", element("rect", x=2, y=2, width=24, height=8), class_=kind),
                    class_="key photo",
                    viewBox="0 0 28 12",
                    aria_hidden="true",
                ),
                name,
            )
            for kind, name in lines.items()
        ),
        class_="legend",
    )
