"""What hints about a raw file say: its method, the command that converts it, the line that lets our loader read it."""

from __future__ import annotations

from pathlib import Path

from ckptconv.arguments import call
from ckptconv.errors import VerdictError
from ckptconv.formats.interface import Checkpoint
from ckptconv.methods.interface import Method
from ckptconv.planning.identify import choose
from ckptconv.planning.options import Options


def raw_method(checkpoint: Checkpoint) -> Method | None:
    """The method that explains a file which ckptconv did not write; None if none does, or several differ."""
    try:
        return choose(checkpoint.sections, "auto", Options()).method
    except VerdictError:
        return None


def loader_line(checkpoint: Checkpoint, effect: str) -> tuple[str, ...]:
    """The line that lets our loader read a file for mmengine; () for numpy arrays, which mmengine does not load."""
    line = f"custom_imports = dict(imports=['ckptconv.mmdetection.loader']), which reads it and {effect}"
    return (line,) if checkpoint.format.startswith("torch") else ()


def non_tensors(named: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the names in a file's pickle that are not parts of tensors."""
    return tuple(name for name in named if not name.startswith(("torch.", "collections.OrderedDict")))


def convert_command(path: str, method: Method | None) -> tuple[str, str]:
    """The call that converts a raw file, and the name of the file it writes."""
    target = f"{Path(path.partition('?')[0]).name.partition('.')[0]}_backbone.pth"
    return call("convert", path, target, method=method.name if method else None), target
