"""The command that shows the guide."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptconv import guide as pages


def _complete(incomplete: str) -> list[str]:
    return [topic.name for topic in pages.topics() if topic.name.startswith(incomplete)]


def guide(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPIC]", help="The page. Default: list them.", show_default=False, autocompletion=_complete
        ),
    ] = None,
) -> None:
    """Show a page of the guide, or list the pages."""
    from ckptconv.cli import render_guide

    if topic is None:
        render_guide.topics(pages.topics())
    else:
        render_guide.page(pages.topic(topic))
