"""Depth, width and patch size of a network of numbered blocks, by majority: one wrong tensor does not change them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ckptconv.backbones.majority import most_common
from ckptconv.spec import StateSpec

NO_BIAS = "its queries, keys and values have no bias"
NO_NORM = "it has no norm after the last block"


def depth_of(seen: Mapping[str, int]) -> int:
    """How many blocks a network has, from the count of tensors for each block number. Missing numbers count, too.

    A block has more than one tensor. A number far above all others is ignored.
    """
    numbers = [int(n) for n, count in seen.items() if count > 1 and n.isascii() and n.isdigit() and len(n) < 5]
    most = max(numbers, default=-1) + 1
    return most if most <= 2 * len(numbers) else len(numbers)


def blocks_of(state: StateSpec) -> tuple[int, dict[str, list[tuple[int, ...]]]]:
    """How many blocks there are, and the shapes of each part of a block over all of them."""
    parts: dict[str, list[tuple[int, ...]]] = {}
    seen: Counter[str] = Counter()
    for name, spec in state.items():
        head, _, rest = name.partition(".")
        index, _, part = rest.partition(".")
        if head == "blocks" and part and index.isascii() and index.isdigit() and len(index) < 5:
            seen[index] += 1
            parts.setdefault(part, []).append(spec.shape)
    return depth_of(seen), parts


def lengths(parts: Mapping[str, list[tuple[int, ...]]], part: str, axis: int) -> list[int]:
    """That axis of a part in each block that has one."""
    return [shape[axis] for shape in parts.get(part, ()) if len(shape) > axis]


def width_of(parts: Mapping[str, list[tuple[int, ...]]]) -> int:
    """The width of the tokens in most tensors; 0 if there are none."""
    named = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "attn.proj.weight", "attn.proj.bias")
    return most_common([n for part in named for n in lengths(parts, part, 0)] + lengths(parts, "attn.qkv.weight", 1))


def patch_of(state: StateSpec) -> tuple[int, int]:
    """A patch's side and channels; 16 and 3 if they are unknown."""
    kernel = state.get("patch_embed.proj.weight")
    shape = kernel.shape if kernel is not None and len(kernel.shape) >= 3 else (0, 3, 16)
    return shape[2] or 16, shape[1] or 3
