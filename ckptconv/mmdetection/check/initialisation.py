"""What a training does to a detector's weights before its first iteration, in the order of mmengine's Runner.

Source: mmengine/runner/runner.py, 0.10.7. `Runner.train` calls the hooks' ``before_run``, the detector's
``init_weights``, then ``load_or_resume``, then the hooks' ``before_train``; the loop calls ``before_train_epoch``, the
detector's ``train()`` and ``before_train_iter`` (mmengine/runner/loops.py). Code of the user's may change weights in
any of these. A Runner or a loop of the user's may do something else altogether, and is only named here.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptconv.mmdetection import runtime

_MOMENTS = ("before_run", "before_train", "before_train_epoch", "before_train_iter", "after_load_checkpoint")
_OF_RUNNER = (
    "build_model",
    "wrap_model",
    "train",
    "_init_model_weights",
    "load_or_resume",
    "load_checkpoint",
    "resume",
)
_OF_LOOP = ("__init__", "run", "run_epoch", "run_iter")
_KNOWN = ("mmengine", "mmdet", "mmcv", "mmpretrain", "torch", "ckptconv")
"""Packages whose hooks leave the weights that a training starts from as they are."""


@dataclass
class Start:
    """A detector as a training would have it before its first iteration, and how it came there.

    ``failed``: the error of its initialisation; ``recorded``: what mmengine noted of each parameter; ``opened``: the
    files that were read on the way, in order; ``loading``: why ``load_from`` could not be loaded;
    ``changed``: the entries that each hook changed, or the detector's ``train()``, which is called '';
    ``unknown``: hooks that do not run without a training, and why; ``foreign``: the user's Runner or loop, what it does
    by code of its own, and the line that takes mmengine's; ``trainers``: the user's classes with a ``train()``.
    """

    model: Any
    failed: Exception | None = None
    recorded: Mapping[str, str] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    loading: str = ""
    changed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    foreign: tuple[tuple[str, str], ...] = ()
    trainers: tuple[str, ...] = ()


def finish(start: Start, settings: Any) -> None:
    """Initialise a detector that is built, load what is loaded over it, and call the user's hooks."""
    hooks = list(_hooks(settings))
    start.foreign = tuple(_foreign(settings))
    _call(start, settings, hooks, "before_run")
    start.failed, start.recorded = runtime.initialise(start.model)
    loaded = settings.get("load_from")
    if loaded and not settings.get("resume") and start.failed is None:
        start.loading = runtime.load_over(
            start.model, str(loaded), lambda one: _call(start, settings, hooks, "after_load_checkpoint", checkpoint=one)
        )
    _call(start, settings, hooks, "before_train")
    _call(start, settings, hooks, "before_train_epoch")
    _train(start)
    _call(start, settings, hooks, "before_train_iter", batch_idx=0)


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


def _hooks(settings: Any) -> list[tuple[str, Any, tuple[str, ...]]]:
    """The user's own hooks and the moments before the first iteration in which they act, in the Runner's order.

    Built, or the error where one cannot be.
    """
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS
    from mmengine.runner.priority import get_priority

    default = settings.get("default_hooks") or {}
    found: list[tuple[int, str, Any, tuple[str, ...]]] = []
    for said in (*default.values(), *(settings.get("custom_hooks") or ())):
        kind = said.get("type") if isinstance(said, Mapping) else type(said)
        with runtime.quiet():
            known: Any = HOOKS.get(kind) if isinstance(kind, str) else kind
        acts = tuple(moment for moment in _MOMENTS if known is not None and not _is_known(known, moment))
        if not acts:
            continue
        arguments = dict(said) if isinstance(said, Mapping) else {}
        priority = arguments.pop("priority", None)
        try:
            with runtime.quiet():
                hook = HOOKS.build(arguments) if arguments else said
        except Exception as error:  # whatever its constructor does
            hook = error
        level = priority if priority is not None else getattr(hook, "priority", Hook.priority)
        found.append((get_priority(level), known.__name__, hook, acts))
    return [rest for _, *rest in sorted(found, key=lambda one: one[0])]  # type: ignore[misc]


def _is_known(kind: type, method: str) -> bool:
    """Whether what a class does in a method is code of a package that is known."""
    owner = next((base for base in kind.__mro__ if method in vars(base)), object)
    code = getattr(vars(owner).get(method), "__module__", None) or owner.__module__
    return owner is object or code.partition(".")[0] in _KNOWN


def _foreign(settings: Any) -> Iterator[tuple[str, str]]:
    """A Runner or a loop that starts a training by code of its own, and the line that takes mmengine's."""
    from mmengine.registry import LOOPS, RUNNERS
    from mmengine.runner import Runner

    kind = settings.get("runner_type") or Runner
    loop = (settings.get("train_cfg") or {}).get("type")
    for word, said, registry, methods in (
        ("Runner", kind, RUNNERS, _OF_RUNNER),
        ("loop", loop, LOOPS, _OF_LOOP),
    ):
        with runtime.quiet():
            found: Any = registry.get(said) if isinstance(said, str) else said
        own = [name for name in methods if isinstance(found, type) and not _is_known(found, name)]
        if not own:
            continue
        usual = next(base.__name__ for base in found.__mro__ if base.__module__.startswith("mmengine."))
        line = f"runner_type={usual!r}" if word == "Runner" else f"train_cfg.type={usual!r}"
        if found.__name__ == usual:  # patched
            line = f"Leave {' and '.join(own)} of {usual} as mmengine has it"
        yield f"the {word} {found.__name__} has {' and '.join(own)} of its own", line


def _call(start: Start, settings: Any, hooks: Iterable[Any], moment: str, **more: Any) -> None:
    for name, hook, acts in hooks:
        if moment not in acts:
            continue
        if isinstance(hook, Exception):
            start.unknown[name] = runtime.told(hook)
            continue
        before = _copied(start.model)
        try:
            with runtime.quiet():
                getattr(hook, moment)(_Runner(start.model, settings), **more)
        except Exception as error:
            start.unknown[name] = runtime.told(error)
        _note_changes(start, name, before)


def _train(start: Start) -> None:
    """Call the detector's ``train()``, as the loop does, if a class of the user's has one."""
    kinds = dict.fromkeys(type(module) for module in start.model.modules())
    start.trainers = tuple(kind.__name__ for kind in kinds if not _is_known(kind, "train"))
    if not start.trainers:
        return
    before = _copied(start.model)
    with contextlib.suppress(Exception), runtime.quiet():
        start.model.train()
    _note_changes(start, "", before)


def _copied(model: Any) -> dict[str, Any]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def _note_changes(start: Start, name: str, before: Mapping[str, Any]) -> None:
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


_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar", ".npz", ".npy", ".pkl")
_opened: list[str] | None = None


@contextlib.contextmanager
def watched(opened: list[str]) -> Iterator[None]:
    """While it lasts, the names of checkpoints that are read are noted, whoever reads them."""
    from mmengine.runner import CheckpointLoader

    global _opened
    before, load_checkpoint = _opened, CheckpointLoader.__dict__["load_checkpoint"]

    def load_one(cls: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        _note(filename)
        return load_checkpoint.__get__(None, cls)(filename, *args, **kwargs)

    _watch()
    _opened, CheckpointLoader.load_checkpoint = opened, classmethod(load_one)
    try:
        with _watched_safetensors(_note):
            yield
    finally:
        _opened, CheckpointLoader.load_checkpoint = before, load_checkpoint


def _note(name: object) -> None:
    if isinstance(name, str | Path) and _opened is not None and str(name) not in _opened:
        _opened.append(str(name))


@functools.cache
def _watch() -> None:
    """Python tells of each file that its code opens; a hook on it cannot be taken away again."""
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str) and arguments[0].endswith(_SUFFIXES):
        _note(arguments[0])


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
