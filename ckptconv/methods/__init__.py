"""THE TABLE of methods. To add one, write its literal in the family's file and a case under `tests/cases/`.

Facts come from each method's own repository, named in its row. Naming schemes come first: if a bare file could be
from several methods, `auto` names the scheme and lists the methods that use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

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

_MODULES: Mapping[str, tuple[ModuleType, ...]] = {
    "Names of libraries": (naming_schemes,),
    "Frameworks that train many methods": (openmmlab, frameworks, lightly_train),
    "Swin Transformers": (swin,),
    "VISSL": (vissl,),
    "Contrastive": (contrastive, simclr),
    "Clustering": (clustering,),
    "Siamese, without negatives": (siamese,),
    "Self-distillation": (teachers, dinov3),
    "Prediction of features": (predictive,),
    "Images with texts": (image_text,),
    "Distillation from several networks": (distillation,),
    "DeepMind's ResNets": (haiku,),
    "Masked image modelling": (masked, beit),
    "EVA-02 and Perception Encoder": (rotary,),
}

FAMILIES: Mapping[str, tuple[Method, ...]] = {
    title: tuple(value for module in modules for value in vars(module).values() if isinstance(value, Method))
    for title, modules in _MODULES.items()
}
"""The methods by what they have in common, for people who look for one."""

NAMING_SCHEMES: tuple[Method, ...] = FAMILIES["Names of libraries"]
"""They are those of many networks, some of which have the same names and compute something else."""

METHODS: tuple[Method, ...] = tuple(method for family in FAMILIES.values() for method in family)

__all__ = [
    "CLIP",
    "FAMILIES",
    "HALF",
    "IMAGENET",
    "METHODS",
    "NAMING_SCHEMES",
    "UNIT",
    "Layout",
    "Licence",
    "Method",
    "Pixels",
    "Release",
]
