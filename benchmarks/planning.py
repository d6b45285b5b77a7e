"""How long it takes to open a file and to plan, without the start of a process: medians over the real layouts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from statistics import median
from timeit import repeat

from ckptconv.errors import VerdictError
from ckptconv.formats import open_checkpoint
from ckptconv.identify import choose
from ckptconv.remap import Options
from tests import hollow

_TIMES = 15


def times(path: Path) -> list[dict[str, object]]:
    """One row a layout, in ms: to open it, to find its method in the whole table, and to plan with that method named.

    ``method`` and the last time are None for a layout that no method explains by itself. Layouts are filled at
    ``path``, one after another.
    """
    rows = []
    for name in hollow.names():
        hollow.fill(name, path)
        with open_checkpoint(path) as checkpoint:
            sections, options = checkpoint.sections, Options()
            try:
                method = choose(sections, "auto", options).method.name
            except VerdictError:
                method = None
            rows.append(
                {
                    "layout": name,
                    "tensors": sum(len(s.tensors) for s in sections.values()),
                    "method": method,
                    "open_ms": _ms(lambda: open_checkpoint(path).close()),
                    "auto_ms": _ms(lambda s=sections, o=options: _asked(s, "auto", o)),
                    "named_ms": _ms(lambda s=sections, o=options, m=method: _asked(s, m, o)) if method else None,
                }
            )
        path.unlink()
    return rows


def _asked(sections: object, method: str, options: Options) -> None:
    with contextlib.suppress(VerdictError):
        choose(sections, method, options)


def _ms(work: Callable[[], None]) -> float:
    return round(1000 * median(repeat(work, number=1, repeat=_TIMES)), 2)
