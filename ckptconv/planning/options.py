"""The parameters of a plan, which `convert`, `plan`, `explain`, `inspect` and `remap_state_dict` share."""

from __future__ import annotations

from dataclasses import dataclass

from ckptconv import fields
from ckptconv.arguments import argument
from ckptconv.backbones import TARGETS, TargetName
from ckptconv.backbones.image_size import Size
from ckptconv.errors import UsageError
from ckptconv.methods.interface import Method
from ckptconv.ops import cast
from ckptconv.patterns import Pattern
from ckptconv.spec import DTYPES

_MOST_CHANNELS = 512


@dataclass(frozen=True)
class Options:
    """The parameters that decide what a plan is. Each function takes them one by one, or all of them as ``options``."""

    drop: tuple[str, ...] = ()
    """Patterns of names that are not part of the network: these tensors are dropped."""

    strip_prefix: str = ""
    """The prefix that the method's rules apply under, with its dot; every tensor outside it is dropped."""

    section: str | None = None
    """Dotted path to the mapping with the weights; None asks the method where to look."""

    target: TargetName | None = None
    """Whose names are written, such as 'mmdet' or 'torchvision'; None is the usual one of the network."""

    methods: tuple[Method, ...] = ()
    """Methods of your own, known besides the built-in ones; the parameter ``rules`` adds one from a TOML file."""

    channels: tuple[int, ...] = ()
    """The channels of an image that the network keeps, numbered from 1, in this order; () keeps all of them.

    A channel that is named n times gets an n-th of its weights each time.
    """

    image_size: int | None = None
    """Pixels per side of the images that a transformer's positions are resized for; None keeps them."""

    patch_size: int | None = None
    """Pixels per side of a transformer's patches, to which their kernel is resized; None keeps it."""

    num_heads: int | None = None
    """Attention heads in each block of a transformer (of the first stage, where stages differ), which most files do not
    show. None is the number that the method states, or the usual one for the width."""

    dtype: str | None = None
    """Floating tensors are rounded to this type; None keeps them bit for bit."""

    def __post_init__(self) -> None:
        drop = fields.items("drop", self.drop, str, "texts")
        for pattern in drop:
            Pattern(pattern)
        methods = fields.items("methods", self.methods, Method, "Method")
        fields.unique("methods", [method.name for method in methods])
        fields.set_fields(self, drop=drop, methods=methods)
        for field, value in (
            ("strip_prefix", self.strip_prefix),
            ("section", self.section or ""),
            ("target", self.target or ""),
            ("dtype", self.dtype or ""),
        ):
            if not isinstance(value, str):
                raise fields.invalid(field, "a text", value)
        if self.target is not None and self.target not in TARGETS:
            raise UsageError(f"there is no target '{self.target}'", f"Targets: {', '.join(TARGETS)}.", "target")
        if self.strip_prefix and not self.strip_prefix.endswith("."):
            raise UsageError(
                f"the prefix '{self.strip_prefix}' has no dot at its end",
                f"Write '{self.strip_prefix}.' instead.",
                "strip_prefix",
            )
        if len(self.channels) > _MOST_CHANNELS or any(type(n) is not int or n < 1 for n in self.channels):
            raise UsageError(
                f"{argument('channels', self.channels)} makes no sense",
                f"Channels are numbered from 1, as bands are: {argument('channels', (4, 3, 2))} takes the fourth, the "
                "third, the second.",
                "channels",
            )
        Size(self.image_size, self.patch_size)
        if self.num_heads is not None:
            fields.set_fields(self, num_heads=fields.integer("num_heads", self.num_heads, 1))
        if self.dtype is not None:
            cast(DTYPES["float32"], self.dtype)  # refuses a type to which nothing can be cast

    @property
    def size(self) -> Size:
        """The images and patches that are asked for."""
        return Size(self.image_size, self.patch_size)
