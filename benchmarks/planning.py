"""How long it takes to plan, inside one process, everything imported and warm. Nothing here passes or fails.

`python -m benchmarks.planning` plans every case of `tests/cases/` with its method named and with `auto` over the whole
table, and every real layout of `tests/layouts/` with its file opened; the result goes to results/planning.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from statistics import median
from timeit import repeat
from typing import Any

from benchmarks import machine
from ckptconv.errors import CkptconvError, VerdictError
from ckptconv.formats import open_checkpoint
from ckptconv.methods import METHODS
from ckptconv.planning.identify import choose
from ckptconv.planning.options import Options
from ckptconv.spec import Section
from tests.support import hollow
from tests.support.cases import Case, cases

SCHEMA = 1
RESULT = Path(__file__).parent / "results" / "planning.json"
GOALS = {"named_ms": 50, "auto_ms": 300}
NOTES = {
    "how": "In ms. For a case the least of its runs: what else a machine does only adds. For a layout medians.",
    "case": "names and shapes of one section, as in tests/cases/; named_ms with its method, auto_ms over the table",
    "layout": "a whole file of tests/layouts/, with its optimizer and all: opened, then as a case",
}
_TIMES = 15


def of_cases(some: Iterable[Case] | None = None) -> list[dict[str, Any]]:
    """One row a case: of all of them, or of some."""
    rows: list[dict[str, Any]] = []
    for case in cases() if some is None else some:
        sections = case.sections
        rows.append(
            {
                "case": case.name,
                "tensors": len(case.tensors),
                "named_ms": _ms(partial(_asked, sections, case.method, case.options), min),
                "auto_ms": _ms(partial(_asked, sections, "auto", case.unasked), min),
            }
        )
    return rows


def times(path: Path, layouts: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One row a layout, in ms: to open it, to find its method in the whole table, and to plan with that method named.

    ``method`` and the last time are None for a layout that no method explains by itself. Layouts are filled at
    ``path``, one after another: all of them, or those that are named.
    """
    rows: list[dict[str, Any]] = []
    for name in hollow.names() if layouts is None else layouts:
        hollow.fill(name, path)
        with open_checkpoint(path) as checkpoint:
            sections, options = checkpoint.sections, Options()
            method: str | None = None
            with contextlib.suppress(VerdictError):
                method = choose(sections, "auto", options).method.name
            rows.append(
                {
                    "layout": name,
                    "tensors": sum(len(s.tensors) for s in sections.values()),
                    "method": method,
                    "open_ms": _ms(lambda: open_checkpoint(path).close()),
                    "auto_ms": _ms(partial(_asked, sections, "auto", options)),
                    "named_ms": _ms(partial(_asked, sections, method, options)) if method else None,
                }
            )
        path.unlink()
    return rows


def _asked(sections: Mapping[str, Section], method: str, options: Options) -> None:
    with contextlib.suppress(CkptconvError):
        choose(sections, method, options)


def _ms(work: Callable[[], None], of: Callable[[list[float]], float] = median) -> float:
    return round(1000 * of(repeat(work, number=1, repeat=_TIMES)), 2)


def table(result: Mapping[str, Any]) -> str:
    """The slowest rows, and the goals."""
    lines = [f"{'case':<36}{'tensors':>8}{'named, ms':>11}{'auto, ms':>11}"]
    slowest = sorted(result["cases"], key=lambda row: -row["auto_ms"])[:8]
    lines += [f"{r['case']:<36}{r['tensors']:>8}{r['named_ms']:>11.2f}{r['auto_ms']:>11.2f}" for r in slowest]
    lines += [f"{'layout':<36}{'tensors':>8}{'open, ms':>11}{'auto, ms':>11}"]
    slowest = sorted(result["layouts"], key=lambda row: -row["auto_ms"])[:8]
    lines += [f"{r['layout']:<36}{r['tensors']:>8}{r['open_ms']:>11.2f}{r['auto_ms']:>11.2f}" for r in slowest]
    for measure, goal in result["goals"].items():
        met = "met" if goal["value"] <= goal["at_most"] else "missed"
        lines.append(f"{measure}: at most {goal['at_most']}, the slowest case takes {goal['value']:.1f}: {met}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULT, help="the result")
    parser.add_argument("--dir", type=Path, default=None, help="where layouts are made, and removed")
    parser.add_argument("--date", default=datetime.now(timezone.utc).date().isoformat(), help="default: today, UTC")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ckptconv-planning-", dir=options.dir) as name:
        rows = of_cases()
        result = {
            "schema": SCHEMA,
            "date": options.date,
            "machine": machine.describe(Path(name)),
            "notes": NOTES,
            "methods": len(METHODS),
            "goals": {m: {"at_most": most, "value": max(r[m] for r in rows)} for m, most in GOALS.items()},
            "cases": rows,
            "layouts": times(Path(name) / "SRC"),
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
