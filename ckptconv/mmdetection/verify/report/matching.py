"""Objects and detections of one image -> which are hits, missed, or false. Pure.

It is COCO's rule at one overlap: detections in the order of their scores take the object of their class that they
overlap most, each object once. A detection that lies on a crowd counts as nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HIT, MISSED, FALSE = "hit", "missed", "false"
LEAST_SCORE, LEAST_OVERLAP = 0.5, 0.5
RULE = (
    f"A detection is a hit if its box overlaps an object of its class by at least {LEAST_OVERLAP} (intersection over "
    f"union), and false if not. Only scores of at least {LEAST_SCORE} count; an object without a hit is missed."
)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Outcome:
    """An object or a detection: x, y, width and height in pixels, what became of it, and its segmentation, if any."""

    kind: str
    box: Box
    category: int
    score: float | None
    segmentation: Any


@dataclass(frozen=True)
class Matched:
    """One image."""

    objects: tuple[Outcome, ...]
    detections: tuple[Outcome, ...]

    def count(self, kind: str) -> int:
        """How many are hits, missed or false."""
        return sum(one.kind == kind for one in (self.detections if kind == FALSE else self.objects))

    @property
    def errors(self) -> int:
        return self.count(MISSED) + self.count(FALSE)


def matched(annotations: Iterable[Mapping[str, Any]], detections: Iterable[Mapping[str, Any]]) -> Matched:
    """The outcome of one image, from entries of COCO's formats."""
    entries = list(annotations)
    objects = [one for one in entries if not one.get("iscrowd")]
    crowds = [one for one in entries if one.get("iscrowd")]
    taken: set[int] = set()
    found = [
        outcome
        for one in sorted(detections, key=lambda one: -one["score"])
        if one["score"] >= LEAST_SCORE and (outcome := _outcome(one, objects, crowds, taken)) is not None
    ]
    known = (_made(HIT if i in taken else MISSED, one, None) for i, one in enumerate(objects))
    return Matched(tuple(known), tuple(found))


def _outcome(
    one: Mapping[str, Any], objects: Sequence[Mapping[str, Any]], crowds: Sequence[Mapping[str, Any]], taken: set[int]
) -> Outcome | None:
    best = max(
        ((overlap(one["bbox"], other["bbox"]), -i) for i, other in _of_class(one, objects) if i not in taken),
        default=(0.0, 0),
    )
    if best[0] >= LEAST_OVERLAP:
        taken.add(-best[1])
        return _made(HIT, one, one["score"])
    if any(_inside(one["bbox"], other["bbox"]) >= LEAST_OVERLAP for _, other in _of_class(one, crowds)):
        return None
    return _made(FALSE, one, one["score"])


def _of_class(one: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return ((i, other) for i, other in enumerate(others) if other["category_id"] == one["category_id"])


def _made(kind: str, one: Mapping[str, Any], score: float | None) -> Outcome:
    x, y, width, height = map(float, one["bbox"])
    return Outcome(kind, (x, y, width, height), one["category_id"], score, one.get("segmentation"))


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes: x, y, width, height."""
    shared = _shared(one, other)
    union = one[2] * one[3] + other[2] * other[3] - shared
    return shared / union if union > 0 else 0.0


def _inside(one: Sequence[float], other: Sequence[float]) -> float:
    """How much of the first box is in the second."""
    area = one[2] * one[3]
    return _shared(one, other) / area if area > 0 else 0.0


def _shared(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)
