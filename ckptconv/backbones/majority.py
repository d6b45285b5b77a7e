"""How a network is read back from shapes: by what most tensors say, so that one wrong shape stays one wrong shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def most_common(values: Iterable[int], others: Iterable[int] = ()) -> int:
    """The positive number that most say; 0 if there is nothing to ask.

    ``others`` decide where as many say one thing as another, and where none of ``values`` says anything.
    """
    second = Counter(v for v in others if v > 0)
    counts = Counter(v for v in values if v > 0) or second
    most = max(counts.values(), default=0)
    return max((v for v, n in counts.items() if n == most), key=lambda v: second[v], default=0)
