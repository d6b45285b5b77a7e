"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckptconv.backbones import TARGETS
from ckptconv.cli import completion
from ckptconv.errors import UsageError

TAKEN = "What is taken from the file"
WRITTEN = "What is written"
FETCHED = "Files from the network"
"""Titles of groups of options in `--help`."""

Source = Annotated[
    str,
    typer.Argument(
        metavar="SRC",
        help="The checkpoint: a path, https://, hf://, s3:// or gs://, or a name of `ckptconv releases`.",
        show_default=False,
        autocompletion=completion.sources,
    ),
]
Whole = Annotated[
    bool,
    typer.Option(
        "--whole", help="Fetch all of SRC, into the cache, and check its published digest.", rich_help_panel=FETCHED
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        help="Where whole files are kept. Default: CKPTCONV_CACHE_DIR, or this platform's usual place.",
        rich_help_panel=FETCHED,
    ),
]
MethodName = Annotated[
    str,
    typer.Option(
        "--selfsup",
        "--method",
        "-m",
        metavar="auto|NAME",
        help="The method, see `ckptconv methods`. --selfsup and --method are the same.",
        autocompletion=completion.methods,
        rich_help_panel=TAKEN,
    ),
]
Prefix = Annotated[
    str,
    typer.Option(
        "--strip-prefix", metavar="PREFIX", help="Take the tensors under this prefix only.", rich_help_panel=TAKEN
    ),
]
Section = Annotated[
    str | None,
    typer.Option(
        "--section", metavar="PATH", help="Where the weights are, such as 'state_dict'.", rich_help_panel=TAKEN
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(
        "--drop",
        metavar="PATTERN",
        help="Drop these tensors. Repeatable.",
        rich_help_panel=TAKEN,
    ),
]
Rules = Annotated[
    Path | None,
    typer.Option(
        "--rules",
        metavar="FILE.toml",
        help="A method of your own.",
        rich_help_panel=TAKEN,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help=f"Whose names to write: {', '.join(TARGETS)}.",
        show_default=False,
        autocompletion=completion.targets,
        rich_help_panel=WRITTEN,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE.html", help="Write an HTML page about it, too.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def channel_numbers(text: str) -> tuple[int, ...]:
    """The numbers of ``4,3,2``. Raises UsageError for anything else."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) < 5 for word in words):
        raise UsageError(
            f"--channels {text!r} is not a list of numbers", "Give numbers from 1, such as --channels 4,3,2"
        )
    return tuple(map(int, words))
