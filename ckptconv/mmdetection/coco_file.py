"""An annotation file in COCO's format -> what it says, as data. Imports neither torch nor mmdet.

It knows the format (cocodataset.org/#format-data) and not what a training makes of it: values are kept as they are
in the file, right or wrong. Only what makes a file unreadable as COCO's format is an error here.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ckptconv.errors import UnreadableError, UsageError
from ckptconv.small_file import is_file, read_small
from ckptconv.text import some

LARGEST = 8 << 30
"""Bytes. COCO's own is 0.5 GB, and a file takes about three times its size in memory while it is read."""

_EXPORT = "Export the data set in COCO's format: one JSON object with images, annotations and categories."

NO_MASK, POLYGONS, SHORT_POLYGONS, INCOMPLETE, RUN_LENGTHS, NOT_A_MASK = (
    "",
    "polygons",
    "polygons, some of fewer than three points",
    "incomplete",
    "run lengths",
    "not a mask",
)
"""What a segmentation is: its numbers are not kept. ``INCOMPLETE``: a training leaves it out, and COCOeval fails."""


class Category(NamedTuple):
    """A category; the order in the file counts."""

    id: int | str
    name: str


class Image(NamedTuple):
    """An image as the file has it; None for what is not there. ``file_name`` is below the folder of the images."""

    id: Any
    file_name: Any
    width: Any
    height: Any


class Annotation(NamedTuple):
    """An annotation as the file has it; None for what is not there. ``segmentation``: one of the kinds above."""

    id: Any
    image_id: Any
    category_id: Any
    bbox: Any
    area: Any
    iscrowd: Any
    ignore: Any
    segmentation: str


@dataclass(frozen=True)
class CocoFile:
    """What an annotation file says.

    ``path`` as it was given; ``annotations`` is empty where the file has none, as those of COCO's test images.
    """

    path: str
    categories: tuple[Category, ...]
    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...]


def read(path: Path | str) -> CocoFile:
    """Read an annotation file. COCO's own, with 860,000 annotations, takes about five seconds.

    Raises UsageError if there is none, UnreadableError for one that is not JSON or not in COCO's format.
    """
    if not is_file(path):
        raise UsageError(f"there is no annotation file {path}", "Check the path.")
    try:
        content = read_small(Path(path), LARGEST)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror}", "Check the file.") from None
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{path} is not UTF-8: byte {error.start:,}", _EXPORT) from None
    del content
    with no_collection():
        return _file(str(path), _parsed(str(path), text))


def _parsed(path: str, text: str) -> Any:
    try:
        return json.loads(_without_polygons(text))
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(text)  # says where, in the file as it is
    except json.JSONDecodeError as error:
        raise UnreadableError(
            f"{path} is not JSON: {error.msg}, line {error.lineno}, column {error.colno}",
            "It is cut short or was edited by hand: copy or export it again.",
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a list in a list in a list …
        raise UnreadableError(f"{path} is not JSON that can be read: {error}", _EXPORT) from None


@contextmanager
def no_collection() -> Iterator[None]:
    """Millions of small objects that are all kept: to look for garbage among them takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_KEY = '"segmentation"'
_OPENS = re.compile(r"\s*:\s*\[\s*\[").match
_CLOSES = re.compile(r"\s*\]").match
_COUNTED = "\0polygon"


def _without_polygons(text: str) -> str:
    """The text, in which a word replaces each segmentation that is one polygon of three points or more.

    Those are nearly all of a file, and their numbers are of no interest here: they are counted, not read.
    """
    parts: list[str] = []
    done = 0
    at = text.find(_KEY)
    while at >= 0:
        after = at + len(_KEY)
        opens = _OPENS(text, after)
        if opens and text[at - 1] != "\\":
            start, end = opens.end(), text.find("]", opens.end())
            commas = text.count(",", start, end)
            closes = _CLOSES(text, end + 1)
            # No strings, null, true, false, objects or lists: numbers.
            if commas >= 5 and commas % 2 and closes and all(text.find(c, start, end) < 0 for c in '"lu{['):
                parts += (text[done:after], f":{json.dumps(_COUNTED)}")
                done = after = closes.end()
        at = text.find(_KEY, after)
    parts.append(text[done:])
    return "".join(parts)


def _file(path: str, body: Any) -> CocoFile:
    if not isinstance(body, dict):
        raise UnreadableError(f"{path} is not in COCO's format: it holds {_kind(body)}", _EXPORT)
    lacks = [name for name in ("images", "categories") if name not in body]
    if lacks:
        has = some(body, 5) or "nothing"
        raise UnreadableError(f"{path} is not in COCO's format: it has {has}, and no {' and no '.join(lacks)}", _EXPORT)
    categories = tuple(_category(path, i, entry) for i, entry in enumerate(_objects(path, body, "categories")))
    images = tuple(Image._make(map(entry.get, Image._fields)) for entry in _objects(path, body, "images"))
    annotations = tuple(_annotation(entry) for entry in _objects(path, body, "annotations"))
    return CocoFile(path, categories, images, annotations)


def _objects(path: str, body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = body.get(name, [])
    if not isinstance(entries, list):
        raise UnreadableError(f"{path} is not in COCO's format: its {name} are {_kind(entries)}, not a list", _EXPORT)
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UnreadableError(f"{path} is not in COCO's format: {name}[{i}] is {_kind(entry)}", _EXPORT)
    return entries


def _category(path: str, i: int, entry: dict[str, Any]) -> Category:
    number, name = entry.get("id"), entry.get("name")
    if not isinstance(number, int | str) or isinstance(number, bool):
        raise UnreadableError(f"{path}: categories[{i}] needs an id that is a number", _EXPORT)
    if not isinstance(name, str):
        raise UnreadableError(f"{path}: categories[{i}] needs a name that is a string", _EXPORT)
    return Category(number, name)


def _annotation(entry: dict[str, Any]) -> Annotation:
    get = entry.get
    return Annotation(
        get("id"),
        get("image_id"),
        get("category_id"),
        get("bbox"),
        get("area"),
        get("iscrowd"),
        get("ignore"),
        _mask(get("segmentation")),
    )


def _mask(value: Any) -> str:
    """The kind of a segmentation, as mmdet 3.3.0 (`LoadAnnotations._process_masks`) and pycocotools 2.0 read it."""
    if value == _COUNTED:
        return POLYGONS
    if not value:
        return NO_MASK
    if isinstance(value, dict):
        whole = isinstance(value.get("counts"), list | str) and value.get("size") is not None
        return RUN_LENGTHS if whole else INCOMPLETE
    if not isinstance(value, list) or not all(isinstance(polygon, list) for polygon in value):
        return NOT_A_MASK
    if not all(_is_number(number) for polygon in value for number in polygon):
        return NOT_A_MASK
    lengths = [len(polygon) for polygon in value]
    if lengths[0] <= 4:  # pycocotools tells by the first one what all of them are: boxes, or nothing it knows
        return INCOMPLETE
    return POLYGONS if all(n >= 6 and n % 2 == 0 for n in lengths) else SHORT_POLYGONS


def _is_number(value: Any) -> bool:
    """As numpy converts to float64: numbers in quotes too, and null is NaN."""
    if type(value) in (int, float, type(None)):
        return True
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _kind(value: Any) -> str:
    return {list: "a list", dict: "an object", str: "a string", type(None): "null"}.get(
        type(value), "a number or a word"
    )
