"""Stored tensors as torch tensors, for whoever has torch. Knows nothing of MMDetection."""

from __future__ import annotations

import torch

from ckptconv.formats.interface import Checkpoint, StoredTensor


def tensor(checkpoint: Checkpoint, stored: StoredTensor) -> torch.Tensor:
    """One tensor of an open checkpoint, contiguous, on the CPU; its checksum is verified."""
    dtype = getattr(torch, stored.spec.dtype.name)
    if not stored.spec.numel:
        return torch.empty(stored.spec.shape, dtype=dtype)
    data = bytearray().join(checkpoint.chunks(stored))
    return torch.frombuffer(data, dtype=dtype).reshape(stored.spec.shape)
