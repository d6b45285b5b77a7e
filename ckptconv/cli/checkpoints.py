"""The commands about checkpoints and methods. Each imports what it needs itself, for `--help` does not wait."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from ckptconv.backbones import TargetName
from ckptconv.cli import completion
from ckptconv.cli.options import (
    TAKEN,
    WRITTEN,
    CacheDir,
    Drop,
    Json,
    MethodName,
    Prefix,
    Report,
    Rules,
    Section,
    Source,
    Target,
    Whole,
    channel_numbers,
)


def convert(
    source: Source,
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The file to write.", show_default=False)],
    method: MethodName = "auto",
    strip_prefix: Prefix = "",
    section: Section = None,
    drop: Drop = None,
    rules: Rules = None,
    target: Target = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="torch|safetensors", help="Default: by the suffix of DST.", rich_help_panel=WRITTEN
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help="Round floating tensors to float16, bfloat16, float32 or float64.",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels",
            metavar="4,3,2",
            help="Keep these channels of the images, numbered from 1 as bands are, in this order. 1,1,1 makes three of "
            "a grey one: each gets a third of its weights.",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size",
            metavar="PIXELS",
            help="Resize a ViT's positions for square images of this side.",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    patch_size: Annotated[
        int | None,
        typer.Option(
            "--patch-size",
            metavar="PIXELS",
            help="Resize a ViT's patches, and their kernel, to this side.",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    num_heads: Annotated[
        int | None,
        typer.Option(
            "--num-heads",
            metavar="N",
            help="Attention heads of each block, which most files do not show. Default: the method's, or the usual "
            "number.",
        ),
    ] = None,
    report: Report = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan, and write nothing but the report.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace DST and the report if they exist.")] = False,
    whole: Whole = False,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Write the backbone of SRC to DST as MMDetection loads it, or name the tensors that prevent it."""
    from ckptconv.cli import render, render_checkpoints, render_sources
    from ckptconv.conversion import convert

    with render_sources.fetching(whole, cache_dir) as fetching, render.progress() as progress:
        receipt = convert.convert(
            source,
            destination,
            method,
            drop=drop or (),
            strip_prefix=strip_prefix,
            section=section,
            rules=rules,
            target=cast("TargetName | None", target),
            format=format,
            dtype=dtype,
            channels=channel_numbers(channels) if channels is not None else (),
            image_size=image_size,
            patch_size=patch_size,
            num_heads=num_heads,
            report=report,
            dry_run=dry_run,
            force=force,
            progress=progress,
            fetching=fetching,
        )
    render_checkpoints.receipt(receipt, as_json)


def inspect(
    source: Source,
    rules: Rules = None,
    full: Annotated[bool, typer.Option("--all", help="Every tensor on its own line, nothing folded.")] = False,
    whole: Whole = False,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Show what SRC holds, and which methods explain it. Nothing in it is executed."""
    from ckptconv import inspection
    from ckptconv.cli import render, render_inspection, render_sources

    with render_sources.fetching(whole, cache_dir) as fetching, render.progress() as progress:
        found = inspection.inspect(source, rules=rules, progress=progress, fetching=fetching)
    render_inspection.inspection(found, full, as_json)


def diff(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A checkpoint, as SRC of `convert`.",
            show_default=False,
            autocompletion=completion.sources,
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(metavar="B", help="Another one.", show_default=False, autocompletion=completion.sources),
    ],
    method_a: Annotated[
        str,
        typer.Option(
            "--method-a",
            metavar="auto|NAME",
            help="The method of A.",
            autocompletion=completion.methods,
            rich_help_panel=TAKEN,
        ),
    ] = "auto",
    method_b: Annotated[
        str,
        typer.Option(
            "--method-b",
            metavar="auto|NAME",
            help="The method of B.",
            autocompletion=completion.methods,
            rich_help_panel=TAKEN,
        ),
    ] = "auto",
    section_a: Annotated[
        str | None,
        typer.Option(
            "--section-a",
            metavar="PATH",
            help="Where the weights are in A.",
            rich_help_panel=TAKEN,
        ),
    ] = None,
    section_b: Annotated[
        str | None,
        typer.Option(
            "--section-b",
            metavar="PATH",
            help="Where the weights are in B.",
            rich_help_panel=TAKEN,
        ),
    ] = None,
    rules: Rules = None,
    full: Annotated[bool, typer.Option("--all", help="Every tensor that differs.")] = False,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Say whether A and B hold the same network, and which tensors differ by how much. Exit 1 if any does.

    Formats and layouts may differ: tensors are compared under the names of one target where methods explain both
    files, else under their own names.
    """
    from ckptconv.cli import render_difference, render_sources
    from ckptconv.difference import compare

    with render_sources.fetching(False, cache_dir) as fetching:
        found = compare.diff(
            a,
            b,
            method_a=method_a,
            method_b=method_b,
            section_a=section_a,
            section_b=section_b,
            rules=rules,
            fetching=fetching,
        )
    render_difference.difference(found, full, as_json)
    if not found.same:
        raise typer.Exit(1)


def explain(
    source: Source,
    key: Annotated[
        str,
        typer.Argument(metavar="KEY", help="A name in the file.", show_default=False, autocompletion=completion.keys),
    ],
    method: MethodName = "auto",
    strip_prefix: Prefix = "",
    section: Section = None,
    drop: Drop = None,
    rules: Rules = None,
    target: Target = None,
    whole: Whole = False,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Say which rule takes KEY and where it goes, or why it is left out."""
    from ckptconv import inspection
    from ckptconv.cli import render_checkpoints, render_sources

    with render_sources.fetching(whole, cache_dir) as fetching:
        found = inspection.explain(
            source,
            key,
            method,
            drop=drop or (),
            strip_prefix=strip_prefix,
            section=section,
            rules=rules,
            target=cast("TargetName | None", target),
            fetching=fetching,
        )
    render_checkpoints.explanation(found, as_json)
