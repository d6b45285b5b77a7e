"""Where a stopped training goes on: the last checkpoint in its folder that is whole."""

from __future__ import annotations

import re
from pathlib import Path

from ckptconv.errors import UnreadableError
from ckptconv.formats import open_checkpoint

_NAME = re.compile(r"(?:epoch|iter)_(\d+)\.pth")


def latest(folder: Path) -> Path | None:
    """The newest of mmengine's ``epoch_N.pth`` or ``iter_N.pth`` that a training can go on from; None if none can.

    A kill while it is written leaves a file without its end, which the reader refuses. ``last_checkpoint``, where
    mmengine notes the name, may be empty after a kill and is not asked.
    """
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return next((path for _, path in sorted(found, reverse=True) if _whole(path)), None)


def _whole(path: Path) -> bool:
    try:
        with open_checkpoint(path) as checkpoint:
            tree = checkpoint.tree
            return isinstance(tree, dict) and {"state_dict", "optimizer", "meta"} <= tree.keys()
    except UnreadableError:
        return False
