"""How a config names the checkpoint, so that a training finds it from any folder. Imports no torch.

mmengine takes a relative path from the folder where the training starts, and writes the folder of the config for
``{{ fileDirname }}`` before it runs the config's text (`Config._substitute_predefined_vars`, mmengine/config/config.py
0.10.7), also in a config that is another one's base.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckptconv.mmdetection.config.python_source import Code, inline
from ckptconv.mmdetection.type_names import loads_checkpoint

BESIDE = "The checkpoint is beside this config: copy both together."


def named(checkpoint: str, folder: Path | None) -> str:
    """The checkpoint as a config in ``folder`` names it: by the folder of the config where it stands in the same one.

    Any other is named by its absolute path, as for a config whose folder is not known: None.
    """
    whole = os.path.abspath(checkpoint)  # noqa: PTH100 (a link keeps its own name)
    if folder is None or os.path.realpath(folder) != os.path.realpath(os.path.dirname(whole)):  # noqa: PTH120
        return whole
    place = os.path.abspath(folder)  # noqa: PTH100
    if not place.isprintable() or any(mark in place for mark in ("'", '"', "\\", "{{")):
        return whole  # the text in which mmengine puts it would be another one
    name = inline(f"/{os.path.basename(whole)}")  # noqa: PTH119
    return Code(f"{name[0]}{{{{ fileDirname }}}}{name[1:]}")


def with_checkpoint(node: Any, said: str, written: str) -> Any:
    """The values of a config with ``written`` for the checkpoint ``said`` of every ``init_cfg``."""
    if isinstance(node, Mapping):
        changed = {key: with_checkpoint(value, said, written) for key, value in node.items()}
        if loads_checkpoint(node) and node["checkpoint"] == said:
            changed["checkpoint"] = written
        return changed
    if isinstance(node, list | tuple):
        return type(node)(with_checkpoint(item, said, written) for item in node)
    return node
