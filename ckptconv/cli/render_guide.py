"""What `guide` prints: on a terminal a page as people read it, elsewhere its Markdown."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ckptconv.cli import render

if TYPE_CHECKING:
    from ckptconv.guide import Topic


def topics(every: Iterable[Topic]) -> None:
    for topic in every:
        render.row(topic.name, topic.summary(), width=15)
    render.text("\nShow one: ckptconv guide TOPIC\n")


def page(topic: Topic) -> None:
    if not render.is_terminal(sys.stdout):
        render.text(topic.text())
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(topic.for_terminal(), code_theme="ansi_dark"))
