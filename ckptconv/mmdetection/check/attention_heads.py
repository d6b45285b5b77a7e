"""Whether a module splits its attention into as many heads as its file says. No torch.

Every tensor fits whatever the number is: it changes the features and no shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptconv.conversion.converted import Converted
from ckptconv.mmdetection.check.evidence import Finding, ModuleEvidence

_NAMES = ("num_heads", "heads")  # timm's Hiera has the second


def built(module: Any) -> int | None:
    """The heads of a module's first attention; None if it has none that tells."""
    found = (getattr(part, name, None) for part in module.modules() for name in _NAMES)
    return next((number for number in found if type(number) is int), None)


def said(converted: Converted) -> int | None:
    """The heads that a converted file says, those of the first stage; None if it says none."""
    number: int | tuple[int, ...] | None = getattr(converted.backbone, "num_heads", None)
    return number[0] if isinstance(number, tuple) else number


def _heads(number: int) -> str:
    return f"{number} attention head{'s' * (number != 1)}"


def problems(e: ModuleEvidence) -> Iterator[Finding]:
    """Another number than the file's. It is not proved to be wrong where the file's number is an assumption."""
    if e.heads_built is None or e.heads_said is None or e.heads_built == e.heads_said:
        return
    stated = e.heads_from in ("given", "method", "shown")
    text = f"{e.class_name} has {_heads(e.heads_built)}, and {e.checkpoint} says {e.heads_said}"
    yield Finding(
        f"{text}: its tensors fit, its features are others"
        if stated
        else f"not proved: {text}, which is an assumption: num_heads of convert gives another",
        (_fix(e),),
        certain=stated,
    )


def notes(e: ModuleEvidence) -> Iterator[Finding]:
    """That a number is an assumption: what is proved is tensors."""
    if e.heads_from in ("usual", "assumed") and e.heads_built is not None:
        why = "as published networks of its width have" if e.heads_from == "usual" else "of about 64 channels"
        yield Finding(
            f"assumed: {_heads(e.heads_built)}, {why}. No tensor shows it; num_heads of convert gives another"
        )


def _fix(e: ModuleEvidence) -> str:
    inside = next((f".{key}" for key in ("arguments", "arch") if isinstance(e.config_node.get(key), dict)), "")
    if not inside and e.class_name == "TimmBackbone":
        inside = ".arguments"
    return f"{e.config_path}{inside}.num_heads={e.heads_said}"
