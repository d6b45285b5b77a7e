"""A whole page that loads nothing, and a fragment of one for a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ckptconv._version import __version__
from ckptconv.report.markup import Html, element, joined, prose

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load: nothing, whatever a name in the page may be taken for."""
_FRAGMENT = (
    ".ckptconv{color:inherit;line-height:1.45;border-left:4px solid var(--hue);padding:.25em 0 .25em .9em}"
    ".ckptconv.good{--hue:#2e8b57}.ckptconv.warn{--hue:#c77700}.ckptconv.bad{--hue:#d64545}"
    ".ckptconv table{border-collapse:collapse;margin:.3em 0;color:inherit;background:none;font:inherit}"
    ".ckptconv td{color:inherit;background:none;border:0;padding:.1em 1em .1em 0;text-align:left;vertical-align:top;"
    "overflow-wrap:anywhere}.ckptconv td:first-child{white-space:nowrap}"
)
"""The text has the colour that the notebook has: only the edge has its own, and says nothing more."""


def page(title: str, parts: Iterable[str | None]) -> str:
    """The page's text. ``title`` is plain, ``parts`` are its elements in order; those that are None are left out."""
    head = joined(
        (
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", title),
            element("style", Html(style())),
        ),
        "\n",
    )
    foot = element("p", f"ckptconv {__version__}", class_="foot")
    body = element("body", element("main", joined(parts, "\n")), foot)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n{body}\n</html>\n'


def style() -> str:
    """The style of every page."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def fragment(status: str, headline: str, facts: Iterable[tuple[str, str]], sentences: Iterable[str] = ()) -> str:
    """A few lines for a notebook, light or dark.

    ``status``: 'good', 'warn' or 'bad'. Where a notebook removes the style, what is left is still a table.
    """
    rows = [element("tr", element("td", name), element("td", value)) for name, value in facts if value]
    return element(
        "div",
        element("style", Html(_FRAGMENT)),
        element("b", headline),
        *(element("div", prose(sentence)) for sentence in sentences),
        element("table", *rows) if rows else None,
        class_=f"ckptconv {status}",
    )
