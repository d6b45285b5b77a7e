"""What fetching only what is kept saves: `ckptconv convert ADDRESS` against downloading the whole file.

A server on the loopback address sends 20 MB a second, whoever asks, and counts what it sends. The peer downloads and
does nothing else. They run in turn (A B, A B, …), as whole processes. The result goes to results/fetching.json.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ckptconv
from benchmarks import files, machine, table
from benchmarks.measure import Command, Run, once, ratios, summary
from ckptconv.errors import CkptconvError
from tests.support.server import Server, serving

SCHEMA = 1
RESULT = Path(__file__).parent / "results" / "fetching.json"
RATE = 20_000_000
RUNS = 3
SLACK = 1_000_000
"""Bytes beyond those that are kept that a conversion may cost: the goal."""
DOWNLOAD = (
    "import shutil, sys, urllib.request as r; shutil.copyfileobj(r.urlopen(sys.argv[1]), open(sys.argv[2], 'wb'))"
)
CASES = (
    ("MoCo v2, zip", "moco_v2_r50"),
    ("MoCo v2, legacy", "moco_v2_r50_legacy"),
    ("DINO ResNet-50, full", "dino_r50_full"),
    ("MAE ViT-B, full", "mae_vitb16_pretrain"),
)


def measure(title: str, layout: str, folder: Path, server: Server, runs: int) -> dict[str, Any]:
    """One row: bytes and times of both, and ours divided by the peer's."""
    source, address = folder / "SRC", f"{server.url}/SRC"
    files.layout(layout, source)
    row: dict[str, Any] = {"input": title, "bytes": source.stat().st_size, "runs": runs}
    try:
        plan = ckptconv.plan(source)
    except CkptconvError as error:
        return {**row, "skipped": error.message.splitlines()[0]}
    row["kept_bytes"] = sum(move.spec.nbytes for move in plan.moves)
    convert = [sys.executable, "-m", "ckptconv", "convert", address, "DST.pth"]
    commands = (
        Command("ckptconv convert ADDRESS DST.pth", tuple(convert), folder, folder / "DST.pth"),
        Command("download ADDRESS", (sys.executable, "-c", DOWNLOAD, address, "DST"), folder, folder / "DST"),
    )
    ours: list[Run] = []
    peers: list[Run] = []
    sent = [0, 0]
    for _ in range(runs):
        for i, (command, found) in enumerate(zip(commands, (ours, peers), strict=True)):
            server.sent = 0
            found.append(once(command))
            sent[i] = server.sent
    row |= {"ckptconv": summary(ours), "peer_took": summary(peers), "ratio": ratios(ours, peers)}
    row |= {"sent_bytes": sent[0], "peer_sent_bytes": sent[1]}
    return {**row, "goal": {"beyond_kept_bytes": SLACK, "met": sent[0] <= row["kept_bytes"] + SLACK}}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fetching", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULT, help="the result")
    parser.add_argument("--dir", type=Path, default=None, help="where inputs and outputs are made, and removed")
    parser.add_argument("--runs", type=int, default=RUNS, help="of each command")
    parser.add_argument("--date", default=datetime.now(timezone.utc).date().isoformat(), help="default: today, UTC")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that gigabytes are not left behind
    rows = []
    with tempfile.TemporaryDirectory(prefix="ckptconv-fetching-", dir=options.dir) as name:
        folder = Path(name)
        with serving(files={"/SRC": folder / "SRC"}, rate=RATE) as server:
            for title, layout in CASES:
                print(title, file=sys.stderr, flush=True)
                rows.append(measure(title, layout, folder, server, options.runs))
        result = {
            "schema": SCHEMA,
            "date": options.date,
            "machine": machine.describe(folder),
            "bytes_a_second": RATE,
            "rows": rows,
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table.fetching(result))


if __name__ == "__main__":
    main()
