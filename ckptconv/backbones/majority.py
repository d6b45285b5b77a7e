"""A network is read back from shapes by majority, so that one wrong shape does not change the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def most_common(values: Iterable[int], others: Iterable[int] = ()) -> int:
    """The commonest positive number; 0 if there is none.

    ``others`` decide a tie, and are used if ``values`` has no positive number.
    """
    second = Counter(v for v in others if v > 0)
    counts = Counter(v for v in values if v > 0) or second
    most = max(counts.values(), default=0)
    return max((v for v, n in counts.items() if n == most), key=lambda v: second[v], default=0)
