"""Packages that only some addresses need."""

from __future__ import annotations

import importlib
from typing import Any

from ckptconv.errors import EnvironmentMissingError


def package(name: str, scheme: str) -> Any:
    """The package that addresses of a scheme need. Raises EnvironmentMissingError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise EnvironmentMissingError(
            f"{scheme}:// needs the package {name}", f"pip install 'ckptconv[{scheme}]'"
        ) from None
