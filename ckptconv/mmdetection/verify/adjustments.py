"""What a tier turns off in a config, with a note for each, and what of a config no tier supports. Pure.

Sources: mmengine 0.10.7, `mmengine/hooks/` and `mmengine/runner/runner.py`; mmdet 3.3.0, `mmdet/engine/hooks/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from ckptconv.errors import UsageError
from ckptconv.mmdetection.config.detectors import value_at
from ckptconv.mmdetection.type_names import has_type, type_name
from ckptconv.mmdetection.verify.config_edits import dicts
from ckptconv.mmdetection.verify.lift import TIMM, frozen_whole

_AVERAGE = re.compile(r"EMA|SWA|Averag")  # EMAHook takes any kind of average; other hooks are named after theirs
_OWN_SCHEDULE = {
    "PipelineSwitchHook": "it switches to a pipeline of the config's own data",
    "YOLOXModeSwitchHook": "it switches the config's own data sets",
    "EarlyStoppingHook": "every training of this tier has the same length",
    "ProfilerHook": "it belongs to the config's own schedule",
    "NPUProfilerHook": "it belongs to the config's own schedule",
    "MemoryProfilerHook": "it belongs to the config's own schedule",
}
"""Hooks that the short schedule on generated images turns off, and why."""
_LIFT = ("EarlyStoppingHook",)
"""Those that a lift on the user's own data turns off; it keeps the config's schedule."""


def averages(config: Mapping[str, Any]) -> Iterator[str]:
    """The hooks that average the weights, each by its path in the config."""
    return (path for path, _, name in _hooks(config) if _AVERAGE.search(name))


def accumulated(config: Mapping[str, Any]) -> int:
    """How many batches a process accumulates before the optimizer steps."""
    counts = value_at(config, "optim_wrapper.accumulative_counts", 1)
    return counts if isinstance(counts, int) and counts > 0 else 1


def adjusted(config: dict[str, Any], tier: str, generated: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config that a tier trains, and a sentence for each change.

    ``generated``: the tier trains its own short schedule, on generated images.
    """
    changed = deepcopy(config)
    notes = []
    if tier == "full":
        notes += [f"{path}: the AP is that of the average, as MMDetection evaluates it" for path in averages(config)]
    if tier in ("smoke", "lift"):
        off = dict(_off(config, generated))
        notes += [f"{path} is off: {why}" for path, why in off.items()]
        _remove(changed, off)
        notes += _of_frozen(config, tier)
    if generated:
        notes += _turn_off_schedule(changed)
    elif tier in ("full", "lift") and value_at(config, "auto_scale_lr.enable") and accumulated(config) > 1:
        notes.append(
            f"auto_scale_lr: MMDetection does not count accumulated batches, so it trains with "
            f"1/{accumulated(config)} of the learning rate"
        )
    return changed, tuple(notes)


def _of_frozen(config: Mapping[str, Any], tier: str) -> Iterator[str]:
    """What happens to blocks of timm's networks that a config freezes; `lift.unfrozen` does it."""
    for path, node in dicts(config.get("model"), "model"):
        if not has_type(node, TIMM) or node.get("frozen") is None:
            continue
        if tier == "lift" and frozen_whole(node):
            yield f"{path}.frozen='all' stays: the lift is that of frozen weights above frozen random ones"
        else:
            yield f"{path}.frozen={node['frozen']!r} is off: this tier trains the whole network"


def _off(config: Mapping[str, Any], generated: bool) -> Iterator[tuple[str, str]]:
    """The hooks that are turned off: each by its path, and why."""
    for path, _, name in _hooks(config):
        if _AVERAGE.search(name):
            yield path, "a short training is judged by the trained weights, and a slow average would hide them"
        elif name in (_OWN_SCHEDULE if generated else _LIFT):
            yield path, _OWN_SCHEDULE[name]


def _hooks(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, int | str], str]]:
    """All hooks: the path as text, the path as keys, and the class."""
    for i, hook in enumerate(config.get("custom_hooks") or []):
        yield f"custom_hooks[{i}] ({type_name(hook)})", ("custom_hooks", i), type_name(hook)
    for name, hook in (config.get("default_hooks") or {}).items():
        yield f"default_hooks.{name} ({type_name(hook)})", ("default_hooks", name), type_name(hook)


def _remove(config: dict[str, Any], off: Mapping[str, str]) -> None:
    removed = {keys for path, keys, _ in _hooks(config) if path in off}
    if removed:
        hooks = enumerate(config.get("custom_hooks") or [])
        config["custom_hooks"] = [hook for i, hook in hooks if ("custom_hooks", i) not in removed]
        for part, name in removed:
            if part == "default_hooks":
                del config[part][name]


def _turn_off_schedule(config: dict[str, Any]) -> Iterator[str]:
    """Turns off, in this dict, what does not fit the tier's own optimizer and schedule."""
    if value_at(config, "auto_scale_lr.enable"):
        config["auto_scale_lr"]["enable"] = False
        yield "auto_scale_lr is off: this tier sets its own learning rate"
    if accumulated(config) > 1:
        yield f"optim_wrapper.accumulative_counts={accumulated(config)} is off: this tier has its own optimizer"
    if config.get("compile"):
        config["compile"] = False
        yield "compile is off: compiling takes longer than this tier trains"


def require_supported(config: Mapping[str, Any], target: str, tier: str, generated: bool) -> None:
    """Raises UsageError, with the config's line, for settings with which a run would not be the config's."""
    runner = config.get("runner_type")
    if runner not in (None, "Runner", "mmengine.Runner"):
        raise UsageError(
            f"{target}: runner_type={runner!r}, and verify-ap uses mmengine's Runner only", "Leave it out."
        )
    if tier == "eval":
        return
    if config.get("resume") and config.get("load_from"):
        raise UsageError(
            f"{target}: resume=True continues the training of load_from={config['load_from']!r}, and verify-ap "
            "trains from the start",
            "Set resume = False and load_from = None in it.",
        )
    if (
        not generated
        and value_at(config, "auto_scale_lr.enable")
        and not value_at(config, "auto_scale_lr.base_batch_size")
    ):
        raise UsageError(
            f"{target}: auto_scale_lr.enable=True needs base_batch_size",
            "Set auto_scale_lr.base_batch_size to the images per step that the learning rate is for.",
        )
