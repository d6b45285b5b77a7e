"""Modules that users' configs import by `custom_imports`. Their import paths are public."""

from ckptconv.mmdetection.modules.layer_decay import LayerDecayOptimWrapperConstructor
from ckptconv.mmdetection.modules.simple_feature_pyramid import LayerNorm2d, SimpleFeaturePyramid
from ckptconv.mmdetection.modules.timm_backbone import TimmBackbone

__all__ = ["LayerDecayOptimWrapperConstructor", "LayerNorm2d", "SimpleFeaturePyramid", "TimmBackbone"]
