"""The two arms of a lift: one network that trains whole, from its checkpoint and from random weights. Pure; no torch.

What freezes a network stands in its config or is the default of its class, so whoever asks tells what a class takes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from copy import deepcopy
from typing import Any

from ckptconv.mmdetection.type_names import has_type, loads_checkpoint
from ckptconv.mmdetection.verify.config_edits import Config, dicts

Takes = Callable[[Mapping[str, Any], str | None], Collection[str]]
"""The names of the arguments that a dict's class takes, in a scope of mmengine's registries; () if it is not known."""
_FREE: Mapping[str, Any] = {"frozen_stages": -1, "norm_eval": False}


def unfrozen(config: Config, takes: Takes) -> Config:
    """The same config with networks that train whole: frozen random numbers would be no fair opponent.

    It is the backbone, and whatever else starts from a checkpoint, with all that is inside.
    """
    free = deepcopy(config)
    for node, scope in _networks(free):
        known = takes(node, scope)
        node.update({name: value for name, value in _FREE.items() if name in node or name in known})
        norm = node.get("norm_cfg")
        if isinstance(norm, Mapping) and "requires_grad" in norm:
            node["norm_cfg"] = {**norm, "requires_grad": True}
    return free


def from_random(config: Config, takes: Takes) -> Config:
    """The same config without its pretrained weights, and without the guard that would miss them.

    Where a config said nothing else of it, a network starts as its class does by itself. Residual branches that start
    at 0, as those of MMDetection's ResNets do, learn too slowly in a short run to be a fair opponent: here they do not.
    """
    random = deepcopy(config)
    for node, scope in list(_networks(random)):
        if "zero_init_residual" in takes(node, scope):
            node["zero_init_residual"] = False
    for _, node in dicts(random["model"]):
        _forget(node)
    random["load_from"] = None
    random["custom_hooks"] = [h for h in random.get("custom_hooks") or [] if not has_type(h, "CheckpointGuard")]
    return random


def _networks(config: Config) -> Iterator[tuple[Config, str | None]]:
    """The dicts of the backbone and of what else starts from a checkpoint, each with the scope it is built in."""
    yield from _below(config["model"], "", config.get("default_scope"), False)


def _below(node: Any, name: str, scope: str | None, inside: bool) -> Iterator[tuple[Config, str | None]]:
    if isinstance(node, list | tuple):
        for child in node:
            yield from _below(child, name, scope, inside)
    if not isinstance(node, dict):
        return
    scope = node.get("_scope_", scope)
    inside = inside or name == "backbone" or _starts(node)
    if inside:
        yield node, scope
    for key, child in list(node.items()):
        yield from _below(child, str(key), scope, inside)


def _initial(node: Mapping[str, Any]) -> list[Any]:
    said = node.get("init_cfg")
    return [said] if isinstance(said, Mapping) else list(said or [])


def _starts(node: Mapping[str, Any]) -> bool:
    return any(map(loads_checkpoint, _initial(node))) or bool(node.get("pretrained"))


def _forget(node: Config) -> None:
    """Take every checkpoint out of one dict."""
    starts = _initial(node)
    kept = [start for start in starts if not loads_checkpoint(start)]
    if len(kept) < len(starts):
        node["init_cfg"] = kept
        if not kept:
            del node["init_cfg"]
    if node.get("pretrained"):  # the older way to say it, and timm's
        node["pretrained"] = False if node["pretrained"] is True else None
