"""`make demo`: a full-size file in MoCo v2's real layout, converted, and what came out. Needs the core install only.

The file's pickle is the one that the official code wrote; its numbers are made up. Its files stay in `.demo/`.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from safetensors import safe_open

from tests.support import hollow

FOLDER = Path(".demo")
SOURCE = FOLDER / "moco_v2_200ep_pretrain.pth.tar"
COMMANDS = (
    f"ckptconv inspect {SOURCE}",
    f"ckptconv convert --selfsup moco {SOURCE} {FOLDER}/moco_r50.pth --force",
    f"ckptconv convert --selfsup auto {SOURCE} {FOLDER}/moco_r50.safetensors --force",
    f"ckptconv explain {SOURCE} module.encoder_k.layer1.0.conv1.weight",
)


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    print(f"making {SOURCE}: MoCo v2's real layout, made-up numbers", flush=True)
    hollow.fill("moco_v2_r50", SOURCE)
    for command in COMMANDS:
        print(f"\n$ {command}", flush=True)
        done = subprocess.run([sys.executable, "-m", *shlex.split(command)], check=False)
        if done.returncode:
            return done.returncode
    print("\nwhat safetensors' own reader finds in it:")
    with safe_open(FOLDER / "moco_r50.safetensors", "np") as file:
        names = list(file.keys())
        print(f"{len(names)} tensors, such as")
        for name in sorted(names)[:3]:
            tensor = file.get_tensor(name)
            print(f"  {name}  {tensor.dtype} {list(tensor.shape)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
