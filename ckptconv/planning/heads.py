"""How many attention heads a network has: what its tensors show, what its method or the user states. Pure.

A wrong number changes every feature and no shape. So it is never taken from another network in silence.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from ckptconv.arguments import argument
from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.errors import UsageError

HeadsFrom = Literal["none", "shown", "given", "method", "usual", "assumed", "unknown"]
"""Where the number is from. 'none' is a network without attention; 'usual' is what published networks of this width
have; 'assumed' is about 64 channels a head where none is published; 'unknown' is a width that this does not suit."""


def settle_heads(backbone: Backbone, method_heads: int | None, given: int | None = None) -> tuple[Backbone, HeadsFrom]:
    """The network with its number of heads, and where that is from: the user, else its tensors, its method, its width.

    Raises UsageError for a number that the tensors contradict, or that does not divide the width.
    """
    shown = FAMILIES[backbone.family].heads_shown
    number: Any = getattr(backbone, "num_heads", None)
    if shown is None:
        if given is not None:
            raise UsageError(
                f"{argument('num_heads', given)} changes nothing: {backbone.name} has no attention",
                "Leave it out.",
                "num_heads",
            )
        return backbone, "none"
    if shown(backbone):
        first = number[0] if isinstance(number, tuple) else number
        if given not in (None, first):
            raise UsageError(
                f"{argument('num_heads', given)} contradicts the file, whose tensors show {first} heads"
                f"{' in the first stage' * isinstance(number, tuple)}",
                "Leave it out.",
                "num_heads",
            )
        return backbone, "shown"
    if given is not None:
        return with_heads(backbone, given), "given"
    if method_heads is not None and backbone.token_dim is not None and backbone.token_dim % method_heads == 0:
        return with_heads(backbone, method_heads), "method"
    if number is None:
        return backbone, "unknown"
    usual = getattr(backbone, "embed_dim", 0) in FAMILIES[backbone.family].usual_widths
    return backbone, "usual" if usual else "assumed"


def has_unknown_heads(backbone: Backbone) -> bool:
    """Whether it has attention, and no one knows in how many heads."""
    return FAMILIES[backbone.family].heads_shown is not None and getattr(backbone, "num_heads", None) is None


def with_heads(backbone: Backbone, number: int) -> Backbone:
    """A network whose tensors do not show its heads, with this many in each block; of stages, in those of the first.

    Raises UsageError for a number that does not divide the width.
    """
    width: int = getattr(backbone, "embed_dim", 0)
    if width % number:
        raise UsageError(
            f"{argument('num_heads', number)} does not divide the {width} channels of {backbone.name}",
            "Give the number with which it was trained.",
            "num_heads",
        )
    member: Any = backbone
    changed: Backbone = replace(member, num_heads=number)
    return changed
