"""What a training does to a detector's weights before its first iteration, in the order of mmengine's Runner.

Source: mmengine/runner/runner.py, 0.10.7. `Runner.train` calls the hooks' ``before_run``, the detector's
``init_weights``, then ``load_or_resume``, then the hooks' ``before_train``; the loop calls ``before_train_epoch`` and
``before_train_iter`` (mmengine/runner/loops.py). Hooks of the user may change weights in any of these.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptconv.mmdetection import runtime

_BEFORE, _AFTER = ("before_run",), ("before_train", "before_train_epoch", "before_train_iter")
_MOMENTS = (*_BEFORE, *_AFTER, "after_load_checkpoint")
_KNOWN = ("mmengine", "mmdet", "mmcv", "mmpretrain", "ckptconv")
"""Packages whose hooks leave the weights that a training starts from as they are."""


@dataclass
class Start:
    """A detector as a training would have it before its first iteration, and how it came there.

    ``failed``: the error of its initialisation; ``recorded``: what mmengine noted of each parameter; ``opened``: the
    files that were read on the way, in order; ``loading``: why ``load_from`` could not be loaded;
    ``changed``: the entries that each hook changed; ``unknown``: hooks that do not run without a training, and why.
    """

    model: Any
    failed: Exception | None = None
    recorded: Mapping[str, str] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    loading: str = ""
    changed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)


def finish(start: Start, settings: Any) -> None:
    """Initialise a detector that is built, load what is loaded over it, and call the user's hooks."""
    hooks = list(_hooks(settings))
    _call(start, settings, hooks, _BEFORE)
    start.failed, start.recorded = runtime.initialise(start.model)
    loaded = settings.get("load_from")
    if loaded and not settings.get("resume") and start.failed is None:
        start.loading = runtime.load_over(
            start.model, str(loaded), [hook for _, hook in hooks if not isinstance(hook, Exception)]
        )
    _call(start, settings, hooks, _AFTER)


def again(settings: Any, shown: str) -> Mapping[str, Any]:
    """The detector's entries after a start from other random numbers: what is equal does not come from those."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed() % 2**31 + 1)
            random.seed(torch.initial_seed())
            np.random.seed(torch.initial_seed() % 2**31)
            other = Start(runtime.build(settings, shown))
            finish(other, settings)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    found: Mapping[str, Any] = other.model.state_dict()
    return found


def _hooks(settings: Any) -> Iterator[tuple[str, Any]]:
    """The user's own hooks that act before the first iteration, built; an error where one cannot be."""
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS

    default = settings.get("default_hooks") or {}
    for said in (*default.values(), *(settings.get("custom_hooks") or ())):
        kind = said.get("type") if isinstance(said, Mapping) else type(said)
        with runtime.quiet():
            found = HOOKS.get(kind) if isinstance(kind, str) else kind
        if found is None or found.__module__.partition(".")[0] in _KNOWN:
            continue
        if all(getattr(found, name, None) is getattr(Hook, name) for name in _MOMENTS):
            continue
        try:
            with runtime.quiet():
                yield found.__name__, HOOKS.build(dict(said)) if isinstance(said, Mapping) else said
        except Exception as error:  # whatever its constructor does
            yield found.__name__, error


def _call(start: Start, settings: Any, hooks: Iterable[tuple[str, Any]], moments: Iterable[str]) -> None:
    for moment in moments:
        for name, hook in hooks:
            if isinstance(hook, Exception):
                start.unknown[name] = runtime.told(hook)
                continue
            before = {key: value.clone() for key, value in start.model.state_dict().items()}
            more = {"batch_idx": 0} if moment == "before_train_iter" else {}
            try:
                with runtime.quiet():
                    getattr(hook, moment)(_Runner(start.model, settings), **more)
            except Exception as error:
                start.unknown[name] = runtime.told(error)
            changed = tuple(key for key, value in start.model.state_dict().items() if not _same(before.get(key), value))
            if changed:
                start.changed[name] = (*start.changed.get(name, ()), *changed)


def _same(before: Any, after: Any) -> bool:
    import torch

    return before is not None and before.shape == after.shape and bool(torch.equal(before, after))


class _Runner:
    """What a hook can see of a runner before the first iteration without any data. More is an AttributeError."""

    def __init__(self, model: Any, cfg: Any) -> None:
        self.model, self.cfg = model, cfg
        self.iter = self.epoch = self.rank = 0
        self.world_size = 1
        self.distributed = False
        self.work_dir = str(cfg.get("work_dir") or "")

    @property
    def logger(self) -> Any:
        from mmengine.logging import MMLogger

        return MMLogger.get_current_instance()


@contextlib.contextmanager
def watched(opened: list[str]) -> Iterator[None]:
    """While it lasts, the names of checkpoints that are read are noted, whoever reads them."""
    import torch
    from mmengine.runner import CheckpointLoader

    torch_load, load_checkpoint = torch.load, CheckpointLoader.__dict__["load_checkpoint"]

    def note(name: object) -> None:
        if isinstance(name, str | Path) and str(name) not in opened:
            opened.append(str(name))

    def load(f: Any, *args: Any, **kwargs: Any) -> Any:
        note(f)
        return torch_load(f, *args, **kwargs)

    def load_one(cls: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        note(filename)
        return load_checkpoint.__get__(None, cls)(filename, *args, **kwargs)

    torch.load, CheckpointLoader.load_checkpoint = load, classmethod(load_one)
    try:
        with _watched_safetensors(note):
            yield
    finally:
        torch.load, CheckpointLoader.load_checkpoint = torch_load, load_checkpoint


@contextlib.contextmanager
def _watched_safetensors(note: Any) -> Iterator[None]:
    try:
        import safetensors.torch as there
    except ImportError:
        yield
        return
    own = there.load_file

    def load_file(filename: Any, *args: Any, **kwargs: Any) -> Any:
        note(filename)
        return own(filename, *args, **kwargs)

    there.load_file = load_file
    try:
        yield
    finally:
        there.load_file = own
