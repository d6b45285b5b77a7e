"""The periods of rotary positions that a file holds, where they are not those that timm and transformers compute."""

from __future__ import annotations

import math
import struct

from ckptconv.backbones import eva, transformers_vits
from ckptconv.formats.interface import Checkpoint
from ckptconv.planning.plan import Plan

_DROPPED = {eva.PERIODS.why, transformers_vits.PERIODS.why}
_BASE = 100.0  # rope_temperature of all models of DINOv3 in timm/models/eva.py; rope_theta of transformers
_NEAR = 1e-6  # of float32, as two libraries round
_MOST = 1024  # periods of a head; DINOv3's largest has 32


def own_periods(checkpoint: Checkpoint, plan: Plan) -> tuple[float, ...] | None:
    """The file's periods; None if it has none, or if the target computes the same. Reads them, and nothing else."""
    names = [gone.source for gone in plan.dropped if gone.why in _DROPPED]
    if not names:
        return None
    tensor = checkpoint.tensors(plan.section)[names[0]]
    count, kind = tensor.spec.numel, tensor.spec.dtype
    if not 0 < count <= _MOST:
        return None
    checkpoint.fetch([tensor])
    held = b"".join(checkpoint.chunks(tensor))
    if kind.name == "bfloat16":  # the upper half of a float32
        held = b"".join(b"\0\0" + held[i : i + 2] for i in range(0, len(held), 2))
    code = {"float16": "e", "float64": "d"}.get(kind.name, "f")
    periods = struct.unpack(f"<{count}{code}", held)
    computed = [_BASE ** (i / count) for i in range(count)]
    same = all(math.isclose(a, b, rel_tol=_NEAR) for a, b in zip(periods, computed, strict=True))
    return None if same else periods
