"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckptconv.backbones import TARGETS

Source = Annotated[
    str,
    typer.Argument(
        metavar="SRC",
        help="The checkpoint: a path, https://, hf://, s3:// or gs://, or a name of `ckptconv releases`.",
        show_default=False,
    ),
]
Whole = Annotated[
    bool, typer.Option("--whole", help="Fetch all of SRC, into the cache, and check its published digest.")
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        help="Where whole files are kept. Default: CKPTCONV_CACHE_DIR, or this platform's usual place.",
    ),
]
Selfsup = Annotated[
    str, typer.Option("--selfsup", "-m", metavar="auto|NAME", help="The method; see `ckptconv methods`.")
]
Prefix = Annotated[
    str, typer.Option("--strip-prefix", metavar="PREFIX", help="Take the tensors under this prefix only.")
]
Section = Annotated[
    str | None, typer.Option("--section", metavar="PATH", help="Where the weights lie, such as 'state_dict'.")
]
Drop = Annotated[
    list[str] | None, typer.Option("--drop", metavar="PATTERN", help="Accept the loss of these tensors. Repeatable.")
]
Rules = Annotated[Path | None, typer.Option("--rules", metavar="FILE.toml", help="A method of your own.")]
Target = Annotated[
    str | None,
    typer.Option("--target", metavar="NAME", help=f"Whose names to write: {', '.join(TARGETS)}.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
