"""Prints what is known of sources: releases, what is fetched, and the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ckptconv.cli import render
from ckptconv.methods.interface import Method, Release
from ckptconv.sources import Fetching

if TYPE_CHECKING:
    from ckptconv.sources.cache import Entry

_MANY_FETCHED = 4 << 20


@contextlib.contextmanager
def fetching(whole: bool, cache_dir: Path | None) -> Iterator[Fetching]:
    """What the options ask for, with a bar of its own on a terminal."""
    with render.progress("fetching ", _MANY_FETCHED) as show:
        yield Fetching(whole, cache_dir, show)


def releases(known: Iterable[tuple[Method, Release]], as_json: bool) -> None:
    if as_json:
        render.dump("releases", {"releases": [{**vars(release), "method": method.name} for method, release in known]})
        return
    from rich.table import Column, Table

    name = Column("release", no_wrap=True, overflow="ignore")  # whole, for it is what is typed
    filled = Table(name, "method", "backbone", "published", box=None, pad_edge=False, header_style="bold")
    for method, release in known:
        digest = f"sha256 {release.sha256}" if release.sha256 else f"md5 {release.md5}" if release.md5 else ""
        filled.add_row(release.name, method.name, release.backbone, digest)
    render.table(filled)


def cache(folder: str, entries: Iterable[Entry], as_json: bool) -> None:
    if as_json:
        render.dump("cache list", {"folder": folder, "files": [vars(entry) for entry in entries]})
        return
    render.row("cache", folder)
    for entry in entries:
        checked = f", {entry.published} checked" if entry.hash_checked else ""
        there = (
            render.size(entry.size)
            if entry.whole
            else f"{render.size(entry.fetched)} of {render.size(entry.size)}: it broke off"
        )
        render.row("file", f"{entry.address} ({there}{checked})")


def cleared(folder: str, files: int, count: int, as_json: bool) -> None:
    if as_json:
        render.dump("cache clear", {"folder": folder, "files": files, "bytes": count})
        return
    render.row("cache", folder)
    render.row("removed", f"{render.count(files, 'file')}, {render.size(count)}")
