"""The commands. Options are read here, work is done in the library, and `render` prints.

Each command imports what it needs itself, so that `--help` does not wait for the library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckptconv._version import __version__

app = typer.Typer(
    name="ckptconv",
    help="Self-supervised checkpoints for MMDetection, with every tensor accounted for.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Source = Annotated[
    Path, typer.Argument(metavar="SRC", help="The checkpoint: torch, safetensors or numpy.", show_default=False)
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
Target = Annotated[str, typer.Option("--target", metavar="mmdet|torchvision", help="Whose names to write.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ckptconv {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def convert(
    src: Source,
    dst: Annotated[Path, typer.Argument(metavar="DST", help="The file to write.", show_default=False)],
    selfsup: Selfsup = "auto",
    strip_prefix: Prefix = "",
    section: Section = None,
    drop: Drop = None,
    rules: Rules = None,
    target: Target = "mmdet",
    format: Annotated[
        str | None, typer.Option("--format", metavar="torch|safetensors", help="Default: by the suffix of DST.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype", metavar="TYPE", help="Round floating tensors to float16, bfloat16, float32 or float64."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan, and write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace DST if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write the backbone of SRC to DST as MMDetection loads it, or say which tensor stands in the way."""
    from ckptconv import pipeline
    from ckptconv.cli import render

    with render.progress() as progress:
        receipt = pipeline.convert(
            src,
            dst,
            selfsup,
            drop=drop or (),
            strip_prefix=strip_prefix,
            section=section,
            rules=rules,
            for_target=target,
            format=format,
            dtype=dtype,
            dry_run=dry_run,
            force=force,
            progress=progress,
        )
    render.receipt(receipt, as_json)


@app.command()
def inspect(
    src: Source,
    rules: Rules = None,
    full: Annotated[bool, typer.Option("--all", help="Every tensor on its own line, nothing folded.")] = False,
    as_json: Json = False,
) -> None:
    """Show what SRC holds, and which methods explain it. Nothing in it is executed."""
    from ckptconv import questions
    from ckptconv.cli import render

    render.inspection(questions.inspect(src, rules=rules), full, as_json)


@app.command()
def methods(rules: Rules = None, as_json: Json = False) -> None:
    """List the methods: built in, from other packages (entry points `ckptconv.methods`), and from --rules.

    A rule file holds a name and rules: name = "mine", rules = [{keep = "encoder.{key...}", to = "{key...}"},
    {drop = "head.{key...}", why = "the head"}]. {x} is one segment of a dotted name, {x...} one or more.
    """
    from ckptconv import questions
    from ckptconv.cli import render

    render.methods(questions.known_methods(rules), as_json)


@app.command()
def explain(
    src: Source,
    key: Annotated[str, typer.Argument(metavar="KEY", help="A name in the file.", show_default=False)],
    selfsup: Selfsup = "auto",
    strip_prefix: Prefix = "",
    section: Section = None,
    drop: Drop = None,
    rules: Rules = None,
    target: Target = "mmdet",
    as_json: Json = False,
) -> None:
    """Say which rule takes KEY and where it goes, or why it is left out."""
    from ckptconv import questions
    from ckptconv.cli import render

    found = questions.explain(
        src,
        key,
        selfsup,
        drop=drop or (),
        strip_prefix=strip_prefix,
        section=section,
        rules=rules,
        target=target,
    )
    render.explanation(found, as_json)
