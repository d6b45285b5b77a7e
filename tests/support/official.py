"""The networks in `tests/official/`: official code, run once on made numbers, and what it computed of them.

A network is a JSON file. Its weights are not in it: each is made from its own name by `made`, here and where the
official code was run, so that the file holds names, shapes, and some of the numbers that came out::

    source      the repository and its commit
    code        the class that computed the features, as the official code names it; ``arguments`` are its arguments
    method      the method's name in ckptconv
    container   ``npz`` or ``safetensors`` where the official file is one; else torch's
    auto        false where ckptconv must be told the method
    notes       what was replaced so that the code runs on a CPU, and what else is worth knowing
    taken       which of the maps the method's own detectors take, or its features for dense tasks where it has none:
                ``normed`` after the final norm, ``plain`` before it
    checkpoint  what the official training or export saves: sections, names; a tensor is ``dtype shape``, with ``@n``
                where its numbers are those of the official code (indexes, masks, periods): ``tables[n]``
    features    for each image: its height and width, and the maps, each with its shape and some of its numbers
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "official"
SAMPLES = 512
"""Numbers of an image's maps that are kept, together."""

_TENSOR = re.compile(r"(\w+) (\(\)|\d+(?:x\d+)*)(?: @(\d+))?")
_RANGES = (
    (r"running_var$", 0.5, 1.5),
    (r"running_mean$", -0.2, 0.2),
    (r"(temperature|logit_scale)$", 0.5, 2.0),
    (r"(gamma(_?\d)?|grandma)$", 0.2, 0.8),
    (r"(token|tokens|pos_embed|embedding|_table|pos_embed_\w+)$", -0.5, 0.5),
    (r"(bias|beta)$", -0.2, 0.2),
    (r"weight_g$", 0.6, 1.4),
)
"""Patterns of names with the smallest and the largest number. Any other tensor is a scale or a matrix."""


def _drawn(text: str, count: int) -> Any:
    """Whole numbers of 64 bits from a text: splitmix64 of Steele, Lea and Flood, 2014, from its crc32."""
    index = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(zlib.crc32(text.encode()) << 32)
    mixed = index * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _range(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    for pattern, low, high in _RANGES:
        if re.search(pattern, name):
            return low, high
    if len(shape) < 2:
        return 0.6, 1.4
    bound = math.sqrt(3 / math.prod(shape[1:]))  # keeps the variance of what comes in
    return -bound, bound


def made(name: str, shape: tuple[int, ...], low: float | None = None, high: float | None = None) -> Tensor:
    """A tensor whose numbers depend on its name alone, of a scale that suits what is named so."""
    if low is None or high is None:
        low, high = _range(name, shape)
    unit = (_drawn(name, math.prod(shape)) >> np.uint64(40)).astype(np.float64) / (1 << 24)
    return torch.from_numpy((low + (high - low) * unit).astype(np.float32)).reshape(shape)


def image(height: int, width: int) -> Tensor:
    """The image that a network sees, already normalised: 1 x 3 x height x width."""
    return made(f"image {height}x{width}", (1, 3, height, width), -2.0, 2.0)


def positions(shape: tuple[int, ...], count: int) -> Tensor:
    """Which numbers of a map of this shape are kept."""
    drawn = _drawn(f"positions {'x'.join(map(str, shape))}", count)
    return torch.from_numpy((drawn % np.uint64(math.prod(shape))).astype(np.int64))


def _filled(layout: Any, path: str, tables: list[str]) -> Any:
    """The checkpoint of a layout; a tensor's numbers are made from its path in it."""
    if isinstance(layout, dict):
        return {key: _filled(value, f"{path}/{key}" if path else key, tables) for key, value in layout.items()}
    if layout == "argparse.Namespace":
        return argparse.Namespace()
    match = _TENSOR.fullmatch(layout) if isinstance(layout, str) else None
    if match is None:
        return layout
    shape = () if match[2] == "()" else tuple(map(int, match[2].split("x")))
    dtype: torch.dtype = getattr(torch, match[1])
    if match[3] is not None:
        kept = bytearray(zlib.decompress(base64.b64decode(tables[int(match[3])])))
        return torch.frombuffer(kept, dtype=dtype).reshape(shape)
    return made(path, shape).to(dtype)


@dataclass(frozen=True)
class Map:
    """A feature map of the official code: its shape, and its numbers at `positions`."""

    shape: tuple[int, ...]
    values: tuple[float, ...]

    def difference(self, found: Tensor) -> float:
        """The largest difference of its numbers from a map's, as a part of the largest of its numbers."""
        assert tuple(found.shape) == self.shape, f"{tuple(found.shape)}, not {self.shape}"
        ours = found.detach().flatten()[positions(self.shape, len(self.values))].double()
        theirs = torch.tensor(self.values, dtype=torch.float64)
        return float((ours - theirs).abs().max() / theirs.abs().max())


@dataclass(frozen=True)
class Features:
    """What the official code computes of an image, before and after its final norm; of ``normed`` there may be none."""

    size: tuple[int, int]
    plain: tuple[Map, ...]
    normed: tuple[Map, ...]

    def __str__(self) -> str:
        return f"{self.size[0]}x{self.size[1]}"


@dataclass(frozen=True)
class Network:
    """One file of `tests/official/`."""

    name: str
    method: str
    guessed: bool
    container: str
    taken: str
    features: tuple[Features, ...]
    layout: dict[str, Any]
    tables: list[str]

    def checkpoint(self) -> dict[str, Any]:
        filled: dict[str, Any] = _filled(self.layout, "", self.tables)
        return filled

    def write(self, folder: Path, checkpoint: Mapping[str, Any] | None = None) -> Path:
        """Write what the official code would have saved; ``checkpoint`` replaces it."""
        found = self.checkpoint() if checkpoint is None else checkpoint
        path = folder / f"official.{self.container}"
        if self.container == "npz":
            np.savez(path, **{name: tensor.numpy() for name, tensor in found.items()})
        elif self.container == "safetensors":
            save_file(dict(found), path)
        else:
            torch.save(found, path)
        return path

    def __str__(self) -> str:
        return self.name


def _maps(found: list[dict[str, Any]]) -> tuple[Map, ...]:
    return tuple(Map(tuple(one["shape"]), tuple(one["values"])) for one in found)


@cache
def networks() -> tuple[Network, ...]:
    """Every network, in order of name."""
    return tuple(_read())


def network(name: str) -> Network:
    return next(one for one in networks() if one.name == name)


def change(tensor: Tensor) -> None:
    """Make one of its numbers another, by a tenth."""
    tensor.flatten()[tensor.numel() // 2] += 0.1


def _read() -> Iterator[Network]:
    for path in sorted(FOLDER.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        features = tuple(
            Features(tuple(one["image"]), _maps(one["plain"]), _maps(one["normed"])) for one in found["features"]
        )
        auto, container = found.get("auto", True), found.get("container", "pth")
        yield Network(
            path.stem, found["method"], auto, container, found["taken"], features, found["checkpoint"], found["tables"]
        )
