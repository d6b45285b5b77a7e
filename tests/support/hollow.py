"""Full-size checkpoints in the real layouts of `tests/layouts/`, filled with numbers. Needs the standard library only.

The pickle streams are those of the official training code, byte for byte; only the tensors' numbers are made up, from
a seed.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import struct
import zipfile
from pathlib import Path
from typing import IO

LAYOUTS = Path(__file__).parents[1] / "layouts"
_SIZES = {"FloatStorage": 4, "LongStorage": 8, "DoubleStorage": 8, "HalfStorage": 2, "ByteStorage": 1, "BoolStorage": 1}
_BLOCK = 1 << 18


def names() -> list[str]:
    return sorted(path.name.removesuffix(".json.gz") for path in LAYOUTS.glob("*.json.gz"))


def fill(name: str, path: Path, seed: int = 0, cpu: bool = True) -> Path:
    """Write the layout ``name`` to ``path`` at its full size; ``cpu`` takes the 'cuda:0' tag off its tensors."""
    record = json.loads(gzip.decompress((LAYOUTS / f"{name}.json.gz").read_bytes()))
    pickle = base64.b64decode(record["pkl" if record["container"] == "zip" else "head"])
    if cpu:
        pickle = pickle.replace(b"X\x06\x00\x00\x00cuda:0", b"X\x03\x00\x00\x00cpu")
    numbers = _Numbers(seed)
    if record["container"] == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(record["root"] + "data.pkl", pickle)
            for small, content in record["small"].items():
                archive.writestr(small, base64.b64decode(content))
            for key, kind, length in record["storages"]:
                info = zipfile.ZipInfo(f"{record['root']}data/{key}")
                info.file_size = length * _SIZES[kind]
                with archive.open(info, "w") as entry:
                    numbers.write(entry, kind, length)
    else:
        with path.open("wb") as file:
            file.write(pickle)
            for _, kind, length in record["storages"]:
                file.write(struct.pack("<q", length))
                numbers.write(file, kind, length)
    return path


class _Numbers:
    """Finite numbers of each type, never the same run twice: a block of them, turned a little further each time."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self._floats = b"".join(struct.pack("<f", rng.gauss(0, 0.05)) for _ in range(_BLOCK // 4 + 1))
        self._longs = b"".join(struct.pack("<q", rng.randrange(1000)) for _ in range(1 << 10))
        self._turn = 0

    def write(self, file: IO[bytes], kind: str, length: int) -> None:
        """In pieces: memory for a whole tensor costs more time than its numbers."""
        size, block = _SIZES[kind], self._longs if kind == "LongStorage" else self._floats
        self._turn = (self._turn + 8 * 37) % len(block)
        left, piece = length * size, memoryview(block)[self._turn :]
        while left > 0:
            left -= file.write(piece[:left])
            piece = memoryview(block)
