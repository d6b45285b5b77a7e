"""What pages are made of: the verdict on top, facts, tables, and lists that fold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ckptconv.report.markup import Html, element, joined, prose, text

GOOD, WARN, BAD = "good", "warn", "bad"
"""The colours of a verdict. Its words say the same."""


def verdict(colour: str, headline: str, sentences: Iterable[str] = (), below: Iterable[str] = ()) -> Html:
    """The verdict in words; ``below`` is what explains it, such as its rule."""
    return element(
        "div",
        element("b", headline),
        *(element("p", prose(sentence)) for sentence in sentences),
        *(element("p", prose(sentence), class_="soft") for sentence in below),
        class_=f"verdict {colour}",
    )


def section(title: str, *parts: str | None) -> Html:
    """A heading and what is below it."""
    return joined((element("h2", title), *parts), "\n")


def facts(pairs: Mapping[str, str]) -> Html:
    """Names and values; one without a value is left out."""
    return element("dl", *(element(t, one) for name, value in pairs.items() if value for t, one in _pair(name, value)))


def _pair(name: str, value: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("dt", name), ("dd", value)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    label: str,
    words: Sequence[int] | None = None,
    kind: str | None = None,
) -> Html:
    """A table of numbers, whose first column is text. It scrolls sideways where the page is too narrow.

    ``words``: a table of sentences, in which these columns are numbers. ``kind``: a class of the style.
    """
    numbers = set(words or ())

    def cells(tag: str, row: Sequence[str]) -> Html:
        scope = "col" if tag == "th" else None
        return joined(element(tag, one, class_="n" if i in numbers else None, scope=scope) for i, one in enumerate(row))

    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", cells("th", head))),
            element("tbody", *(element("tr", cells("td", row)) for row in rows)),
            class_=kind if words is None else "words",
        ),
        class_="wide",
        tabindex="0",
        role="region",
        aria_label=label,
    )


def folded(summary: Sequence[str], *parts: str, opened: bool = False) -> Html:
    """What shows when its first line is clicked, or chosen with the keyboard. The page needs no script for it."""
    inner = joined((element("summary", *summary), element("div", *parts)))
    return Html(f"<details{' open' * opened}>{inner}</details>")


def soft(content: str) -> Html:
    """A text in a paler colour, which can still be read."""
    return element("span", content, class_="soft")


def mark(colour: str, content: str) -> Html:
    """A word that a colour makes easier to find."""
    return element("span", content, class_=f"mark {colour}")


def with_below(first: str, *below: str | None) -> Html:
    """A cell with smaller lines below the first; those that are empty are left out."""
    return joined((text(first), *(one if isinstance(one, Html) else element("small", one) for one in below if one)))
