"""Makes the inputs: real layouts at their full size, and files of several gigabytes, written as a stream."""

from __future__ import annotations

import random
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

from ckptconv.backbones.interface import CANONICAL
from ckptconv.backbones.resnet import ResNet
from ckptconv.formats.torch_writer import pickled
from ckptconv.spec import DTYPES, TensorSpec
from tests.support import hollow

SIZE = 6_000_000_000
KEPT = 0.05
_BLOCK = 1 << 20

Specs = list[tuple[str, TensorSpec]]


def layout(name: str, path: Path) -> None:
    """A file that official training code wrote, its tensors filled with made-up numbers."""
    hollow.fill(name, path)


def mostly_dropped(path: Path, size: int = SIZE) -> None:
    """A MoCo checkpoint of ``size`` bytes whose query encoder takes the share `KEPT`; the queue fills the rest."""
    encoder = _resnet50(size * KEPT)
    specs = [(f"module.encoder_{which}.{name}", spec) for which in "qk" for name, spec in encoder]
    rest = size - sum(spec.nbytes for _, spec in specs)
    queue = [("module.queue", (128, rest // 512), "float32"), ("module.queue_ptr", (1,), "int64")]
    _write(path, specs + [(name, TensorSpec(shape, DTYPES[dtype])) for name, shape, dtype in queue])


def kept_whole(path: Path, size: int = SIZE) -> None:
    """A bare ResNet-50 in torchvision's names, so wide that it takes about ``size`` bytes."""
    _write(path, _resnet50(size))


def _resnet50(size: float) -> Specs:
    """The ResNet-50 whose width, in steps of 16 channels, brings it nearest to ``size`` bytes."""
    return min(
        (_entries(width) for width in range(16, 1024, 16)), key=lambda e: abs(sum(s.nbytes for _, s in e) - size)
    )


def _entries(width: int) -> Specs:
    network = ResNet((3, 4, 6, 3), True, width, width, width, groups=1, stem_kernel=7, in_channels=3)
    return [(n, TensorSpec(shape, DTYPES["float32" if shape else "int64"])) for n, shape in network.entries().items()]


def _write(path: Path, specs: Specs) -> None:
    """What torch.save would write of ``{'state_dict': {…}}``, with a block of numbers in memory and no more."""
    rng = random.Random(0)
    block = memoryview(struct.pack(f"<{_BLOCK // 4}f", *(rng.gauss(0, 0.05) for _ in range(_BLOCK // 4))))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled(specs, {}, CANONICAL.section))
        for key, (_, spec) in enumerate(specs):
            with archive.open(f"archive/data/{key}", "w", force_zip64=True) as record:
                for run in _runs(spec.nbytes):
                    record.write(block[:run])
        archive.writestr("archive/version", "3\n")


def _runs(size: int) -> Iterable[int]:
    return (min(_BLOCK, size - at) for at in range(0, size, _BLOCK))
