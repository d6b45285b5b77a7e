"""The commands about the AP. Each imports what it needs itself, for `--help` does not wait."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckptconv.cli import completion
from ckptconv.cli.options import Json

_DETECTOR = "The detector"
_DATA = "The data"
_TRAINING = "The training"
_VERDICT = "The verdict"


def verify_ap(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="Any MMDetection config, or a recipe of `ckptconv recipes`.",
            show_default=False,
            autocompletion=completion.configs,
        ),
    ],
    tier: Annotated[
        str,
        typer.Option(
            "--tier",
            "-t",
            metavar="load|smoke|lift|eval|full",
            help="Verification tier.",
            autocompletion=completion.tiers,
        ),
    ] = "smoke",
    pretrained: Annotated[
        str | None,
        typer.Option(
            "--pretrained", "-p", metavar="CKPT", help="A checkpoint that `convert` wrote.", rich_help_panel=_DATA
        ),
    ] = None,
    data_root: Annotated[
        str | None,
        typer.Option(
            "--data-root", metavar="DIR", help="Folder of the data set. Default: the config's.", rich_help_panel=_DATA
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images",
            metavar="N",
            help="lift: use the first N images of each part.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="DETECTOR.pth",
            help="eval: the trained detector.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus",
            metavar="N",
            help="GPUs per node; 0 is the CPU. Default: all; 1 for generated images.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    nodes: Annotated[
        int,
        typer.Option(
            "--nodes",
            metavar="N",
            help="Number of nodes.",
            rich_help_panel=_TRAINING,
        ),
    ] = 1,
    launcher: Annotated[
        str | None,
        typer.Option(
            "--launcher",
            metavar="none|pytorch|slurm",
            help="With --gpus 0, pytorch and slurm start two processes.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    work_dir: Annotated[
        str | None, typer.Option("--work-dir", metavar="DIR", help="Default: work_dirs/CONFIG-TIER.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", metavar="N", help="Number of trainings. Default: 1; 3 for lift.", rich_help_panel=_TRAINING
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            metavar="N",
            help="Seed of the first training.",
            rich_help_panel=_TRAINING,
        ),
    ] = 0,
    amp: Annotated[
        bool,
        typer.Option(
            "--amp",
            help="Train with automatic mixed precision.",
            rich_help_panel=_TRAINING,
        ),
    ] = False,
    expect: Annotated[
        str | None,
        typer.Option(
            "--expect", metavar="box=38.0,mask=34.3", help="The expected AP, in percent.", rich_help_panel=_VERDICT
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance", metavar="POINTS", help="Allowed difference, in AP points.", rich_help_panel=_VERDICT
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the recipe and the launch commands; run nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train or test CONFIG, measure its AP, and judge it. After a stop, the same command resumes.

    load proves that the detector starts from its checkpoint; smoke trains a small detector on generated images; lift
    compares the checkpoint with random weights; eval tests a trained detector; full trains the published recipe.
    """
    from ckptconv.cli import render, render_verification, waiting
    from ckptconv.mmdetection.verify.request import Request, expectations

    request = Request(
        config,
        tier,
        pretrained=pretrained,
        data_root=data_root,
        images=images,
        checkpoint=checkpoint,
        gpus=gpus,
        nodes=nodes,
        launcher=launcher,
        work_dir=work_dir,
        seeds=seeds,
        seed=seed,
        amp=amp,
        expect=expectations(expect) if expect is not None else None,
        tolerance=tolerance,
    )
    with waiting.stage(f"planning {config}, tier {tier}", as_json):
        from ckptconv.mmdetection.verify import verify_ap
        from ckptconv.mmdetection.verify.compare_ap import GOOD

        plan = verify_ap.planned(request)
    if dry_run:
        with waiting.stage("checking the data", as_json) as stage:
            data = verify_ap.data_findings(plan, stage)
        render_verification.planned(plan, data, as_json)
        if data.problems:
            raise typer.Exit(2)
        return
    try:
        with render_verification.progress() as (watch, stage):
            report, folder = verify_ap.verify(request, watch, stage, plan, render.typed())
    except KeyboardInterrupt:
        render.note("stopped; the same command resumes from the last checkpoint")
        raise typer.Exit(130) from None
    render_verification.verdict(report, folder, as_json)
    if report.verdict.status not in GOOD:
        raise typer.Exit(1)


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR…", help="Work dirs of verify-ap, with a report.json.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.html", help="Where to write the page.")] = Path(
        "comparison.html"
    ),
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace FILE.html if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write one page about several verifications: verdicts, AP, curves, and what differs in their configs."""
    from ckptconv.cli import render_verification
    from ckptconv.conversion.report.write import check_report, write_report
    from ckptconv.mmdetection.verify.report import comparison, comparison_page

    page = check_report(out, force, [])
    compared = comparison.read(folders)
    write_report(page, force, comparison_page.page(compared))
    render_verification.comparison(compared, out, as_json)


def recipes(as_json: Json = False) -> None:
    """List the published results that verify-ap knows, as box AP / mask AP on COCO val2017."""
    from ckptconv.cli import render_verification
    from ckptconv.mmdetection.verify.recipes import RECIPES

    render_verification.recipes(RECIPES.values(), as_json)
