"""A page as a browser takes it in, without one: its elements, its text, and what it would fetch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

EMPTY = {"meta", "img", "br"}  # those of HTML's elements without an end that are used here
LOADS = {"src", "srcset", "href", "xlink:href", "data", "poster", "action", "background"}
RUNS = {"script", "link", "iframe", "object", "embed", "base"}
LARGEST = 500_000
"""Bytes of a page without photographs."""


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and its text by the element that it stands in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), attrs
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open += [tag] if tag not in EMPTY else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        assert self._open.pop() == tag

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_decl(self, decl: str) -> None:
        assert decl == "doctype html"

    def handle_pi(self, data: str) -> None:
        raise AssertionError(data)

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def said(self, *tags: str) -> list[str]:
        """The texts of these elements."""
        return [text for tag, text in self.texts if tag in tags]

    def attributes(self, *names: str) -> list[str]:
        return [value for _, attrs in self.elements for name, value in attrs.items() if name in names]


def loaded(text: str) -> Iterator[str]:
    """What a browser would fetch for a page, or run. A link to a file beside the page is not fetched."""
    parsed = Parsed(text)
    for tag, attrs in parsed.elements:
        for name in LOADS & attrs.keys():
            beside = tag == "a" and name == "href" and not re.match(r"[a-z]+:|//|/", attrs[name], re.IGNORECASE)
            if not beside and not attrs[name].startswith(("#", "data:")):
                yield attrs[name]
        yield from (name for name in attrs if name.startswith("on"))
    styles = [*parsed.said("style"), *parsed.attributes("style", "clip-path", "fill", "filter", "mask")]
    yield from (url for style in styles for url in re.findall(r"@import.*|url\((?!#).*?\)", style))
    yield from (tag for tag, _ in parsed.elements if tag in RUNS)


def require_sound(text: str, largest: int = LARGEST) -> Parsed:
    """Require what holds of every page: it loads nothing, says what pictures show, and works with a keyboard."""
    parsed = Parsed(text)
    assert list(loaded(text)) == []
    ids = parsed.attributes("id")
    assert len(ids) == len(set(ids)), ids
    for tag, attrs in parsed.elements:
        if tag == "img":
            assert attrs.get("alt"), attrs
        if tag == "svg":
            assert attrs.get("aria-hidden") == "true" or (attrs.get("role") == "img" and attrs.get("aria-label")), attrs
        if "wide" in attrs.get("class", "").split():
            assert attrs.get("tabindex") == "0", attrs
            assert attrs.get("aria-label"), attrs
    tags = [tag for tag, _ in parsed.elements]
    assert tags.count("h1") == tags.count("main") == 1
    assert tags.count("details") == tags.count("summary")
    assert ("html", {"lang": "en"}) in parsed.elements
    policies = [
        attrs["content"] for _, attrs in parsed.elements if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert [policy.split(";")[0] for policy in policies] == ["default-src 'none'"]
    assert len(text.encode("utf-8", "surrogateescape")) <= largest
    return parsed
