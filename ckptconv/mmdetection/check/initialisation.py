"""What a training does to a detector's weights before its first iteration, in the order of mmengine's Runner.

Source: mmengine/runner/runner.py, 0.10.7. `Runner.train` calls the hooks' ``before_run``, the detector's
``init_weights``, then ``load_or_resume``, then the hooks' ``before_train``; the loop calls ``before_train_epoch``, the
detector's ``train()`` and ``before_train_iter`` (mmengine/runner/loops.py). The user's code may change weights in any
of these. A Runner or a loop of the user's may do something else: it is only named here, and not run.
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

_METHODS = ("before_run", "before_train", "before_train_epoch", "before_train_iter", "after_load_checkpoint")
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
"""Packages whose hooks do not change the weights that a training starts from."""


@dataclass
class Start:
    """A detector as a training has it before its first iteration, and what happened on the way.

    ``init_error``: the error of its initialisation; ``init_info``: what mmengine noted of each parameter; ``opened``:
    the files that were read, in order; ``load_error``: why ``load_from`` could not be loaded;
    ``changed``: the entries that each hook changed, or the detector's ``train()``, whose key is '';
    ``hooks_not_run``: hooks that need a real training, and their error; ``own_runners``: the user's Runner or loop,
    which methods it has, and the line that takes mmengine's; ``train_overrides``: the user's classes that have a
    ``train()``.
    """

    model: Any
    init_error: Exception | None = None
    init_info: Mapping[str, str] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    load_error: str = ""
    changed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hooks_not_run: dict[str, str] = field(default_factory=dict)
    own_runners: tuple[tuple[str, str], ...] = ()
    train_overrides: tuple[str, ...] = ()


def run_until_first_iteration(start: Start, settings: Any) -> None:
    """Initialise a detector that is built, load what is loaded over it, and call the user's hooks."""
    hooks = list(_hooks(settings))
    start.own_runners = tuple(_own_runners(settings))
    _call(start, settings, hooks, "before_run")
    start.init_error, start.init_info = runtime.initialise(start.model)
    load_from = settings.get("load_from")
    if load_from and not settings.get("resume") and start.init_error is None:
        start.load_error = runtime.load_over(
            start.model,
            str(load_from),
            lambda state: _call(start, settings, hooks, "after_load_checkpoint", checkpoint=state),
        )
    _call(start, settings, hooks, "before_train")
    _call(start, settings, hooks, "before_train_epoch")
    _train(start)
    _call(start, settings, hooks, "before_train_iter", batch_idx=0)


def with_other_seed(settings: Any, shown: str) -> Mapping[str, Any]:
    """The detector's entries after a start with other random numbers: entries that stay equal are not random."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed() % 2**31 + 1)
            random.seed(torch.initial_seed())
            np.random.seed(torch.initial_seed() % 2**31)
            other = Start(runtime.build(settings, shown))
            run_until_first_iteration(other, settings)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    entries: Mapping[str, Any] = other.model.state_dict()
    return entries


def _hooks(settings: Any) -> list[tuple[str, Any, tuple[str, ...]]]:
    """The user's own hooks, and their methods that run before the first iteration, in the Runner's order.

    Each hook is built; one that cannot be built is its error.
    """
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS
    from mmengine.runner.priority import get_priority

    default = settings.get("default_hooks") or {}
    hooks: list[tuple[int, str, Any, tuple[str, ...]]] = []
    for configured in (*default.values(), *(settings.get("custom_hooks") or ())):
        kind = configured.get("type") if isinstance(configured, Mapping) else type(configured)
        with runtime.quiet():
            known: Any = HOOKS.get(kind) if isinstance(kind, str) else kind
        methods = tuple(name for name in _METHODS if known is not None and not _is_known(known, name))
        if not methods:
            continue
        arguments = dict(configured) if isinstance(configured, Mapping) else {}
        priority = arguments.pop("priority", None)
        try:
            with runtime.quiet():
                hook = HOOKS.build(arguments) if arguments else configured
        except Exception as error:  # a constructor may raise anything
            hook = error
        level = priority if priority is not None else getattr(hook, "priority", Hook.priority)
        hooks.append((get_priority(level), known.__name__, hook, methods))
    return [rest for _, *rest in sorted(hooks, key=lambda one: one[0])]  # type: ignore[misc]


def _is_known(kind: type, method: str) -> bool:
    """Whether a class has a method from one of the known packages."""
    owner = next((base for base in kind.__mro__ if method in vars(base)), object)
    code = getattr(vars(owner).get(method), "__module__", None) or owner.__module__
    return owner is object or code.partition(".")[0] in _KNOWN


def _own_runners(settings: Any) -> Iterator[tuple[str, str]]:
    """A Runner or a loop that starts a training by its own code, and the line that takes mmengine's."""
    from mmengine.registry import LOOPS, RUNNERS
    from mmengine.runner import Runner

    kind = settings.get("runner_type") or Runner
    loop = (settings.get("train_cfg") or {}).get("type")
    for what, configured, registry, methods in (
        ("Runner", kind, RUNNERS, _OF_RUNNER),
        ("loop", loop, LOOPS, _OF_LOOP),
    ):
        with runtime.quiet():
            known: Any = registry.get(configured) if isinstance(configured, str) else configured
        own = [name for name in methods if isinstance(known, type) and not _is_known(known, name)]
        if not own:
            continue
        usual = next(base.__name__ for base in known.__mro__ if base.__module__.startswith("mmengine."))
        line = f"runner_type={usual!r}" if what == "Runner" else f"train_cfg.type={usual!r}"
        if known.__name__ == usual:  # patched
            line = f"Do not patch {' and '.join(own)} of {usual}"
        yield f"the {what} {known.__name__} has its own {' and '.join(own)}", line


def _call(start: Start, settings: Any, hooks: Iterable[Any], method: str, **more: Any) -> None:
    for name, hook, methods in hooks:
        if method not in methods:
            continue
        if isinstance(hook, Exception):
            start.hooks_not_run[name] = runtime.error_line(hook)
            continue
        before = _copied(start.model)
        try:
            with runtime.quiet():
                getattr(hook, method)(_RunnerStub(start.model, settings), **more)
        except Exception as error:
            start.hooks_not_run[name] = runtime.error_line(error)
        _note_changes(start, name, before)


def _train(start: Start) -> None:
    """Call the detector's ``train()``, as the loop does, if one of the user's classes has its own."""
    kinds = dict.fromkeys(type(module) for module in start.model.modules())
    start.train_overrides = tuple(kind.__name__ for kind in kinds if not _is_known(kind, "train"))
    if not start.train_overrides:
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


class _RunnerStub:
    """What a hook can use of a runner before the first iteration without data. Anything else is an AttributeError."""

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
    """While it lasts, the names of all checkpoints that are read are noted."""
    from mmengine.runner import CheckpointLoader

    global _opened
    before, load_checkpoint = _opened, CheckpointLoader.__dict__["load_checkpoint"]

    def load_one(cls: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        _note(filename)
        return load_checkpoint.__get__(None, cls)(filename, *args, **kwargs)

    _add_audit_hook()
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
def _add_audit_hook() -> None:
    """Python reports each file that its code opens; an audit hook cannot be removed again."""
    sys.addaudithook(_note_opened)


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str) and arguments[0].endswith(_SUFFIXES):
        _note(arguments[0])


@contextlib.contextmanager
def _watched_safetensors(note: Any) -> Iterator[None]:
    try:
        import safetensors.torch as library
    except ImportError:
        yield
        return
    own = library.load_file

    def load_file(filename: Any, *args: Any, **kwargs: Any) -> Any:
        note(filename)
        return own(filename, *args, **kwargs)

    library.load_file = load_file
    try:
        yield
    finally:
        library.load_file = own
