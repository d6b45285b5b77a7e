"""The tier lift: is the checkpoint better than random weights? The configs of its two runs, and the rule. No torch.

Both runs train one and the same network completely, from its checkpoint and from random weights. A `TimmBackbone` that
is frozen whole is the exception: it stays frozen in both, since that is what its user wants to know about.

A network is frozen by its config or by the default of its class, so callers say which arguments a class takes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from ckptconv.mmdetection.type_names import has_type, loads_checkpoint
from ckptconv.mmdetection.verify.compare_ap import FAIL, INCONCLUSIVE, LEVEL, PASS, Verdict, interval, needed_seeds
from ckptconv.mmdetection.verify.config_edits import Config, dicts

Takes = Callable[[Mapping[str, Any], str | None], Collection[str]]
"""The arguments that a dict's class takes, by name, in a scope of mmengine's registries; () for an unknown class."""
TIMM = "TimmBackbone"
_FREE: Mapping[str, Any] = {"frozen_stages": -1, "norm_eval": False}


def unfrozen(config: Config, takes: Takes, whole: bool = True) -> Config:
    """The same config with networks that train completely: frozen random weights would not be a fair comparison.

    These are the backbone, and everything else that starts from a checkpoint, with all that is inside. ``whole``: also
    a `TimmBackbone` of which everything is frozen.
    """
    free = deepcopy(config)
    for node, scope in _networks(free):
        known = takes(node, scope)
        node.update({name: value for name, value in _FREE.items() if name in node or name in known})
        if node.get("frozen") is not None and has_type(node, TIMM) and (whole or not frozen_whole(node)):
            node["frozen"] = None
        norm = node.get("norm_cfg")
        if isinstance(norm, Mapping) and "requires_grad" in norm:
            node["norm_cfg"] = {**norm, "requires_grad": True}
    return free


def frozen_whole(backbone: Any) -> bool:
    """Whether the dict of a backbone is that of a `TimmBackbone` of which everything is frozen."""
    return has_type(backbone, TIMM) and backbone.get("frozen") == "all"


def from_random(config: Config, takes: Takes) -> Config:
    """The same config without its pretrained weights, and without the guard that checks them.

    Where a config has no other ``init_cfg``, a network starts as its class does by default. Residual branches that
    start at 0, as in MMDetection's ResNets, or close to 0, as with timm's LayerScale, learn too slowly in a short run
    for a fair comparison: here they do not.
    """
    random = deepcopy(config)
    for node, scope in list(_networks(random)):
        if "zero_init_residual" in takes(node, scope):
            node["zero_init_residual"] = False
    for _, node in dicts(random["model"]):
        _remove_checkpoints(node)
    random["load_from"] = None
    random["custom_hooks"] = [h for h in random.get("custom_hooks") or [] if not has_type(h, "CheckpointGuard")]
    return random


def lifted(differences: Mapping[str, Sequence[float]], frozen: bool = False) -> Verdict:
    """Whether AP is above that of random weights, from one difference per seed. Box AP decides, or the only metric.

    ``frozen``: both networks were frozen whole.
    """
    other = f"{'frozen ' * frozen}random weights"
    metric = "box" if "box" in differences else next(iter(differences))
    values = differences[metric]
    mean = interval(values)
    reasons = tuple(f"{name} AP {interval(v)} above {other}" for name, v in differences.items())
    rule = (
        f"pass if the {LEVEL:.0%} interval of the mean difference in {metric} AP over {len(values)} seeds lies "
        "above 0, fail if below"
    )
    if mean.low > 0:
        return Verdict(PASS, reasons, rule)
    if mean.high < 0:
        return Verdict(FAIL, (*reasons, "the checkpoint is worse than " + other), rule)
    return Verdict(INCONCLUSIVE, (*reasons, "the interval contains 0"), rule, needed_seeds(values, 0))


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
    init_cfg = node.get("init_cfg")
    return [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg or [])


def _starts(node: Mapping[str, Any]) -> bool:
    return any(map(loads_checkpoint, _initial(node))) or bool(node.get("pretrained"))


def _remove_checkpoints(node: Config) -> None:
    """Remove every checkpoint from one dict."""
    starts = _initial(node)
    others = [start for start in starts if not loads_checkpoint(start)]
    if len(others) < len(starts):
        node["init_cfg"] = others
        if not others:
            del node["init_cfg"]
    if node.get("pretrained"):  # the older form, and timm's
        node["pretrained"] = False if node["pretrained"] is True else None
