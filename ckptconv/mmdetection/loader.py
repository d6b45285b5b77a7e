"""Checkpoints for mmengine, read by the inert reader.

``custom_imports = dict(imports=['ckptconv.mmdetection.loader'])`` in a config imports this module, which makes mmengine
read every local checkpoint through `load`: safetensors with any torch, and files that ``torch.load(weights_only=True)``
refuses, such as mmengine's own (HistoryBuffer, numpy scalars). Nothing that a file names is imported or called.
mmengine itself reads ``https://`` and other addresses.
Source of the hook: `CheckpointLoader.register_scheme` of `mmengine/runner/checkpoint.py`, 0.10.7.
"""

from __future__ import annotations

from mmengine.runner import CheckpointLoader

from ckptconv.mmdetection.loading.torch_objects import load

LOCAL = r"(?!.*://)"
"""Names without a scheme. mmengine sorts schemes in reverse, so this one comes before its own empty one."""

load.__name__ = "load_from_ckptconv"  # mmengine prints the name from its eleventh letter on
CheckpointLoader.register_scheme(LOCAL, load, force=True)

__all__ = ["LOCAL", "load"]
