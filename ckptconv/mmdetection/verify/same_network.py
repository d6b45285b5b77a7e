"""Whether the two arms of a lift, built and initialised, are one network that trains completely, with other values.

A class may freeze its parameters or load its weights in its own code, and not by its config: this check notices it
before anything is trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ckptconv.errors import UsageError
from ckptconv.mmdetection import runtime
from ckptconv.text import fold, some

_SAME = 0.5  # share of the weights that may be equal by chance: small ones


def require_same_network(converted: Path, random: Path) -> None:
    """Raises UsageError where comparing the two configs' trainings would say nothing about the checkpoint."""
    from ckptconv.mmdetection.check.init_cfg import modules_with_init_cfg

    one, other = _built(converted), _built(random)
    for what, mine, theirs in zip(("module", "parameter", "buffer"), _parts(one), _parts(other), strict=True):
        if mine != theirs:
            first = next(name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name))
            raise UsageError(
                f"the arms of the lift are not the same network: {what} {first} differs",
                "Set frozen_stages=-1, norm_eval=False and zero_init_residual=False where the config has them.",
            )
    paths = [module.path for module in modules_with_init_cfg(one)] or ["backbone"]
    pairs = list(_pairs(one, other, paths))
    meant = _untrained(one)
    frozen = [name for name, a, b in pairs if not a.requires_grad and name not in meant and not bool((a == b).all())]
    if frozen:
        raise UsageError(
            f"parameters stay frozen in both arms of the lift, so random weights cannot learn: {some(fold(frozen), 3)}",
            "Let the module's class take frozen_stages, or freeze nothing in it.",
        )
    weights = [(name, a, b) for name, a, b in pairs if a.dim() > 1]
    same = [name for name, a, b in weights if bool((a == b).all())]
    if weights and len(same) > _SAME * len(weights):
        raise UsageError(
            f"the random arm holds {len(same)} of {len(weights)} weights of the checkpoint: {some(fold(same), 3)}",
            "Load them with init_cfg=dict(type='Pretrained', checkpoint=...) only.",
        )


def _built(config: Path) -> Any:
    import torch

    settings = runtime.read_config(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = runtime.build(settings, str(config))
        failed, _ = runtime.initialise(model)
    if failed is not None:
        raise UsageError(
            f"{config}: the model cannot be initialised: {runtime.error_line(failed)}", "Correct the config."
        )
    model.train()  # a class's own train() may return None
    return model


def _parts(model: Any) -> Iterator[dict[str, object]]:
    """Modules by class and mode, parameters by shape and whether they train, buffers by shape."""
    yield {name: (type(module), module.training) for name, module in model.named_modules()}
    yield {name: (value.shape, value.dtype, value.requires_grad) for name, value in model.named_parameters()}
    yield {name: (value.shape, value.dtype) for name, value in model.named_buffers()}


def _untrained(model: Any) -> set[str]:
    """The parameters that a `TimmBackbone` leaves untrained: those no map depends on, and all if it is frozen whole."""
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in getattr(module, "untrained", ())
    }


def _pairs(one: Any, other: Any, paths: Iterable[str]) -> Iterator[tuple[str, Any, Any]]:
    """The parameters of these modules in both arms, by name."""
    starts = tuple(f"{path}." if path else "" for path in paths)
    counterparts = dict(other.named_parameters())
    return ((name, value, counterparts[name]) for name, value in one.named_parameters() if name.startswith(starts))
