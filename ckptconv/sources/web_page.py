"""Tells a web page by its first bytes."""

from __future__ import annotations


def is_html(head: bytes) -> bool:
    """Whether a file that starts so is a web page."""
    return head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head"))
