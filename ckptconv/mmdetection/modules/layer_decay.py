"""Learning rates that decay with the depth of a `TimmBackbone`, of any class of timm. Knows mmengine's optimizers.

timm says by `group_matcher` which layer a parameter belongs to, and by `no_weight_decay` which ones are not to shrink.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from ckptconv.mmdetection.modules import timm_network
from ckptconv.mmdetection.modules.timm_backbone import TimmBackbone

_POSITIONS = ("pos_embed", "relative_position_bias_table", "rope")
_TOKENS = ("_token", "_tokens")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):  # type: ignore[misc]  # no annotations
    """Builds an optimizer in which each layer of the backbone learns slower than the one after it.

    ``paramwise_cfg=dict(decay_rate=0.7)``: the backbone's last block has 0.7 of the learning rate, the block before it
    0.49, and so on to the embeddings. A norm after the last block has the block's rate, as timm groups it. Everything
    outside of the backbone has the full rate.

    No weight decay, in the whole detector, for biases and for what has one dimension: norms and LayerScale; none, in
    the backbone, for tokens, positions, and what timm's class excludes.
    """

    def add_params(self, params: list[dict[str, Any]], module: torch.nn.Module, **_: Any) -> None:
        """Add a group for each layer, with and without weight decay. Frozen parameters are left out."""
        rate = self._decay_rate()
        scales, undecayed = _of_backbones(module, rate)
        groups: dict[tuple[float, bool], dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            scale = scales.get(name, 1.0)
            decays = parameter.dim() > 1 and not name.endswith(".bias") and name not in undecayed
            group = groups.setdefault(
                (scale, decays),
                {
                    "params": [],
                    "param_names": [],
                    "lr": self.base_lr * scale,
                    "lr_scale": scale,
                    "weight_decay": (self.base_wd or 0.0) if decays else 0.0,
                },
            )
            group["params"].append(parameter)
            group["param_names"].append(name)
        params.extend(groups[key] for key in sorted(groups))
        logger = MMLogger.get_current_instance()
        for scale, decays in sorted(groups):
            names = groups[scale, decays]["param_names"]
            logger.info(
                f"learning rate x {scale:.4g}, weight decay {groups[scale, decays]['weight_decay']:g}: "
                f"{len(names)} parameters, from {names[0]} to {names[-1]}"
            )

    def _decay_rate(self) -> float:
        unknown = sorted(set(self.paramwise_cfg) - {"decay_rate"})
        if unknown:
            raise ValueError(f"paramwise_cfg has {unknown[0]!r}: LayerDecayOptimWrapperConstructor takes decay_rate")
        rate = self.paramwise_cfg.get("decay_rate")
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 < rate <= 1:
            raise ValueError(f"paramwise_cfg['decay_rate'] is a number above 0 and up to 1: not {rate!r}")
        return float(rate)


def _of_backbones(module: torch.nn.Module, rate: float) -> tuple[dict[str, float], set[str]]:
    """The scale of each parameter of a detector's `TimmBackbone`, and those that do not decay, by their full names."""
    scales: dict[str, float] = {}
    undecayed: set[str] = set()
    backbones = [(path, one) for path, one in module.named_modules() if isinstance(one, TimmBackbone)]
    if not backbones:
        raise ValueError("LayerDecayOptimWrapperConstructor needs a TimmBackbone, and the model has none")
    for path, backbone in backbones:
        dot = f"{path}." if path else ""
        numbers, after = backbone.layer_numbers()
        excluded = timm_network.undecayed(backbone.model)
        for name, number in numbers.items():
            scales[dot + name] = rate ** (after - number)
            if name in excluded or _is_table(name):
                undecayed.add(dot + name)
    return scales, undecayed


def _is_table(name: str) -> bool:
    """Whether a parameter is a token or a table of positions, which no dimension tells."""
    return name.endswith(_TOKENS) or any(part.startswith(_POSITIONS) for part in name.split("."))
