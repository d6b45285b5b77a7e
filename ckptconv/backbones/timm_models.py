"""How timm builds a network: the closest of its published models, and the arguments in which the network differs.

It knows what the arguments mean that timm's plain transformers share, and no model: each family has a table of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptconv.backbones.interface import TimmModel

_SIZE = ("embed_dim", "depth")
_LAYER_SCALE = 1e-5  # any number makes timm build one; the file holds the numbers


def closest(wanted: Mapping[str, Any], published: Mapping[str, Mapping[str, Any]], base: str) -> TimmModel:
    """The published model of this width and depth with the fewest other arguments; ``base`` where there is none.

    ``wanted`` and the models have timm's arguments, except for two: ``hidden``, the length of `mlp.fc1`, stands for
    `mlp_ratio`, and ``layer_scale`` for `init_values`.
    """
    names = [name for name, own in published.items() if all(own[key] == wanted[key] for key in _SIZE)]
    models = [TimmModel(name, _differing(wanted, published[name])) for name in names or [base]]
    return min(models, key=lambda model: len(model.arguments))


def _differing(wanted: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that make the model ``own`` the network that is wanted."""
    arguments: dict[str, Any] = {}
    width = wanted["embed_dim"]
    for key, value in wanted.items():
        if key == "hidden":
            if int(width * own[key] / own["embed_dim"]) != value:
                arguments["mlp_ratio"] = _ratio(value, width)
        elif value != own[key]:
            if key == "layer_scale":
                arguments["init_values"] = _LAYER_SCALE if value else 0.0  # None would be as if it were not given
            else:
                arguments[key] = value
    return arguments


def _ratio(hidden: int, width: int) -> float:
    """What times the width is ``hidden``, once its fraction is cut off."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width
