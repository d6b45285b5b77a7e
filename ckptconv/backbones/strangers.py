"""Networks that are known by a part of their names, and that MMDetection has no place for. For messages only."""

from __future__ import annotations

from collections.abc import Iterable

_MARKS = (
    # Separius/SimCLRv2-Pytorch resnet.py, vissl/models/trunks/resnext_selective_kernels.py
    (".mixing_conv.", "a ResNet with selective kernels (SimCLRv2's sk1), which MMDetection has not"),
    # classy_vision/models/regnet.py, in vissl/models/trunks/regnet.py
    (".se.excitation.", "a RegNetY (SEER's), which MMDetection has not: its RegNet is without squeeze and excitation"),
)


def stranger(names: Iterable[str]) -> tuple[str, str]:
    """The first name that tells such a network, and what the network is; two empty texts if none does."""
    return next(((name, what) for name in names for mark, what in _MARKS if mark in name), ("", ""))
