"""Speed and memory of the command line against what people use today; the result goes to results/speed.json.

Run `python -m benchmarks.speed`, or with --quick to leave out the files of several gigabytes. Nothing here passes or
fails by its time: goals are written down with the numbers, met or not.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import files, machine, planning, table
from benchmarks.measure import Command, in_turn, ratios, summary

SCHEMA = 1
RESULT = Path(__file__).parent / "results" / "speed.json"
PREDECESSOR = "selfsup2mmdet.py --selfsup moco SRC DST.pth"
PLAIN = "plain.py SRC DST.pth"
PLAIN_SCRIPT = """
import sys, torch
state = torch.load(sys.argv[1], map_location="cpu", weights_only=True)["state_dict"]
head = "module.encoder_q."
torch.save({"state_dict": {k[len(head):]: v for k, v in state.items() if k.startswith(head)}}, sys.argv[2])
"""
NOTES = {
    "how": "Whole processes from start to exit, in turn (A B C, A B C, ...), after one of each that is not counted. "
    "Input is in the file cache. Before a run the disk is synced, after it the output is removed, outside the time.",
    "ratio": "ckptconv / peer, the median over runs that stood side by side; below 1, ckptconv takes less",
    "fairness": "ckptconv convert also verifies the CRCs of what it reads, hashes every tensor, syncs the output to "
    "the disk, reads it back and compares it byte for byte with the source. Its peers do none of it; where 'sync' is "
    "named, the file is synced.",
    "peak_mib": "the largest resident set of the process; below about 8 MiB nothing can be told",
    "planning": "inside one process, everything imported and warm",
}


@dataclass(frozen=True)
class Goal:
    """A bound on a median: of ckptconv itself ('ckptconv') or of its ratio to the peer ('ratio')."""

    of: str
    measure: str
    at_most: float


@dataclass(frozen=True)
class Group:
    """Commands of ckptconv and their peers, all run in turn. SRC and DST stand for files."""

    ours: tuple[str, ...]
    peers: tuple[str, ...] = ()
    goals: tuple[Goal, ...] = ()


@dataclass(frozen=True)
class Case:
    """An input and what is done with it."""

    title: str
    make: Callable[[Path], None] | None
    size: int
    groups: tuple[Group, ...]
    runs: int = 7

    @property
    def big(self) -> bool:
        return self.size > 1 << 30


def cases() -> list[Case]:
    usual, _ = _predecessor()
    convert = Group(
        (
            "ckptconv convert SRC DST.pth --force",
            "ckptconv convert SRC DST.pth --force --selfsup moco",
            "ckptconv convert SRC DST.safetensors --force",
            "ckptconv convert SRC DST.safetensors --force --selfsup moco",
        ),
        (usual,),
        (Goal("ratio", "wall_s", 0.125), Goal("ratio", "peak_mib", 0.1)),
    )
    look = Group(("ckptconv inspect SRC",))
    return [
        Case(
            "no input",
            None,
            0,
            (Group(("ckptconv --help",), ("python -c 'import typer, rich'",), (Goal("ratio", "wall_s", 2.5),)),),
        ),
        Case("no input", None, 0, (Group(("ckptconv --version",), ("python -c 'import torch'",)),)),
        Case("MoCo v2, 370 MB, zip", partial(files.layout, "moco_v2_r50"), 370_000_000, (convert, look)),
        Case("MoCo v2, 370 MB, legacy", partial(files.layout, "moco_v2_r50_legacy"), 370_000_000, (convert, look)),
        Case(
            "MoCo, 6 GB, 5 % kept",
            files.mostly_dropped,
            files.SIZE,
            (
                Group(
                    ("ckptconv convert SRC DST.pth --force",),
                    (usual,),
                    (Goal("ckptconv", "wall_s", 1), Goal("ckptconv", "peak_mib", 100)),
                ),
                look,
            ),
            runs=5,
        ),
        Case(
            "ResNet-50, 6 GB, all kept",
            files.kept_whole,
            files.SIZE,
            (
                Group(
                    ("ckptconv convert SRC DST.pth --force",),
                    ("cp SRC DST.pth", "cp SRC DST.pth && sync DST.pth"),
                    (Goal("ratio", "wall_s", 1.5), Goal("ckptconv", "peak_mib", 150)),
                ),
            ),
            runs=5,
        ),
    ]


def _predecessor() -> tuple[str, Path | None]:
    """MMDetection's converter, found without importing MMDetection; the plain way by hand where there is none."""
    found = find_spec("mmdet")
    for root in (found.submodule_search_locations or ()) if found else ():
        script = Path(root) / ".mim" / "tools" / "model_converters" / "selfsup2mmdet.py"
        if script.is_file():
            return PREDECESSOR, script
    return PLAIN, None


def command(words: str, folder: Path) -> Command:
    """The command that ``words`` stand for, with SRC and DST in ``folder``."""
    output = next((word for word in shlex.split(words) if word.startswith("DST")), None)
    if "&&" in words:
        args = ["sh", "-c", words]
    else:
        program, *rest = shlex.split(words)
        script = Path(sys.executable).with_name("ckptconv")
        programs = {
            "ckptconv": [str(script)] if script.exists() else [sys.executable, "-m", "ckptconv"],
            "python": [sys.executable],
            "plain.py": [sys.executable, "-c", PLAIN_SCRIPT],
            "selfsup2mmdet.py": [sys.executable, str(_predecessor()[1])],
        }
        args = [*programs.get(program, [program]), *rest]
    return Command(words, tuple(args), folder, folder / output if output else None)


def obstacle(case: Case, folder: Path, quick: bool) -> str:
    """Why a case cannot be measured here; '' if it can."""
    if quick and case.big:
        return "left out by --quick"
    needed, free = 2 * case.size + (1 << 30), shutil.disk_usage(folder).free
    return f"needs {needed >> 30} GiB of disk, {free >> 30} are free" if free < needed else ""


def peer_obstacle(words: str, case: Case) -> str:
    """Why a peer cannot be measured here; '' if it can."""
    if words in (PREDECESSOR, PLAIN) or "import torch" in words:
        if find_spec("torch") is None:
            return "torch is not installed"
        needed = case.size + case.size // 5  # torch.load reads every storage into memory
        if machine.available() < needed:
            return f"needs {needed >> 30} GiB of memory, {machine.available() >> 30} are free"
    return ""


def measure(case: Case, folder: Path, quick: bool) -> Iterator[dict[str, object]]:
    """One row for each command of ckptconv and each of its peers."""
    why = obstacle(case, folder, quick)
    if not why and case.make is not None:
        say(f"{case.title}: making it")
        case.make(folder / "SRC")
    for group in case.groups:
        skipped = {words: why or peer_obstacle(words, case) for words in group.peers}
        peers = [words for words, reason in skipped.items() if not reason]
        wanted = [] if why else [*group.ours, *peers]
        say(f"{case.title}: {why or '; '.join(wanted)}")
        runs = dict(zip(wanted, in_turn([command(w, folder) for w in wanted], case.runs), strict=True))
        for ours in group.ours:
            for peer in group.peers or (None,):
                row: dict[str, object] = {"input": case.title, "command": ours, "peer": peer, "runs": case.runs}
                if why:
                    yield {**row, "skipped": why}
                    continue
                row["ckptconv"] = summary(runs[ours])
                if peer in runs:
                    row |= {"peer_took": summary(runs[peer]), "ratio": ratios(runs[ours], runs[peer])}
                elif peer is not None:
                    row["peer_skipped"] = skipped[peer]
                yield {**row, "goals": [judged(goal, row) for goal in group.goals]}
    (folder / "SRC").unlink(missing_ok=True)


def judged(goal: Goal, row: Mapping[str, Any]) -> dict[str, object]:
    """A goal with the value that was found; ``met`` is None where there is none."""
    found = row.get(goal.of, {}).get(goal.measure)
    value = found["median"] if isinstance(found, dict) else found
    return {**vars(goal), "value": value, "met": None if value is None else value <= goal.at_most}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="leave out the inputs of several gigabytes")
    parser.add_argument("--out", type=Path, default=RESULT, help="the result")
    parser.add_argument("--dir", type=Path, default=None, help="where inputs and outputs are made, and removed")
    parser.add_argument("--date", default=datetime.now(timezone.utc).date().isoformat(), help="default: today, UTC")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that gigabytes are not left behind
    with tempfile.TemporaryDirectory(prefix="ckptconv-speed-", dir=options.dir) as name:
        folder = Path(name)
        result = {
            "schema": SCHEMA,
            "date": options.date,
            "machine": machine.describe(folder),
            "notes": NOTES,
            "rows": [row for case in cases() for row in measure(case, folder, options.quick)],
            "planning": planning.times(folder / "SRC"),
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table.speed(result))


if __name__ == "__main__":
    main()
