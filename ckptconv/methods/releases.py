"""The table of published files, `releases.toml`: read once, when somebody asks for a release.

A checkpoint that is given by its path is converted without it: reading it takes about 50 ms.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ckptconv.methods.interface import Release

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = Path(__file__).with_name("releases.toml")


@cache
def built_in() -> Mapping[str, tuple[Release, ...]]:
    """The releases of each built-in method, by the method's name. What a table says once holds for all its rows."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {
        method: tuple(Release(**{**shared, **row}) for row in rows)
        for method, shared in tables.items()
        for rows in (shared.pop("releases"),)
    }
