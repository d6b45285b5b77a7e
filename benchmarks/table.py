"""Writes what is in results/ into the guide's page of measurements, between markers; --check only compares."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.markers import inserted

HERE = Path(__file__).parent
PAGE = HERE.parent / "ckptconv" / "guide" / "measurements.md"
_HEAD = ("input", "ckptconv", "peer", "time ÷ peer's", "memory ÷ peer's", "goal", "met")
_UNITS = {"wall_s": "s", "peak_mib": "MiB", "cpu_s": "s of CPU"}

Row = Mapping[str, Any]


def speed(result: Row) -> str:
    """A Markdown table of the rows, and one line that says where they come from."""
    lines = [_line(_HEAD), _line("---" for _ in _HEAD)]
    lines += [_line(_cells(row)) for row in result["rows"]]
    lines += ["", f"Medians of whole processes, measured {result['date']}. {_machine(result['machine'])}"]
    return "\n".join(lines)


def _machine(made: Row) -> str:
    versions = ", ".join(f"{n} {made[n]}" for n in ("python", "torch", "mmdet", "ckptconv") if made[n])
    return f"{made['cores']} cores of {made['cpu']}, {made['memory_gib']:g} GiB of memory; {versions}."


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row) -> tuple[str, ...]:
    if "skipped" in row:
        return row["input"], f"`{row['command']}`: not measured, {row['skipped']}", _code(row["peer"]), "", "", "", ""
    ours = f"`{row['command']}`: {_took(row['ckptconv'])}"
    ratio = row.get("ratio")
    times = (f"{ratio['wall_s']:.2g}", f"{ratio['peak_mib']:.2g}") if ratio else ("", "")
    goals = row["goals"]
    verdicts = ", ".join({True: "yes", False: "no", None: "not known"}[goal["met"]] for goal in goals)
    return row["input"], ours, _peer(row), *times, ", ".join(map(_goal, goals)), verdicts


def _peer(row: Row) -> str:
    if "peer_took" in row:
        return f"{_code(row['peer'])}: {_took(row['peer_took'])}"
    return f"{_code(row['peer'])}: not measured, {row['peer_skipped']}" if "peer_skipped" in row else ""


def _code(words: str | None) -> str:
    return f"`{words}`" if words else ""


def _took(took: Row) -> str:
    return f"{took['wall_s']['median']:.2f} s, {took['peak_mib']['median']:.0f} MiB"


def _goal(goal: Row) -> str:
    bound = f"≤ {goal['at_most']:g}"
    what = "time" if goal["measure"] == "wall_s" else "memory"
    return f"{bound} × the peer's {what}" if goal["of"] == "ratio" else f"{bound} {_UNITS[goal['measure']]}"


def ap(reports: Iterable[Row]) -> str:
    """The reports of verify-ap as one table with MMDetection's columns, and the verdict of each."""
    from ckptconv.mmdetection.verify.report.markdown import markdown
    from ckptconv.mmdetection.verify.report.report import from_json

    return markdown(list(map(from_json, reports))).strip()


def fetching(result: Row) -> str:
    """What a conversion by address costs, next to a download of the whole file."""
    lines = ["| input | file | kept | sent | time | download | time ÷ download's |", "|---|---|---|---|---|---|---|"]
    for row in result["rows"]:
        if "skipped" in row:
            lines.append(f"| {row['input']} | {row['bytes'] / 1e6:.1f} MB | not measured: {row['skipped']} | | | | |")
            continue
        sizes = [f"{row[key] / 1e6:.1f} MB" for key in ("bytes", "kept_bytes", "sent_bytes")]
        times = [f"{row[key]['wall_s']['median']:.1f} s" for key in ("ckptconv", "peer_took")]
        lines.append(f"| {row['input']} | {' | '.join([*sizes, *times])} | {row['ratio']['wall_s']:.2f} |")
    rate = result["bytes_a_second"] / 1e6
    lines += ["", f"Measured {result['date']}; the server sends {rate:g} MB a second. {_machine(result['machine'])}"]
    return "\n".join(lines)


def vit_cost(result: Row) -> str:
    """What a training step of a ViT costs, next to MMPretrain's."""
    lines = [
        "| device | ViT | image | options | `TimmBackbone` | MMPretrain's ViT | time ÷ peer's | memory ÷ peer's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    below = []
    for device in (name for name in ("cpu", "cuda") if name in result):
        for one in result[device]["rows"]:
            row = one["row"]
            options = ", ".join(f"{key} {value:g}" for key, value in row.items() if key not in ("size", "side"))
            took = (f"{one[w]['step_s']:.2f} s, {one[w]['memory_mib']:.0f} MiB" for w in ("ours", "peer"))
            ratios = (f"{one['ratio'][key]:.2f}" for key in ("step_s", "memory_mib"))
            cells = (device, f"ViT-{row['size']}/16", f"{row['side']} px", options, *took, *ratios)
            lines.append(_line(cells))
        below.append(f"{device}: measured {result[device]['date']}. {_machine(result[device]['machine'])}")
    return "\n".join([*lines, "", *below])


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def updated(text: str) -> str:
    """The page's text with every table as its result has it now."""
    results = HERE / "results"
    text = inserted(text, "speed", speed(_read(results / "speed.json")))
    text = inserted(text, "fetching", fetching(_read(results / "fetching.json")))
    text = inserted(text, "vit-cost", vit_cost(_read(results / "vit_cost.json")))
    return inserted(text, "ap", ap(map(_read, sorted((results / "ap").glob("*.json")))))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the page is out of date")
    options = parser.parse_args()
    old = PAGE.read_text(encoding="utf-8")
    new = updated(old)
    if options.check:
        sys.exit(f"{PAGE.name} is out of date: python -m benchmarks.table" if new != old else 0)
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
