"""The command line: which commands there are, in the order in which `--help` lists them.

Options are read by `catalogue`, `checkpoints`, `detection` and `verification`. Work is done in the library, and the
`render` modules print.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ckptconv._version import __version__
from ckptconv.cli import catalogue, checkpoints, detection, verification
from ckptconv.cli.examples import epilog
from ckptconv.cli.guide import guide

app = typer.Typer(
    name="ckptconv",
    help="Self-supervised checkpoints for MMDetection, with every tensor accounted for.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


for name, command in (
    ("convert", checkpoints.convert),
    ("inspect", checkpoints.inspect),
    ("diff", checkpoints.diff),
    ("methods", catalogue.methods),
    ("explain", checkpoints.explain),
    ("releases", catalogue.releases),
    ("emit-config", detection.emit_config),
    ("check", detection.check),
    ("verify-ap", verification.verify_ap),
    ("report", verification.report),
    ("recipes", verification.recipes),
    ("doctor", detection.doctor),
    ("guide", guide),
):
    app.command(name, epilog=epilog(name))(command)

cache = typer.Typer(help="The files that were fetched whole.", no_args_is_help=True)
cache.command("list", epilog=epilog("cache list"))(catalogue.cache_list)
cache.command("clear", epilog=epilog("cache clear"))(catalogue.cache_clear)
app.add_typer(cache, name="cache")
