"""What the first bytes of a download say before anything else reads it."""

from __future__ import annotations


def is_html(head: bytes) -> bool:
    """Whether a file that starts so is a web page."""
    return head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head"))
