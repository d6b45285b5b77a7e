"""The commands about what is known without a file: methods, published files, and the cache of these."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptconv.cli import completion
from ckptconv.cli.options import (
    CacheDir,
    Json,
    Rules,
    Whole,
)
from ckptconv.errors import UsageError


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|WORD]",
            help="Show this one in full, or those with a word in their name, title, network or family.",
            show_default=False,
            autocompletion=completion.method_names,
        ),
    ] = None,
    fits: Annotated[
        str | None,
        typer.Option("--fits", metavar="SRC", help="Those whose rules explain SRC. Exit 1 if none does."),
    ] = None,
    as_toml: Annotated[bool, typer.Option("--toml", help="Print NAME as a rule file, for --rules.")] = False,
    rules: Rules = None,
    whole: Whole = False,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """List the methods: built in, from other packages (entry points `ckptconv.methods`), and from --rules.

    A rule file holds a name and rules: name = "mine", rules = [{keep = "encoder.{key...}", to = "{key...}"},
    {drop = "head.{key...}", why = "the head"}]. {x} is one segment of a dotted name, {x...} one or more.
    """
    from ckptconv import inspection
    from ckptconv.cli import render_methods, render_sources

    if as_toml:
        if name is None or fits is not None or as_json:
            raise UsageError("--toml prints one method, in TOML", "Give its name: ckptconv methods moco --toml")
        render_methods.rule_file(inspection.known_method(name, rules))
        return
    if fits is not None:
        if name is not None:
            raise UsageError(
                "a method's NAME and --fits are two questions",
                f"Whether {name} fits: ckptconv convert --dry-run --selfsup {name} SRC DST",
            )
        with render_sources.fetching(whole, cache_dir) as fetching:
            found = inspection.fitting(fits, rules=rules, fetching=fetching)
        render_methods.fitting(found, as_json)
        return
    if name is None:
        render_methods.methods(inspection.known_methods(rules), as_json)
        return
    from ckptconv.mmdetection.verify.recipes import RECIPES

    render_methods.named(inspection.methods_about(name, rules), RECIPES.values(), as_json)


def releases(
    pattern: Annotated[
        str, typer.Argument(metavar="[PATTERN]", help="A part of a name, method or network; *, ? and [ ] fit as usual.")
    ] = "",
    rules: Rules = None,
    as_json: Json = False,
) -> None:
    """List the files that methods' authors published: sources by their names. --json shows their addresses, too."""
    from ckptconv import inspection
    from ckptconv.cli import render_sources

    render_sources.releases(inspection.known_releases(pattern, rules), as_json)


def cache_list(cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """List the files in the cache, and how much of each is there."""
    from ckptconv.cli import render_sources
    from ckptconv.sources.cache import Cache

    cache = Cache(cache_dir)
    render_sources.cache(str(cache.folder), cache.entries(), as_json)


def cache_clear(cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Remove every file from the cache."""
    from ckptconv.cli import render_sources
    from ckptconv.sources.cache import Cache

    cache = Cache(cache_dir)
    render_sources.cleared(str(cache.folder), *cache.clear(), as_json)
