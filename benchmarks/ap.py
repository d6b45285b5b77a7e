"""What verify-ap measures on generated data, from raw files in MoCo's layout to reports in results/ap/.

`python -m benchmarks.ap` does it on any machine without data; `--add WORK_DIR` takes the report of a run of your own.
`python -m benchmarks.table` then writes all of them into the guide.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.recipe import ROW

RESULTS = Path(__file__).parent / "results" / "ap"
TWO_PROCESSES = ("--launcher", "pytorch", "--gpus", "0")
RUNS = {
    "smoke": ("trained", "smoke", ()),
    "smoke-two-processes": ("trained", "smoke", TWO_PROCESSES),
    "lift": ("trained", "lift", ()),
    "lift-of-random-weights": ("untrained", "lift", ()),
}
"""By name: which of the two checkpoints, which tier, and other options."""


def add(work_dir: Path, name: str) -> None:
    """Take a report among the results, on one line, with six digits of each number."""
    text = (work_dir / "report.json").read_text(encoding="utf-8")
    report = json.loads(text, parse_float=lambda digits: float(f"{float(digits):.6g}"))
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(report) + "\n", encoding="utf-8")


def run(folder: Path) -> None:
    """Pretrain, convert, verify, collect. What is there already, from a run that was stopped, is not done again."""
    from benchmarks import pretraining  # and with it MMDetection, which --add does without

    raw = {name: folder / f"{name}.pth.tar" for name in ("trained", "untrained")}
    if not raw["trained"].exists():
        pretraining.untrained(raw["untrained"])
        pretraining.trained(raw["trained"], folder / "pretraining")
    for name, path in raw.items():
        _ckptconv(folder, "convert", "--selfsup", "moco", path.name, f"{name}.pth", "--force")
    for name, (checkpoint, tier, options) in RUNS.items():
        _verify(folder, name, "--tier", tier, "--pretrained", f"{checkpoint}.pth", *options)
    _verify(folder, "eval", "--tier", "eval", *_expected(folder / "smoke"), target="smoke/seed0/config.py")


def _verify(folder: Path, name: str, *options: str, target: str = ROW) -> None:
    _ckptconv(folder, "verify-ap", target, "--work-dir", name, *options)
    add(folder / name, name)


def _expected(smoke: Path) -> list[str]:
    """The detector that the smoke run trained, and the AP that it had then."""
    (trained,) = json.loads((smoke / "report.json").read_text(encoding="utf-8"))["runs"]
    said = ",".join(f"{metric}={ap}" for metric, ap in trained["ap"].items())
    detector = max((smoke / "seed0").glob("epoch_*.pth"), key=lambda path: path.stat().st_mtime)
    return ["--checkpoint", f"smoke/seed0/{detector.name}", "--expect", said, "--tolerance", "0.0001"]


def _ckptconv(folder: Path, *words: str) -> None:
    print("$ ckptconv", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "ckptconv", *words], cwd=folder, check=False)
    if done.returncode > 1:  # 1 is a verdict
        raise SystemExit(done.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ap", description=__doc__)
    parser.add_argument("--dir", type=Path, help="where to work, and to go on; default: a folder that is removed")
    parser.add_argument("--add", type=Path, metavar="WORK_DIR", help="only take the report of this work dir")
    options = parser.parse_args()
    if options.add:
        add(options.add, options.add.resolve().name)
    elif options.dir:
        options.dir.mkdir(parents=True, exist_ok=True)
        run(options.dir.resolve())
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder))


if __name__ == "__main__":
    main()
