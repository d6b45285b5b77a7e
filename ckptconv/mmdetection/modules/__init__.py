"""Modules that users' configs import by `custom_imports`. Their import paths are public."""

from ckptconv.mmdetection.modules.timm_backbone import TimmBackbone

__all__ = ["TimmBackbone"]
