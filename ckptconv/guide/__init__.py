"""The guide: one Markdown page a topic, next to this module. It knows its pages, and not how they are shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ckptconv.errors import unknown

_FOLDER = Path(__file__).parent
_ORDER = (
    "quickstart",
    "training",
    "own-data",
    "methods",
    "targets",
    "rules",
    "sources",
    "configs",
    "check",
    "verify-ap",
    "reports",
    "python-api",
    "security",
    "troubleshooting",
    "measurements",
    "contributing",
)
"""From what a new user reads first to what a developer reads."""


@dataclass(frozen=True)
class Topic:
    """A page of the guide."""

    name: str
    """What `ckptconv guide` takes."""
    path: Path

    def text(self) -> str:
        """The page, in Markdown."""
        return self.path.read_text(encoding="utf-8")

    def for_terminal(self) -> str:
        """The page with links to other pages as the commands that show them."""
        return re.sub(r"\[([^]]+)\]\(([\w-]+)\.md\)", r"\1 (`ckptconv guide \2`)", self.text())

    def summary(self) -> str:
        """What the page is for: the sentence below its title, without "This page", marks and the full stop."""
        return self.text().split("\n", 3)[2].removeprefix("This page ").removesuffix(".").replace("`", "")


def topics() -> list[Topic]:
    """Every page, in the order in which they are listed."""
    return [Topic(name, _FOLDER / f"{name}.md") for name in _ORDER]


def topic(name: str) -> Topic:
    """The page of this name. Raises UsageError, with the nearest names, if there is none."""
    for one in topics():
        if one.name == name:
            return one
    raise unknown("topic", name, _ORDER)
