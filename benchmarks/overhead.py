"""What verify-ap's worker adds to a training step: against MMDetection's own tools/train.py on the same config.

Both train the small detector of the smoke tier, in turn (A B, A B, …), and mmengine's own log says how long a step
took. The result goes to results/overhead.json. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine, pretraining
from ckptconv.mmdetection.verify.config_edits import SyntheticTraining
from ckptconv.mmdetection.verify.run import launch
from ckptconv.mmdetection.verify.run.supervisor import process_environment

RESULT = Path(__file__).parent / "results" / "overhead.json"
GOAL = 1.03
_EPOCHS, _IMAGES = 2, 200
_COLD = 10  # steps at the start that are not counted


def _steps(log: Path) -> list[float]:
    """Seconds of each step after the first ones, by mmengine's scalars."""
    (scalars,) = log.glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    return [row["time"] for row in rows if "loss" in row][_COLD:]


def _train(work: Path, command: list[str], settings: Mapping[str, str]) -> list[float]:
    """One run, alone and on the CPU; its step times. The folder is as it was afterwards."""
    before = set(work.iterdir())
    environment = {**settings, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    found = _steps(work)
    for path in set(work.iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    training = SyntheticTraining(_IMAGES, 1, _EPOCHS, _EPOCHS + 1)
    hooks = {
        "checkpoint": {"type": "CheckpointHook", "interval": _EPOCHS + 1},
        "logger": {"type": "LoggerHook", "interval": 1},
    }
    work = pretraining.prepare(folder, training, random=False, hooks=hooks)
    config = work / "config.py"
    spec = find_spec("mmdet")
    assert spec is not None
    assert spec.origin is not None
    theirs = folder / "theirs"
    theirs.mkdir()
    script = Path(spec.origin).parent / ".mim" / "tools" / "train.py"
    commands = {
        work: [sys.executable, "-m", launch.WORKER, str(work)],
        theirs: [sys.executable, str(script), str(config), "--work-dir", str(theirs)],
    }
    ours: list[float] = []
    peers: list[float] = []
    for i in range(rounds):
        for place, found, settings in ((work, ours, process_environment(1)), (theirs, peers, os.environ)):
            found.append(median(_train(place, commands[place], settings)))
        print(f"round {i + 1}: {ours[-1]:.4f} s, tools/train.py {peers[-1]:.4f} s a step", flush=True)
    ratio = median(a / b for a, b in zip(ours, peers, strict=True))
    return {
        "schema": 1,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": machine.describe(folder),
        "how": f"median of {_EPOCHS * _IMAGES // 8 - _COLD} steps: the smoke tier's Mask R-CNN R18, 8 images of "
        "128 px, on CPU, in turn; the ratio is the median over the rounds",
        "ours_s": ours,
        "peer_s": peers,
        "ratio": ratio,
        "goal": GOAL,
        "met": ratio <= GOAL,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.rounds)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"ratio {result['ratio']:.4f}, goal {GOAL}: {'met' if result['met'] else 'not met'}")


if __name__ == "__main__":
    main()
