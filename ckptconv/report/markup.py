"""Markup that is built, never pasted: a plain text that becomes part of a page is escaped on its way.

Names in a page come from files, which may be hostile. Only `Html` is markup; `element` and `text` make it.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ckptconv.errors import printable

_EMPTY = ("meta", "img", "br")
"""Elements of HTML without an end."""


class Html(str):
    """Markup. Every other text is escaped where it becomes part of markup."""

    __slots__ = ()


def text(content: str) -> Html:
    """A text as markup that shows it, with escapes for what cannot be printed."""
    return content if isinstance(content, Html) else Html(escape(printable(content)))


def element(tag: str, *children: str | None, **attributes: object) -> Html:
    """An element. Children that are None are left out, and so are attributes.

    The name of an attribute has a hyphen for each underscore: ``class_``, ``aria_label``, ``stroke_width``.

    >>> element("p", "a < b", class_="soft")
    '<p class="soft">a &lt; b</p>'
    """
    head = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    end = "" if tag in _EMPTY else f"</{tag}>"
    return Html(f"<{tag}{head}>{joined(children)}{end}")


def prose(content: str) -> Html:
    """A sentence, in which what stands between backticks is code.

    >>> prose("give `gpus=8`")
    'give <code>gpus=8</code>'
    """
    if isinstance(content, Html) or content.count("`") % 2:
        return text(content)
    pieces = content.split("`")
    return joined(element("code", piece) if i % 2 else piece for i, piece in enumerate(pieces))


def joined(parts: Iterable[str | None], between: str = "") -> Html:
    """Several parts as one."""
    return Html(between.join(text(part) for part in parts if part is not None))
