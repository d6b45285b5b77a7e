"""Coverage-guided fuzzing of what comes from outside. Not part of the suite: it needs the package `atheris`.

`python -m tests.support.fuzz readers FOLDER -runs=500000`, also `rules` and `addresses`: the folder keeps the inputs,
and the options of libFuzzer follow it. Any exception but the project's own ends a run.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ckptconv", "tomllib"]):
    from ckptconv.errors import CkptconvError
    from ckptconv.formats import open_checkpoint
    from ckptconv.methods import rule_file
    from ckptconv.planning.identify import choose
    from ckptconv.planning.options import Options
    from ckptconv.sources.address import Address
    from ckptconv.sources.interface import Fetching

_MOST_BYTES = 1 << 20  # read of the tensors of one file
_FOLDER = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


def readers(path: Path) -> None:
    """Open a file, look at all names, and read some tensors."""
    with open_checkpoint(path) as checkpoint:
        for section in list(checkpoint.sections)[:3]:
            left = _MOST_BYTES
            for tensor in checkpoint.tensors(section).values():
                left -= tensor.spec.nbytes
                if left < 0:
                    break
                for _ in checkpoint.chunks(tensor):
                    pass
        if sum(len(s.tensors) for s in checkpoint.sections.values()) < 40:
            choose(checkpoint.sections, "torchvision", Options())


def rules(path: Path) -> None:
    """Load a rule file."""
    rule_file.load(path)


def addresses(path: Path) -> None:
    """Understand an address. Nothing is fetched."""
    text = os.fsdecode(path.read_bytes())
    for url in (text, f"https://{text}", f"hf://a/{text}"):
        with contextlib.suppress(CkptconvError):
            address = Address(url, Fetching())
            assert str(address).isprintable()
            assert address.name.isprintable()
            assert "@" not in str(address).removeprefix("https://").partition("/")[0]


_TARGETS: dict[str, Callable[[Path], None]] = {"readers": readers, "rules": rules, "addresses": addresses}


def main() -> None:
    target, path = _TARGETS[sys.argv.pop(1)], _FOLDER / f"ckptconv-fuzz-{os.getpid()}"
    warnings.simplefilter("ignore")

    def one(data: bytes) -> None:
        path.write_bytes(data)
        try:
            target(path)
        except CkptconvError as error:
            if not error.message.strip():
                raise ValueError("an error without a sentence") from error

    atheris.Setup(sys.argv, one)
    try:
        atheris.Fuzz()
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
