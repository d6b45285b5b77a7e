"""Stored tensors as torch tensors, and torch tensors as specs. Knows nothing of MMDetection."""

from __future__ import annotations

import torch

from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.storage import StoredTensor
from ckptconv.spec import DTYPES, TensorSpec


def tensor(checkpoint: Checkpoint, stored: StoredTensor) -> torch.Tensor:
    """One tensor of an open checkpoint, contiguous, on the CPU; its checksum is verified."""
    dtype = getattr(torch, stored.spec.dtype.name)
    if not stored.spec.numel:
        return torch.empty(stored.spec.shape, dtype=dtype)
    data = bytearray().join(checkpoint.chunks(stored))
    return torch.frombuffer(data, dtype=dtype).reshape(stored.spec.shape)


def spec(value: torch.Tensor) -> TensorSpec:
    """Shape and type of a tensor."""
    return TensorSpec(tuple(value.shape), DTYPES[str(value.dtype).removeprefix("torch.")])


def specs(module: torch.nn.Module) -> dict[str, TensorSpec]:
    """Shape and type of each parameter and buffer that a module's state dict has."""
    return {name: spec(value) for name, value in module.state_dict().items()}
