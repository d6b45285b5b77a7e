"""ckptconv: self-supervised checkpoints for MMDetection, with every tensor accounted for.

>>> import ckptconv
>>> receipt = ckptconv.convert("moco_v2_800ep_pretrain.pth.tar", "r50.pth")  # doctest: +SKIP
>>> receipt.proved  # doctest: +SKIP
318

Importing this package imports neither torch nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptconv._version import __version__

if TYPE_CHECKING:
    from ckptconv.conversion.convert import convert, plan
    from ckptconv.conversion.receipt import Receipt
    from ckptconv.difference.compare import Diff, diff
    from ckptconv.errors import (
        CkptconvError,
        EnvironmentMissingError,
        IncompletePlanError,
        PluginWarning,
        ProofError,
        TrainingError,
        UnidentifiedError,
        UnreadableError,
        UsageError,
        VerdictError,
    )
    from ckptconv.inspection import Explanation, Inspection, explain, inspect
    from ckptconv.methods.interface import Layout, Licence, Method, Pixels, Release
    from ckptconv.mmdetection.config.emit import emit_config
    from ckptconv.planning.options import Options
    from ckptconv.planning.plan import Plan
    from ckptconv.proof.prove_module import Proof, prove
    from ckptconv.remap import remap_state_dict
    from ckptconv.rules import drop, fuse, keep, split, under
    from ckptconv.sources.interface import Fetching

__all__ = [
    "CkptconvError",
    "Diff",
    "EnvironmentMissingError",
    "Explanation",
    "Fetching",
    "IncompletePlanError",
    "Inspection",
    "Layout",
    "Licence",
    "Method",
    "Options",
    "Pixels",
    "Plan",
    "PluginWarning",
    "Proof",
    "ProofError",
    "Receipt",
    "Release",
    "TrainingError",
    "UnidentifiedError",
    "UnreadableError",
    "UsageError",
    "VerdictError",
    "__version__",
    "convert",
    "diff",
    "drop",
    "emit_config",
    "explain",
    "fuse",
    "inspect",
    "keep",
    "plan",
    "prove",
    "remap_state_dict",
    "split",
    "under",
]

_HOMES = {
    **dict.fromkeys(
        (
            "CkptconvError",
            "EnvironmentMissingError",
            "IncompletePlanError",
            "PluginWarning",
            "ProofError",
            "TrainingError",
            "UnidentifiedError",
            "UnreadableError",
            "UsageError",
            "VerdictError",
        ),
        "errors",
    ),
    "Options": "planning.options",
    **dict.fromkeys(("Layout", "Licence", "Method", "Pixels", "Release"), "methods.interface"),
    **dict.fromkeys(("convert", "plan"), "conversion.convert"),
    "Receipt": "conversion.receipt",
    **dict.fromkeys(("Diff", "diff"), "difference.compare"),
    **dict.fromkeys(("Explanation", "Inspection", "explain", "inspect"), "inspection"),
    "Plan": "planning.plan",
    "emit_config": "mmdetection.config.emit",
    "Fetching": "sources.interface",
    **dict.fromkeys(("Proof", "prove"), "proof.prove_module"),
    "remap_state_dict": "remap",
    **dict.fromkeys(("drop", "fuse", "keep", "split", "under"), "rules"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ckptconv' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"ckptconv.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
