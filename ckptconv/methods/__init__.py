"""THE TABLE of methods. To add one, write its literal in the family's file and a case under `tests/cases/`.

Facts come from each method's own repository, named in its row. Naming schemes come first: if a bare file could be
from several methods, `auto` names the scheme and lists the methods that use it.
"""

from __future__ import annotations

from ckptconv.methods import (
    beit,
    clustering,
    contrastive,
    dinov3,
    distillation,
    frameworks,
    haiku,
    image_text,
    lightly_train,
    masked,
    naming_schemes,
    openmmlab,
    predictive,
    rotary,
    siamese,
    simclr,
    swin,
    teachers,
    vissl,
)
from ckptconv.methods.interface import CLIP, HALF, IMAGENET, UNIT, Layout, Licence, Method, Pixels, Release

_FAMILIES = (
    naming_schemes,
    openmmlab,
    frameworks,
    lightly_train,
    swin,
    vissl,
    contrastive,
    simclr,
    clustering,
    siamese,
    teachers,
    dinov3,
    predictive,
    image_text,
    distillation,
    haiku,
    masked,
    beit,
    rotary,
)

METHODS: tuple[Method, ...] = tuple(
    value for family in _FAMILIES for value in vars(family).values() if isinstance(value, Method)
)

__all__ = ["CLIP", "HALF", "IMAGENET", "METHODS", "UNIT", "Layout", "Licence", "Method", "Pixels", "Release"]
