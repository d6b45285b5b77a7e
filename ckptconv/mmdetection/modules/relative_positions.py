"""Relative position biases for windows of another size, as BEiT's authors resize them. Knows arrays, and no network.

timm resizes them linearly, for it does not need SciPy; MMDetection needs SciPy anyway.

Source: ``beit/run_class_finetuning.py`` of microsoft/unilm (and beit2's, and EVA's). Distances of the old window are
stretched so that far ones are further apart, by powers of a ratio, and a cubic spline is read at the new distances.
"""

from __future__ import annotations

import numpy as np
import torch

_RATIOS = 1.01, 1.5
_PRECISE = 1e-6


def resampled(table: torch.Tensor, old: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    """A table [distances + others, heads] for another window; the rows of other tokens, at its end, stay.

    ``old`` and ``new`` are the sides of windows in patches. It is computed in float64 and has the table's type.
    """
    from scipy.interpolate import RectBivariateSpline

    before, after = _distances(old), _distances(new)
    count = before[0] * before[1]
    places = [_stretched(b, a) for b, a in zip(before, after, strict=True)]
    wanted = [np.arange(-(side // 2), side // 2 + 1, dtype=np.float64) for side in after]
    heads = [
        RectBivariateSpline(*places, head.reshape(before))(*wanted).ravel()
        for head in table[:count].double().cpu().numpy().T
    ]
    return torch.cat([torch.from_numpy(np.stack(heads, 1)).to(table), table[count:]])


def _distances(window: tuple[int, int]) -> tuple[int, int]:
    return 2 * window[0] - 1, 2 * window[1] - 1


def _stretched(old: int, new: int) -> list[float]:
    """Where the old distances are among the new ones: 0, 1, 1 + q, 1 + q + q², … on both sides.

    The ratio q is the one that takes the furthest old distance to the furthest new one, found by halving. An axis of
    the same length stays as it is; the authors' code takes square windows alone.
    """
    if old == new:
        return [float(place) for place in range(-(old // 2), old // 2 + 1)]
    low, high = _RATIOS
    ratio = low
    while high - low > _PRECISE:
        ratio = (low + high) / 2
        if (1 - ratio ** (old // 2)) / (1 - ratio) > new // 2:
            high = ratio
        else:
            low = ratio
    positive = [sum(ratio**power for power in range(count)) for count in range(1, old // 2 + 1)]
    return [*(-place for place in reversed(positive)), 0, *positive]
