"""Stored tensors as torch tensors, for whoever has torch. Knows nothing of MMDetection."""

from __future__ import annotations

from typing import Any

import torch

from ckptconv.formats.interface import Checkpoint, StoredTensor


def tensor(checkpoint: Checkpoint, stored: StoredTensor) -> torch.Tensor:
    """One tensor of an open checkpoint, contiguous, on the CPU; its checksum is verified."""
    dtype = getattr(torch, stored.spec.dtype.name)
    if not stored.spec.numel:
        return torch.empty(stored.spec.shape, dtype=dtype)
    data = bytearray().join(checkpoint.chunks(stored))
    return torch.frombuffer(data, dtype=dtype).reshape(stored.spec.shape)


def section(checkpoint: Checkpoint, path: str) -> dict[str, Any]:
    """The tensors of a section, by name."""
    return {name: tensor(checkpoint, stored) for name, stored in checkpoint.tensors(path).items()}
