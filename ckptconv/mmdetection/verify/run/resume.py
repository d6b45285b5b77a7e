"""Where a stopped training resumes: the last complete checkpoint in its folder."""

from __future__ import annotations

import re
from pathlib import Path

from ckptconv.errors import UnreadableError
from ckptconv.formats import open_checkpoint

_NAME = re.compile(r"(?:epoch|iter)_(\d+)\.pth")


def latest(folder: Path) -> Path | None:
    """The newest of mmengine's ``epoch_N.pth`` or ``iter_N.pth`` to resume a training from; None if there is none.

    A kill while it is written leaves a truncated file, which the reader refuses. ``last_checkpoint``, mmengine's note
    of the name, may be empty after a kill and is not used.
    """
    numbered = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return next((path for _, path in sorted(numbered, reverse=True) if _is_complete(path)), None)


def _is_complete(path: Path) -> bool:
    try:
        with open_checkpoint(path) as checkpoint:
            tree = checkpoint.tree
            return isinstance(tree, dict) and {"state_dict", "optimizer", "meta"} <= tree.keys()
    except UnreadableError:
        return False
