"""The picture in README.md: commands of the guide on a terminal, as the pages show them and a test runs them.

`python -m tests.support.picture` makes it again.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ckptconv import guide

PICTURE = Path(guide.__file__).parent / "terminal.svg"
SHOWN = (
    ("check", "$ cat raw.py"),
    ("check", "$ ckptconv check raw.py"),
    ("quickstart", "$ ckptconv convert moco_v2.pth"),
)
"""The problem, a config that names a raw file; and what helps: pages, and how the commands begin."""
_WIDTH = 120
_LABEL = re.compile(r"[a-z ]{9} ")  # what `render.row` writes in bold


def make() -> str:
    """The picture, as SVG."""
    from rich.console import Console
    from rich.text import Text

    with open(os.devnull, "w", encoding="utf-8") as nothing:
        console = Console(record=True, width=_WIDTH, file=nothing, force_terminal=True, legacy_windows=False)
        for page, command in SHOWN:
            for line in _transcript(guide.topic(page).text(), command).splitlines():
                label = _LABEL.match(line)
                bold = len(line) if line.startswith("$ ") else label.end() if label else 0
                console.print(Text(line[:bold], "bold").append(line[bold:], "not bold"), overflow="fold")
        return console.export_svg(title="ckptconv", unique_id="terminal")


def _transcript(text: str, command: str) -> str:
    """A command of a page and its output, without the exit code, which a terminal does not show."""
    start = text.index(f"\n{command}") + 1
    end = min(
        at for at in (text.find("\n```\n", start), text.find("\n$ ", start), text.find("\n[exit ", start)) if at > 0
    )
    return text[start:end]


def main() -> None:
    PICTURE.write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
