"""Puts a table that is made from data into a page, between two markers."""

from __future__ import annotations


def inserted(text: str, name: str, table: str) -> str:
    """The text with the table between the markers of this name. Raises SystemExit if they are not there."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"the page has no {begin} … {end}")
    return f"{head}{begin}\n{table}\n{end}{tail}"
