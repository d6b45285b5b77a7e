"""A transformer for images or patches of another size, on request: which tensors change, and how.

Images and patches are squares, and sizes are in pixels. A family that has positions or patches says in its table what
becomes of its network; this says what becomes of the numbers, and refuses what makes no sense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptconv import fields
from ckptconv.arguments import argument
from ckptconv.errors import UsageError
from ckptconv.ops import Op, resize_grid, resize_patch
from ckptconv.spec import TensorSpec

if TYPE_CHECKING:
    from ckptconv.backbones.interface import PositionResampling

_MOST_PATCHES = 512  # a side: beyond what any detector sees, and some gigabytes
_LARGEST_PATCH = 128

POSITIONS, KERNEL = "pos_embed", "patch_embed.proj.weight"


@dataclass(frozen=True)
class Size:
    """What a user asks for: images and patches of so many pixels a side. None leaves the network's own."""

    image: int | None = None
    patch: int | None = None

    def __post_init__(self) -> None:
        for field, parameter, value, most in (
            ("image", "image_size", self.image, _MOST_PATCHES * _LARGEST_PATCH),
            ("patch", "patch_size", self.patch, _LARGEST_PATCH),
        ):
            if value is not None and type(value) is not int:
                raise fields.invalid(field, "a whole number of pixels", value)
            if value is not None and not 0 < value <= most:
                raise UsageError(f"{argument(parameter, value)} makes no sense", f"Give 1 to {most} pixels.", parameter)

    @property
    def parameter(self) -> str:
        """The parameter that asks for it; the first of two."""
        return "image_size" if self.image is not None else "patch_size"

    @property
    def asked(self) -> str:
        """What was asked for, for a sentence."""
        asked = (("image_size", self.image), ("patch_size", self.patch))
        return " ".join(argument(name, value) for name, value in asked if value is not None)


@dataclass(frozen=True)
class Change:
    """A tensor, by its canonical name, whose square of ``old`` x ``old`` becomes one of ``new`` x ``new``."""

    name: str
    old: int
    new: int

    def op(self, table: TensorSpec, how: PositionResampling | None = None) -> Op:
        """What resizes it, as a target has it: rows of a table before the patches stay.

        ``how`` is the method's way of resizing a table; None for bicubic without antialias.
        """
        if self.name == KERNEL:
            return resize_patch(self.new)
        tokens = table.shape[1] - self.old**2
        if how is None:
            return resize_grid(tokens, self.new)
        return resize_grid(tokens, self.new, how.mode, how.antialias, how.align_corners, how.offset)


@dataclass(frozen=True)
class PatchGrid:
    """What a network says of its places: patches of ``patch`` pixels, ``grid`` per side.

    ``fixed`` is why its positions cannot be brought to another grid; '' if they can.
    """

    name: str
    patch: int
    grid: int
    fixed: str = ""

    def resized(self, size: Size) -> tuple[Change, ...]:
        """What changes for this size. Raises UsageError where nothing does, or where it cannot be done."""
        patch, grid = size.patch or self.patch, self.grid
        if size.image is not None:
            asked = argument("image_size", size.image)
            if self.fixed:
                raise UsageError(
                    f"{asked}: {self.name} {self.fixed}", f"Leave out {argument('image_size')}.", "image_size"
                )
            grid = size.image // patch
            if size.image % patch:
                fitting = [side * patch for side in (grid, grid + 1) if side]
                raise UsageError(
                    f"{asked} is not a multiple of {patch}, the pixels of a patch",
                    f"Give {' or '.join(map(str, fitting))}.",
                    "image_size",
                )
            if grid > _MOST_PATCHES:
                raise UsageError(
                    f"{asked} makes {grid} patches a side", f"At most {_MOST_PATCHES} are made.", "image_size"
                )
        changes = []
        if grid != self.grid:
            changes.append(Change(POSITIONS, self.grid, grid))
        if patch != self.patch:
            changes.append(Change(KERNEL, self.patch, patch))
        if not changes:
            own = f"patches of {self.patch} pixels" + (f", {self.grid} a side" if size.image is not None else "")
            message = f"{size.asked} changes nothing: {self.name} has {own} already"
            raise UsageError(message, "Leave it out.", size.parameter)
        return tuple(changes)
