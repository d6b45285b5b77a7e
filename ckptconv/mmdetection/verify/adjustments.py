"""What a tier leaves out of a config, with a note for each, and what of a config no tier can honour. Pure.

Sources: mmengine 0.10.7, `mmengine/hooks/` and `mmengine/runner/runner.py`; mmdet 3.3.0, `mmdet/engine/hooks/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from ckptconv.errors import UsageError
from ckptconv.mmdetection.config.detectors import value_at
from ckptconv.mmdetection.type_names import type_name

_AVERAGE = re.compile(r"EMA|SWA|Averag")  # EMAHook has an average of any kind, others' hooks are named after theirs
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
"""Of these, what a lift on the user's own data turns off: it keeps the config's schedule."""


def averages(config: Mapping[str, Any]) -> Iterator[str]:
    """The hooks that average the weights, each by its place in the config."""
    return (place for place, _, name in _hooks(config) if _AVERAGE.search(name))


def accumulated(config: Mapping[str, Any]) -> int:
    """How many batches a process adds up before the optimizer steps."""
    counts = value_at(config, "optim_wrapper.accumulative_counts", 1)
    return counts if isinstance(counts, int) and counts > 0 else 1


def adjusted(config: dict[str, Any], tier: str, generated: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config that a tier trains, and a sentence for each thing that it leaves out or adds.

    ``generated``: it trains a short schedule of its own, on generated images.
    """
    changed = deepcopy(config)
    notes = []
    if tier == "full":
        notes += [f"{place}: the AP is that of the average, as MMDetection evaluates it" for place in averages(config)]
    if tier in ("smoke", "lift"):
        off = dict(_off(config, generated))
        notes += [f"{place} is off: {why}" for place, why in off.items()]
        _remove(changed, off)
    if generated:
        notes += _of_the_schedule(changed)
    elif tier in ("full", "lift") and value_at(config, "auto_scale_lr.enable") and accumulated(config) > 1:
        notes.append(
            f"auto_scale_lr: MMDetection does not count accumulated batches, so it trains with "
            f"1/{accumulated(config)} of the learning rate"
        )
    return changed, tuple(notes)


def _off(config: Mapping[str, Any], generated: bool) -> Iterator[tuple[str, str]]:
    """The hooks that are turned off: each by its place, and why."""
    for place, _, name in _hooks(config):
        if _AVERAGE.search(name):
            yield place, "a short training is judged by the trained weights, and a slow average would hide them"
        elif name in (_OWN_SCHEDULE if generated else _LIFT):
            yield place, _OWN_SCHEDULE[name]


def _hooks(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, int | str], str]]:
    """All hooks: how to say where they are, where they are, and their class."""
    for i, hook in enumerate(config.get("custom_hooks") or []):
        yield f"custom_hooks[{i}] ({type_name(hook)})", ("custom_hooks", i), type_name(hook)
    for name, hook in (config.get("default_hooks") or {}).items():
        yield f"default_hooks.{name} ({type_name(hook)})", ("default_hooks", name), type_name(hook)


def _remove(config: dict[str, Any], off: Mapping[str, str]) -> None:
    gone = {at for place, at, _ in _hooks(config) if place in off}
    if gone:
        hooks = enumerate(config.get("custom_hooks") or [])
        config["custom_hooks"] = [hook for i, hook in hooks if ("custom_hooks", i) not in gone]
        for part, name in gone:
            if part == "default_hooks":
                del config[part][name]


def _of_the_schedule(config: dict[str, Any]) -> Iterator[str]:
    """Turns off in place what the tier's own optimizer and schedule have no use for."""
    if value_at(config, "auto_scale_lr.enable"):
        config["auto_scale_lr"]["enable"] = False
        yield "auto_scale_lr is off: this tier sets its own learning rate"
    if accumulated(config) > 1:
        yield f"optim_wrapper.accumulative_counts={accumulated(config)} is off: this tier has its own optimizer"
    if config.get("compile"):
        config["compile"] = False
        yield "compile is off: compiling takes longer than this tier trains"


def require_supported(config: Mapping[str, Any], shown: str, tier: str, generated: bool) -> None:
    """Raises UsageError, with the config's line, for what would make a run of ours another one than the config's."""
    runner = config.get("runner_type")
    if runner not in (None, "Runner", "mmengine.Runner"):
        raise UsageError(f"{shown}: runner_type={runner!r}, and verify-ap uses mmengine's Runner only", "Leave it out.")
    if tier == "eval":
        return
    if config.get("resume") and config.get("load_from"):
        raise UsageError(
            f"{shown}: resume=True continues the training of load_from={config['load_from']!r}, and verify-ap "
            "trains from the start",
            "Set resume = False and load_from = None in it.",
        )
    if (
        not generated
        and value_at(config, "auto_scale_lr.enable")
        and not value_at(config, "auto_scale_lr.base_batch_size")
    ):
        raise UsageError(
            f"{shown}: auto_scale_lr.enable=True needs base_batch_size",
            "Set auto_scale_lr.base_batch_size to the images per step that the learning rate is for.",
        )
