"""Packages that only some addresses need."""

from __future__ import annotations

import importlib
from typing import Any

from ckptconv.errors import EnvironmentMissingError, shell_word

REQUIREMENTS = {"hf": "huggingface_hub>=0.26", "s3": "s3fs>=2024.6", "gs": "gcsfs>=2024.6"}
"""What each scheme needs, as `pyproject.toml` says in the extra of the same name."""


def package(name: str, scheme: str) -> Any:
    """The package that addresses of a scheme need. Raises EnvironmentMissingError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise EnvironmentMissingError(
            f"{scheme}:// needs the package {name}", f"pip install {shell_word(REQUIREMENTS[scheme])}"
        ) from None
