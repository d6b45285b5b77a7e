"""Which tensors do not look like those of a trained network, by rules that the page repeats in words. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ckptconv.conversion.report.layers import Block, Layer
from ckptconv.conversion.statistics import TensorStatistics

_FACTOR = 4.0
_DEVIATIONS = 5.0
_LEAST_LAYERS = 4
_LEAST_NUMBERS = 64

RULE = (
    "The gain of a matrix is the standard deviation of its numbers times the square root of how many of them make one "
    f"output. A matrix is unusual if its gain is more than {_FACTOR:g} times the median of the same layers in the "
    "other blocks of this file, or less than a quarter of it, and further from it than "
    f"{_DEVIATIONS:g} times the usual distance; {_LEAST_LAYERS} such layers are needed. A tensor is also unusual if it "
    "has NaN or infinite numbers, or if all its numbers are the same; a vector only where most such layers have "
    "different ones."
)


@dataclass(frozen=True)
class Unusual:
    """What is unusual about one tensor, by its name in the target. ``broken``: no network works with it."""

    name: str
    what: str
    broken: bool


def gain(layer: Layer, statistics: TensorStatistics | None) -> float | None:
    """Spread times the root of the numbers that make one output; None for a bias, a norm, and what is not finite."""
    shape = layer.move.spec.shape
    if statistics is None or len(shape) < 2 or math.prod(shape[1:]) < 2 or not statistics.count:
        return None
    found = statistics.std * math.sqrt(math.prod(shape[1:]))
    return found if math.isfinite(found) else None


def unusual(blocks: Sequence[Block], statistics: Mapping[str, TensorStatistics]) -> dict[str, Unusual]:
    """The unusual tensors, by their names in the target."""
    kinds: dict[tuple[bool, str], list[Layer]] = {}
    for layer in (layer for block in blocks for layer in block.layers):
        if layer.move.target in statistics:
            kinds.setdefault((bool(layer.block), layer.kind), []).append(layer)
    found = (one for alike in kinds.values() for one in _of_kind(alike, statistics))
    return {one.name: one for one in found}


def _of_kind(alike: Sequence[Layer], statistics: Mapping[str, TensorStatistics]) -> Iterator[Unusual]:
    known = [(layer, statistics[layer.move.target]) for layer in alike]
    constants = sum(values.constant for _, values in known)
    gains = [g for layer, values in known if not values.constant and (g := gain(layer, values))]
    usual = _usual(gains)
    for layer, values in known:
        name = layer.move.target
        if not values.finite:
            counts = ((values.nan, "NaN"), (values.inf, "infinite"))
            bad = " and ".join(f"{count} {what}" for count, what in counts if count)
            yield Unusual(name, f"{bad} of {layer.move.spec.numel} numbers", True)
        elif values.constant:
            if _is_unusual(layer, values, constants, len(known)):
                yield _constant(layer, values)
        elif usual is not None and (mine := gain(layer, values)) is not None:
            ratio = mine / usual[0]
            if not 1 / usual[1] <= ratio <= usual[1]:
                times = f"{ratio:.3g} times" if ratio > 1 else f"1/{1 / ratio:.3g} of"
                yield Unusual(name, f"its gain is {times} the median of {len(gains)} such layers", False)


def _is_unusual(layer: Layer, values: TensorStatistics, constants: int, alike: int) -> bool:
    """Whether a constant says anything: a norm of ones among norms of ones does not, and neither do a few numbers."""
    if values.count < _LEAST_NUMBERS:
        return False
    return len(layer.move.spec.shape) > 1 or (alike > 1 and 2 * constants <= alike)


def _constant(layer: Layer, values: TensorStatistics) -> Unusual:
    matrix = len(layer.move.spec.shape) > 1
    if values.least == 0:
        return Unusual(layer.move.target, "all numbers are 0", matrix)
    return Unusual(layer.move.target, f"all numbers are {values.least:g}: it was not trained", False)


def _usual(gains: Sequence[float]) -> tuple[float, float] | None:
    """The median of the gains, and the factor from it up to which one is usual; None for too few."""
    if len(gains) < _LEAST_LAYERS:
        return None
    middle = median(gains)
    distance = median(abs(math.log(one / middle)) for one in gains)
    return middle, max(_FACTOR, math.exp(_DEVIATIONS * distance))


def untrained(blocks: Iterable[Block], statistics: Mapping[str, TensorStatistics]) -> str:
    """What the whole network has as no trained one has it, in a sentence; '' for a network that looks trained."""
    layers = [layer for block in blocks for layer in block.layers]

    def values(end: str, constant: float) -> list[bool]:
        """Of each vector whose name ends so, whether all its numbers are this one."""
        known = [
            statistics[layer.move.target]
            for layer in layers
            if layer.kind.endswith(end) and len(layer.move.spec.shape) == 1 and layer.move.target in statistics
        ]
        return [one.constant and one.least == constant for one in known if one.count > 1]

    if (norms := values("weight", 1.0)) and all(norms) and len(norms) > 1:
        return f"the weights of all {len(norms)} norms are 1, as before a training: these may be random weights"
    means, variances = values("running_mean", 0.0), values("running_var", 1.0)
    if len(means) > 1 and all(means) and all(variances):
        return f"the statistics of all {len(means)} batch norms are those before a training"
    return ""
