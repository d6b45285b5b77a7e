"""What a lift measures of a small ViT, from raw files in DINO's layout to reports in results/ap/.

`python -m benchmarks.vit` pretrains the ViT for minutes, converts it, writes configs for it, and calls verify-ap: with
the trained weights, trained further and frozen, and with random weights, which must not help. It needs no GPU and no
data. `python -m benchmarks.table` then writes the reports into the guide. There are none yet: with this pretraining
the first seed showed no lift.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.ap import add
from tests.support import pretrain

DETECTOR = "retinanet"
RUNS = {
    "vit-lift": ("trained", ()),
    "vit-lift-frozen": ("trained", ("--freeze", "all")),
    "vit-lift-of-random-weights": ("untrained", ()),
}
"""By name: which of the two checkpoints, and options of emit-config."""


def run(folder: Path) -> None:
    """Pretrain, convert, emit, verify, collect. What a stopped run has left is not done again."""
    environment = {**os.environ, **pretrain.for_processes(folder / "packages")}
    raw = {name: folder / f"{name}.raw.pth" for name in ("trained", "untrained")}
    if not raw["trained"].exists():
        from benchmarks import vit_pretraining

        vit_pretraining.untrained(raw["untrained"])
        vit_pretraining.trained(raw["trained"], folder / "images")
    for name, path in raw.items():
        _ckptconv(folder, environment, "convert", "--selfsup", "dino", path.name, f"{name}.pth", "--force")
    for name, (checkpoint, options) in RUNS.items():
        config = ("--detector", DETECTOR, "--out", f"{name}.py", "--force")
        _ckptconv(folder, environment, "emit-config", f"{checkpoint}.pth", *config, *options)
        _ckptconv(folder, environment, "verify-ap", f"{name}.py", "--tier", "lift", "--work-dir", name, "--gpus", "0")
        add(folder / name, name)


def _ckptconv(folder: Path, environment: Mapping[str, str], *words: str) -> None:
    print("$ ckptconv", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "ckptconv", *words], cwd=folder, env=environment, check=False)
    if done.returncode > 1:  # 1 is a verdict
        raise SystemExit(done.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vit", description=__doc__)
    parser.add_argument("--dir", type=Path, help="where to work, and to go on; default: a folder that is removed")
    options = parser.parse_args()
    if options.dir:
        options.dir.mkdir(parents=True, exist_ok=True)
        run(options.dir.resolve())
        return
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder))


if __name__ == "__main__":
    main()
