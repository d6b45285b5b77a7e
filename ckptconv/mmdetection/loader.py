"""Checkpoints for mmengine, read by the inert reader.

``custom_imports = dict(imports=['ckptconv.mmdetection.loader'])`` in a config imports this module, which makes mmengine
read every local checkpoint through `load`: safetensors on any torch; files that ``torch.load(weights_only=True)``
refuses, as mmengine's own are (its HistoryBuffer, numpy scalars); and nothing that a file names is imported or called.
Files behind ``https://`` and the like stay mmengine's business.
Source of the hook: `CheckpointLoader.register_scheme` of `mmengine/runner/checkpoint.py`, 0.10.7.
"""

from __future__ import annotations

from mmengine.runner import CheckpointLoader

from ckptconv.mmdetection.loading.torch_objects import load

LOCAL = r"(?!.*://)"
"""What has no scheme; mmengine sorts its schemes backwards, so this one comes before its own empty one."""

load.__name__ = "load_from_ckptconv"  # mmengine prints it from the eleventh letter on
CheckpointLoader.register_scheme(LOCAL, load, force=True)

__all__ = ["LOCAL", "load"]
