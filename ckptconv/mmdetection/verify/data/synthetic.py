"""A data set in COCO's format that needs no download: textured circles, squares and triangles, from a seed.

It has what COCO has and breaks code that has seen none of it: several sizes, occlusion, crowds, empty images, polygons
and run lengths. The same arguments give the same bytes. It says nothing about COCO.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("circle", "square", "triangle")
_EMPTY = 0.04  # share of images without an object
_CROWD = 0.06  # share of images with a crowd, too
_VISIBLE = 0.3  # share of a shape that must be seen for it to be annotated
_SIZES = (0.14, 0.22, 0.36, 0.5)  # of an image's side
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Shape:
    kind: int
    outline: Array
    crowd: bool = False


def make(folder: Path, train: int, val: int, side: int = 128, seed: int = 0) -> Path:
    """Write ``train2017/``, ``val2017/`` and ``annotations/instances_*2017.json`` below ``folder``.

    Args:
        folder: made if it is missing.
        train, val: images in each part.
        side: of the square images, in pixels.
        seed: of everything that is drawn.
    """
    import cv2

    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for number, (part, images) in enumerate((("train2017", train), ("val2017", val))):
        (folder / part).mkdir(exist_ok=True)
        described: dict[str, Any] = {
            "info": {"description": f"textured shapes, seed {seed}"},
            "images": [],
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
            "annotations": [],
        }
        rng = np.random.default_rng([seed, number])
        for i in range(images):
            shapes = _scene(rng, side)
            cv2.imwrite(str(folder / part / f"{i:06}.png"), _draw(rng, shapes, side))
            described["images"].append({"id": i, "file_name": f"{i:06}.png", "width": side, "height": side})
            for annotation in _annotations(shapes, side):
                described["annotations"].append({"id": len(described["annotations"]) + 1, "image_id": i, **annotation})
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def _scene(rng: np.random.Generator, side: int) -> list[_Shape]:
    """Shapes from the back to the front."""
    if rng.random() < _EMPTY:
        return []
    shapes = []
    if rng.random() < _CROWD:
        kind, middle = int(rng.integers(len(CLASSES))), rng.uniform(0.25, 0.75, 2) * side
        middles = middle + rng.normal(0, 0.1 * side, (6, 2))
        shapes += [_Shape(kind, _outline(rng, kind, at, 0.1 * side), crowd=True) for at in middles]
    for _ in range(int(rng.integers(1, 5))):
        kind, size = int(rng.integers(len(CLASSES))), float(rng.choice(_SIZES)) * side
        shapes.append(_Shape(kind, _outline(rng, kind, rng.uniform(0.15, 0.85, 2) * side, size)))
    return shapes


def _outline(rng: np.random.Generator, kind: int, middle: Array, size: float) -> Array:
    """Corners in pixels, [N, 2] int32, of a shape of this size (pixels), turned at random."""
    corners, turn = {0: 24, 1: 4, 2: 3}[kind], rng.uniform(0, 2 * np.pi)
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    outline: Array = np.round(middle + size / 2 * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.int32)
    return outline


def _texture(rng: np.random.Generator, side: int, low: int, high: int) -> Array:
    """A coloured image, [side, side, 3] uint8, plain, noisy or striped."""
    color = rng.integers(low, high, 3)
    kind = int(rng.integers(3))
    image = np.broadcast_to(color, (side, side, 3)).astype(np.int64)
    if kind == 1:
        image = image + rng.integers(-25, 25, (side, side, 1))
    if kind == 2:
        rows, columns = np.mgrid[:side, :side]
        image = image + 20 * (((rows + int(rng.integers(2)) * columns) // 4) % 2)[..., None]
    texture: Array = np.clip(image, 0, 255).astype(np.uint8)
    return texture


def _draw(rng: np.random.Generator, shapes: list[_Shape], side: int) -> Array:
    image = _texture(rng, side, 20, 120)
    for shape in shapes:
        inside = _filled(shape, side)
        image[inside] = _texture(rng, side, 110, 235)[inside]
    return image


def _filled(shape: _Shape, side: int) -> Array:
    import cv2

    canvas = np.zeros((side, side), np.uint8)
    cv2.fillPoly(canvas, [shape.outline], 1)
    filled: Array = canvas.astype(bool)
    return filled


def _annotations(shapes: list[_Shape], side: int) -> Iterator[dict[str, Any]]:
    """What is seen of each shape: a polygon where all of it is, run lengths where something stands before it."""
    whole = [_filled(shape, side) for shape in shapes]
    crowd = np.zeros((side, side), bool)
    for i, shape in enumerate(shapes):
        seen = whole[i] & ~np.any(whole[i + 1 :], axis=0) if i + 1 < len(shapes) else whole[i]
        if shape.crowd:
            crowd |= seen
            continue
        if seen.sum() < max(_VISIBLE * whole[i].sum(), 12):
            continue
        inside = bool(shape.outline.min() >= 0 and shape.outline.max() < side)
        if inside and seen.sum() == whole[i].sum():
            yield _annotation(shape.kind, seen, [shape.outline.astype(float).ravel().tolist()])
        else:
            yield _annotation(shape.kind, seen, _encoded(seen))
    if crowd.any():
        kind = next(shape.kind for shape in shapes if shape.crowd)
        yield {**_annotation(kind, crowd, _encoded(crowd)), "iscrowd": 1}


def _annotation(kind: int, seen: Array, segmentation: object) -> dict[str, Any]:
    rows, columns = np.nonzero(seen)
    x, y = int(columns.min()), int(rows.min())
    return {
        "category_id": kind + 1,
        "bbox": [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1],
        "area": int(seen.sum()),
        "iscrowd": 0,
        "segmentation": segmentation,
    }


def _encoded(seen: Array) -> dict[str, Any]:
    from pycocotools import mask as run_lengths

    encoded = run_lengths.encode(np.asfortranarray(seen.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}
